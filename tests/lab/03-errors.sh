#!/usr/bin/env bash
# Creates that must fail: within the configured time (paid twice: rtslib writes `enable` twice), with the reason in
# /var/log/tcmu-runner.log, nothing left in configfs and uio; and the next good create works.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

limit=3
image err 64M
ok "daemon" gw OPEN_TIMEOUT=$limit <<'END'
serve
# The cluster's name, and so the keyring's, comes from the file's name unless the keyring is told.
{ sed 's/mon_host.*/mon_host = v2:10.99.0.1:40009/' /etc/ceph/ceph.conf; echo 'keyring = /etc/ceph/ceph.client.admin.keyring'; } >/etc/ceph/dead.conf
END

# refused WHAT LEAST MOST SIZE CFGSTRING LOG_REGEX   (LEAST: so long it must have tried, or it failed for another reason)
refused() {
  local output seconds
  output=$(gw 90 SIZE="$4" CFG="$5" <<'END'
wc -l </var/log/tcmu-runner.log >/tmp/before
start=$EPOCHREALTIME
timeout -k 1 80 targetcli /backstores/user:rbd create name=bad size="$SIZE" cfgstring="$CFG" >/tmp/out 2>&1
echo "status $?"
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "seconds %.1f\n", b - a }'
ls -d "$TARGET"/core/user_*/bad 2>/dev/null | sed 's/^/left /'
grep -l /bad/ /sys/class/uio/uio*/name 2>/dev/null | sed 's/^/left /'
echo "log $(tail -n +"$(($(cat /tmp/before) + 1))" /var/log/tcmu-runner.log | tr '\n' '~' | cut -c1-4000)"
echo "said $(tr '\n' '~' </tmp/out)"
END
)
  matches "$1: fails" 'status [1-9]' "$output"
  seconds=$(sed -n 's/^seconds //p' <<<"$output")
  between "$1: in time" "$2" "$3" "$seconds"
  is "$1: nothing left" "" "$(grep '^left' <<<"$output")"
  matches "$1: reason in the log" "$6" "$(grep '^log' <<<"$output")"
}

refused "wrong size" 0 8 32M rbd/err '67108864.*33554432|33554432.*67108864|[Ss]ize'
refused "missing image" 0 8 64M rbd/no-such-image 'no-such-image'
refused "missing pool" 0 8 64M no-such-pool/err 'no-such-pool'
refused "configuration that is not there" 0 8 64M 'rbd/err;conf=/nonexist/ceph.conf' '/nonexist/ceph\.conf'
refused "no cluster at the address" $((limit - 1)) $((2 * limit + 5)) 64M 'rbd/err;conf=/etc/ceph/dead.conf' 'rbd/err|bad'
"$LAB" ceph-pause mon
refused "paused monitor" $((limit - 1)) $((2 * limit + 5)) 64M rbd/err 'rbd/err|bad'
"$LAB" ceph-resume mon

# Without `pool/` targetcli may refuse before the daemon's log is asked: only that it fails, and soon.
start=$(now)
matches "a string without an image: fails" 'failed [1-9]' "$(gw <<<'lun_create bad img 64M >/dev/null 2>&1; echo "failed $?"')"
at_most "a string without an image: in time" 8 "$(since "$start")"
ok "the next good create works" gw <<<'backstore good rbd/err 64 && backstore_rm good'
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw <<<clean
no_watcher err
finish

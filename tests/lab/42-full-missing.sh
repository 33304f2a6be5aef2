#!/usr/bin/env bash
# A pool, then a cluster, that is full: what needs space fails at once and precisely, all else works, and it is over when there is space. A pool
# and an image that are missing at a restart: told, and taken on when they are there. The LUN beside them notices nothing.
# limit: 240
# shellcheck disable=SC1091,SC2016
. "$(dirname "$0")/lib.sh"

pool_rm() { ceph ceph config set mon mon_allow_pool_delete true; ceph ceph osd pool delete narrow narrow --yes-i-really-really-mean-it; }
pool_up() { ceph ceph osd pool create narrow 8 && ceph ceph osd pool application enable narrow rbd; }
trap 'ratio 0.85 0.9 0.95 >/dev/null 2>&1; pool_rm >/dev/null 2>&1' EXIT
ok "a pool" pool_up
ok "an image there" ceph rbd create --size 64M narrow/narrow
image beside 64M
disks=$(gw <<'END'
serve && backstore narrow narrow/narrow 64 && backstore beside rbd/beside 64 && echo "$(loop_export narrow) $(loop_export beside)"
END
)
matches "two disks" '^/dev/sd[a-z]+ /dev/sd[a-z]+$' "$disks"
ok "the first object of one is there" gw DISK="${disks% *}" <<<'dd if=/dev/urandom of="$DISK" bs=64k count=16 oflag=direct status=none'
ok "the other is stamped" gw DISK="${disks#* }" <<<'"$SGTEST" fill "$DISK" --state /tmp/beside'
gw 200 DISK="${disks#* }" <<<'"$SGTEST" check "$DISK" --state /tmp/beside --seconds 60 --limit 180' >"$LAB_DIR/share/beside.txt" 2>&1 &
pid=$!

# The quota of objects is used up; Ceph notices within a few seconds.
ok "the pool gets a quota" ceph ceph osd pool set-quota narrow max_objects 1
flags() { ceph ceph osd pool ls detail 2>/dev/null | sed -n "s/.*'narrow'.* flags \([^ ]*\).*/,\1,/p"; }
# It is the OSD who refuses, and hears of it after the monitor has said so.
osd_knows() { (($(ceph ceph tell osd.0 status 2>/dev/null | jq .newest_map) >= $(ceph ceph osd dump -f json 2>/dev/null | jq .epoch))); }
full() { [[ $(flags) == *,full,* ]] && osd_knows; }
becomes() { for ((n = 0; n < 30; n++)); do if "$@"; then return; fi; sleep 1; done; false; }
ok "and is full" becomes full
probes='sg=/dev/$(basename "/sys/block/${DISK##*/}/device/scsi_generic"/sg*)
head -c 4096 /dev/urandom >/tmp/page
probe() { local what=$1 start=$EPOCHREALTIME; shift; echo "$what: $(sg_raw "$@" 2>&1 | tr "\n" " ") after $(awk -v a="$start" -v b="$EPOCHREALTIME" "BEGIN { printf \"%.1f\", b - a }")"; }
probe new -s 4096 -i /tmp/page "$sg" 2a 0 0 0 c0 0 0 0 8 0
probe old -s 4096 -i /tmp/page "$sg" 2a 0 0 0 0 0 0 0 8 0
probe read -r 4096 "$sg" 28 0 0 0 c0 0 0 0 8 0
printf "\0\x16\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0" >/tmp/unmap
probe unmap -s 24 -i /tmp/unmap "$sg" 42 0 0 0 0 0 0 0 18 0'
refused() { # refused WHO: what needs space, and nothing else
  output=$(gw DISK="${disks% *}" <<<"$probes")
  matches "$1 is full: what needs space: SPACE ALLOCATION FAILED WRITE PROTECT" 'Data Protect.*[Ss]pace allocation failed' "$(grep '^new' <<<"$output")"
  at_most "$1 is full: and soon" 5 "$(sed -n 's/^new.* after //p' <<<"$output")"
  for what in old read unmap; do
    matches "$1 is full: $what: GOOD" 'SCSI Status: Good' "$(grep "^$what" <<<"$output")"
  done
}
refused "the pool"
ok "the quota is lifted" ceph ceph osd pool set-quota narrow max_objects 0
not_full() { local flags; flags=$(flags); [[ -n $flags && $flags != *full* ]] && osd_knows; }
ok "and it is not full" becomes not_full
matches "there is space again: GOOD" 'SCSI Status: Good' "$(gw DISK="${disks% *}" <<<"$probes" | grep '^new')"
wait $pid
result=$(cat "$LAB_DIR/share/beside.txt")
matches "the other LUN noticed nothing ($(grep -o 'slowest [0-9]* ms' <<<"$result"))" '[1-9] passed, 0 failed' "$result"
at_most "no command of it waited" 5000 "$(sed -n 's/.*slowest \([0-9]*\) ms.*/\1/p' <<<"$result")"

# The same with the cluster's own limit, which is every pool's.
ratio() { ceph ceph osd set-nearfull-ratio "$1" && ceph ceph osd set-backfillfull-ratio "$2" && ceph ceph osd set-full-ratio "$3"; }
ok "room for the next" gw DISK="${disks% *}" <<<'blkdiscard "$DISK"'
ok "the first object is there again" gw DISK="${disks% *}" <<<'dd if=/dev/urandom of="$DISK" bs=64k count=16 oflag=direct status=none'
ok "the cluster's full ratio is next to nothing" ratio 0.000001 0.000002 0.000003
ok "and it is full" becomes full
refused "the cluster"
ok "the ratio is put back" ratio 0.85 0.9 0.95
ok "and it is not full" becomes not_full
matches "there is space again: GOOD" 'SCSI Status: Good' "$(gw DISK="${disks% *}" <<<"$probes" | grep '^new')"

ok "the daemon stops" gw <<<daemon_stop
ok "the pool is removed" pool_rm
output=$(gw 60 DISK="${disks#* }" <<'END'
serve
told() { "$DAEMON" status | grep 'user_.*opening.*there is no pool narrow'; }
wait_for 20 told
ready() { "$DAEMON" status | grep 'beside.*ready(1)'; }
wait_for 20 ready
timeout 20 "$SGTEST" verify "$DISK" --state /tmp/beside | tail -n 1
END
)
matches "status: there is no pool" 'opening .*there is no pool narrow' "$output"
matches "the other LUN is served meanwhile" '[1-9] passed, 0 failed' "$output"
ok "the pool is made again" pool_up
ok "status: there is no image" gw 60 <<<'told() { "$DAEMON" status | grep "opening.*there is no image narrow in pool narrow"; }; wait_for 45 told'
ok "the image is made again" ceph rbd create --size 64M narrow/narrow
ok "the LUN is served without a restart" gw 60 <<<'ready() { "$DAEMON" status | grep "narrow.*ready(1)"; }; wait_for 45 ready'
ok "and works" gw DISK="${disks% *}" <<<'timeout 20 dd if=/dev/urandom of="$DISK" bs=64k count=16 oflag=direct status=none'
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw 60 <<<clean
no_watcher beside
finish

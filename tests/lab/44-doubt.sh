#!/usr/bin/env bash
# A client of which a write has timed out, and may still happen, is stopped in order: it must not give the image away before
# it is shut out of the cluster, or another gateway's write could be overtaken.
# limit: 400
# shellcheck disable=SC1091,SC2016
. "$(dirname "$0")/lib.sh"
. "$LAB_CASES/second-osd.sh"

undo() {
  "$LAB" ceph-resume osd
  second_osd_down well
} >/dev/null 2>&1
trap undo EXIT
ok "a second OSD with a pool of its own" second_osd_up well
ok "an image with its header there, its data on the first" ceph rbd create --size 64M --data-pool rbd well/doubt
disk=$(gw <<'END'
serve && backstore doubt well/doubt 64 && echo 0 >"$(lun_path doubt)/attrib/cmd_time_out" && disk=$(loop_export doubt) || exit
echo 300 >"/sys/block/${disk##*/}/device/timeout"
tr '\0' 0 </dev/zero | timeout 20 dd of="$disk" bs=4096 count=1 oflag=direct iflag=fullblock status=none && echo "$disk"
END
)
matches "a disk" '^/dev/sd' "$disk"
client=$(ceph rbd lock ls well/doubt --format json | jq -r '.[0].address')
matches "its client has the lock" '^10\.99\.0\.11:' "$client"
ok "the OSD with the data stops" "$LAB" ceph-pause osd
ok "a write, and it is in doubt" gw 120 DISK="$disk" <<'END'
{
  tr '\0' A </dev/zero | setsid timeout 280 dd of="$DISK" bs=4096 count=1 oflag=direct iflag=fullblock status=none
  echo "dd: $?" >/tmp/dd
} >/dev/null 2>&1 </dev/null &
in_doubt() { "$DAEMON" status | grep -q recovering; }
wait_for 60 in_doubt
END
ok "SIGTERM" gw 120 <<'END'
kill -TERM "$(daemon_pid)"
gone() { ! daemon_alive; }
wait_for 100 gone
END
# Either nobody has it, and the client is shut out, or the client has it, and who wants it must shut it out.
lock=$(ceph rbd lock ls well/doubt --format json | jq -r '.[0].address // "nobody"')
listed=$("$LAB" ceph osd blocklist ls 2>/dev/null | grep -cF "$client")
echo "      the lock is with $lock, $listed entries in the blocklist"
is "nobody gets the image before the client is shut out" yes "$([[ $lock == "$client" || $listed -gt 0 ]] && echo yes)"
is "its record is there for the next daemon" 1 "$(gw <<<'ls /run/tcmu-rbd' | grep -c 'doubt.*\.client$')"
"$LAB" ceph-resume osd
ok "a new daemon" gw <<<serve
is "the write is done" "dd: 0" "$(gw 90 <<<'wait_for 80 test -s /tmp/dd; cat /tmp/dd')"
is "it is there" A "$(ceph rbd export well/doubt - 2>/dev/null | head -c 1)"
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw <<<clean
finish

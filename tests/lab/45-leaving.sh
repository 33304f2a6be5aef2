#!/usr/bin/env bash
# Two gateways have an image open. One is stopped in order, and between giving the lock up and looking who has had it eight
# seconds pass; meanwhile the other writes and is stopped too, so that nobody is there any more who could tell. What has waited for the
# first one's successor is not carried out.
#   DAEMON_CRASH    a daemon built with the feature crash-points (default: target/crash-points/release/tcmu-rbd)
# limit: 300
# shellcheck disable=SC1091,SC2016
. "$(dirname "$0")/lib.sh"

crash=${DAEMON_CRASH:-$LAB_TOP/target/crash-points/release/tcmu-rbd}
gw2() { in_guest gateway2 "$@"; }
trap '"$LAB" guest-down gateway2 --kill >/dev/null 2>&1' EXIT
ok "a second gateway" "$LAB" guest-up gateway2
ok "a daemon that will be late" gw CRASH="$crash" <<<'TCMU_RBD_CRASH_AT=left-free:1:late DAEMON=$CRASH serve'
ok "one there too" gw2 <<<serve
image left 64M
for at in gw gw2; do
  ok "a disk of $at" $at <<<'backstore left rbd/left 64 && echo 0 >"$(lun_path left)/attrib/cmd_time_out" && loop_export left >/tmp/left'
done
ok "0 is written by the first" gw <<<'tr "\0" 0 </dev/zero | timeout 60 dd of="$(cat /tmp/left)" bs=4096 count=1 oflag=direct iflag=fullblock status=none'
start=$(now)
ok "it is stopped; A waits on its ring" gw <<'END'
kill -TERM "$(daemon_pid)"
sleep 1 # it has given the lock up by now
(setsid dd if=<(tr '\0' A </dev/zero) of="$(cat /tmp/left)" bs=4096 count=1 oflag=direct iflag=fullblock status=none; touch /tmp/A) >/dev/null 2>&1 </dev/null &
queued() { awk '{ exit !($9 > 0) }' "/sys/block/$(basename "$(cat /tmp/left)")/stat"; }
wait_for 10 queued
END
ok "the other writes B, and is stopped" gw2 <<'END'
tr '\0' B </dev/zero | timeout 60 dd of="$(cat /tmp/left)" bs=4096 count=1 oflag=direct iflag=fullblock status=none && daemon_stop TERM
END
between "within those eight seconds" 1 8.5 "$(since "$start")"
is "B is there" B "$(ceph rbd export rbd/left - 2>/dev/null | head -c 1)"
output=$(gw 90 <<'END'
gone() { ! daemon_alive; }
wait_for 30 gone && echo "ended"
rm -f /var/log/tcmu-runner.log
serve
taken() { grep -q 'device taken on' /var/log/tcmu-runner.log; }
wait_for 40 taken && sed -n 's/.*device taken on //p' /var/log/tcmu-runner.log
written() { [[ -e /tmp/A ]]; }
wait_for 20 written && echo "A is sent again, as its initiator likes"
END
)
matches "the first goes on and ends, and its successor trusts nobody" $'ended\n\\(reset: another client may have had.*\nA is sent again' "$output"
ok "the other is there again" gw2 <<<serve
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw 60 <<<clean
ok "nor there" gw2 60 <<<clean
no_watcher left
finish

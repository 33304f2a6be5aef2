#!/usr/bin/env bash
# The daemon starts while Ceph is away: it answers at once, its LUN comes up by itself when Ceph does, and nothing is lost.
# (tcmu-runner skips an image that it cannot open at its start, for its whole life.)
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

trap 'ceph-resume' EXIT
ceph-resume() { "$LAB" ceph-resume mon >/dev/null 2>&1; }

image late-cluster 64M
disk=$(gw <<<'serve && backstore late rbd/late-cluster 64 && loop_export late')
matches "a disk" '^/dev/sd[a-z]+$' "$disk"
ok "it is stamped" gw DISK="$disk" <<<'"$SGTEST" fill "$DISK" --state /tmp/late'
ok "the daemon is killed" gw <<<'old=$(daemon_pid); kill -9 "$old"; wait_for 10 _gone "$old"'
ok "Ceph's monitor stops" "$LAB" ceph-pause mon

output=$(gw <<'END'
start=$EPOCHREALTIME
serve
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "owns the name after %.1f s\n", b - a }'
start=$EPOCHREALTIME
busctl call org.kernel.TCMUService1 /org/kernel/TCMUService1/rbd org.kernel.TCMUService1 CheckConfig s rbd/late-cluster
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "answers after %.1f s\n", b - a }'
END
)
at_most "it owns its name on the bus without Ceph" 5 "$(sed -n 's/^owns the name after \(.*\) s/\1/p' <<<"$output")"
at_most "it answers on the bus" 2 "$(sed -n 's/^answers after \(.*\) s/\1/p' <<<"$output")"
# A command sent meanwhile gets BUSY, and the kernel tries again: it ends when the LUN is there.
gw 100 DISK="$disk" <<<'"$SGTEST" verify "$DISK" --state /tmp/late' >"$LAB_DIR/share/late.txt" 2>&1 &
pid=$!
sleep 22 # the first attempt has failed by now: 20 s are the time-out
matches "it has tried and says what is wrong" 'cannot take the device on.*trying again' "$(gw <<<'tail -n 5 /var/log/tcmu-runner.log')"
ceph-resume
wait $pid
result=$(cat "$LAB_DIR/share/late.txt")
matches "every block is what was last acknowledged" '[1-9] passed, 0 failed' "$result"
matches "it took the device on" 'device taken on' "$(gw <<<'tail -n 5 /var/log/tcmu-runner.log')"
ok "new writes and reads work" gw DISK="$disk" <<<'"$SGTEST" check "$DISK" --state /tmp/late --seconds 3'
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw 60 <<<clean
no_watcher late-cluster
finish

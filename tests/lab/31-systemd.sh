#!/usr/bin/env bash
# The unit under a real systemd: ready, reloaded, killed, frozen, stopped and started under verified I/O, without an error.
# limit: 300
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

SD=". $LAB_CASES/systemd.sh"
image sd-fio 64M
output=$(gw 90 <<END
$SD
sd_up || exit
sctl enable tcmu-rbd
start=\$EPOCHREALTIME
sctl start tcmu-rbd && awk -v a="\$start" -v b="\$EPOCHREALTIME" 'BEGIN { printf "ready after %.2f\n", b - a }'
sctl is-active tcmu-rbd tcmu-runner | tr '\n' ' '; echo
_bus_owned && echo "the bus name is owned"
backstore fio rbd/sd-fio 64 && echo "made"
loop_export fio
sleep 6; shown StatusText
for name in WatchdogUSec NRestarts TasksMax LimitNOFILE; do echo "\$name \$(shown \$name)"; done
END
)
at_most "ready at once" 2 "$(sed -n 's/^ready after //p' <<<"$output")"
matches "active by both names" $'(^|\n)active active ' "$output"
matches "the bus name" 'the bus name is owned' "$output"
matches "a LUN" $'made\n/dev/sd' "$output"
matches "the status says what is served" 'serving 1 devices' "$output"
matches "the watchdog is on" 'WatchdogUSec 15s' "$output"
matches "no limit of threads" 'TasksMax infinity' "$output"
((failed == 0)) || finish

# 4000 verified writes, 100 a second.
# shellcheck disable=SC2016
gw 200 <<'END' >"$LAB_DIR/share/fio.txt" 2>&1 &
fio --name=v --filename="$(ls /dev/sd? | tail -n 1)" --ioengine=libaio --direct=1 --iodepth=8 --rw=randwrite --bs=4k --size=64M \
  --io_size=40M --rate_iops=100 --verify=crc32c --verify_fatal=1 --output-format=json --output=/tmp/fio.json; echo "status $?"
jq -r '.jobs[0] | "error \(.error) writes \(.write.total_ios) slowest \(.write.clat_ns.max / 1e9 * 10 | floor / 10) s"' /tmp/fio.json
END
pid=$!
output=$(gw 150 <<END
$SD
since() { awk -v a="\$1" -v b="\$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }
new() { local start=\$EPOCHREALTIME; wait_for 45 unit_new \$1 && echo "\$2 \$(since \$start)"; }
sleep 3
old=\$(unit_pid)
sctl reload tcmu-rbd && wait_for 10 grep -q 'log file reopened' /var/log/tcmu-runner.log && [[ \$(unit_pid) == \$old ]] && unit_active && echo "reloaded"
kill -KILL \$old; new \$old "killed, new after"
sleep 5
echo "restarts \$(shown NRestarts)"
old=\$(unit_pid)
kill -STOP \$old; new \$old "frozen, new after"
sleep 3
echo "restarts \$(shown NRestarts)"
old=\$(unit_pid)
sctl restart tcmu-rbd && echo "restarted"; new \$old "new after"
sleep 2
sctl stop tcmu-rbd; echo "stopped: \$(shown ActiveState) \$(shown Result) \$(shown ExecMainStatus), kept \$(ls -d /run/tcmu-rbd)"
sctl start tcmu-rbd && echo "started: \$(shown ActiveState)"
END
)
wait $pid
fio=$(tr '\n' ' ' <"$LAB_DIR/share/fio.txt")
matches "reload reopens the log, same process" reloaded "$output"
at_most "killed: a new one is ready" 5 "$(sed -n 's/^killed, new after //p' <<<"$output")"
between "frozen: a new one is ready" 5 20 "$(sed -n 's/^frozen, new after //p' <<<"$output")"
matches "one restart, then two" 'restarts 1.*restarts 2' "${output//$'\n'/ }"
matches "restart" 'restarted' "$output"
matches "stopped in order, records kept" 'stopped: inactive success 0, kept /run/tcmu-rbd' "$output"
matches "started again" 'started: active' "$output"
matches "fio: no error ($fio)" 'status 0 error 0 writes 10240' "$fio"

ok "nothing left" gw <<END
$SD
clean; sctl stop tcmu-rbd && sd_down && leftovers
END
no_watcher sd-fio
finish

# shellcheck shell=bash
# outage.sh - the daemon goes away twice (signal $1) under verified I/O and comes back; nobody notices more than a delay.
# fio over tcm_loop, fio over iSCSI, and sgtest's checker (acknowledged writes are never lost nor reverted), each on a
# LUN of its own.

outage() {
  local signal=$1 disks check result pids
  for check in fio check net; do image "$signal-$check" 64M; done
  disks=$(gw SIGNAL="$signal" <<'END'
serve && for lun in fio check net; do backstore $lun "rbd/$SIGNAL-$lun" 64 || exit; done
echo "$(loop_export fio) $(loop_export check)"
iscsi_export "$IQN" net && iscsi_allow "$IQN" "$CLIENT" user "$SECRET"
END
)
  matches "two disks over tcm_loop" '^/dev/sd[a-z]+ /dev/sd[a-z]+$' "$disks"
  matches "one over iSCSI" '^/dev/sd' "$(ini <<<'iscsi_login $IQN gateway user $SECRET && iscsi_disk $IQN 0 | tee /tmp/disk')"
  check=${disks#* }
  ok "the checker's LUN is stamped" gw DISK="$check" <<<'"$SGTEST" fill "$DISK" --state /tmp/state'

  # 3000 writes at 250 a second: 12 seconds, then all of it is read and verified.
  # shellcheck disable=SC2016
  local fio='fio --name=v --filename=$DISK --ioengine=libaio --direct=1 --iodepth=8 --rw=randwrite --bs=4k --size=64M --io_size=12000k \
    --rate_iops=250 --verify=crc32c --verify_fatal=1 --output-format=json --output=/tmp/fio.json; echo "status $?"
  jq -r ".jobs[0] | \"error \(.error) writes \(.write.total_ios) reads \(.read.total_ios)\"" /tmp/fio.json'
  gw 100 DISK="${disks% *}" <<<"$fio" >"$LAB_DIR/share/fio.txt" 2>&1 &
  pids=$!
  ini 100 <<<"DISK=\$(cat /tmp/disk); $fio" >"$LAB_DIR/share/net.txt" 2>&1 &
  pids+=" $!"
  gw 100 DISK="$check" <<<'"$SGTEST" check "$DISK" --state /tmp/state --seconds 13' >"$LAB_DIR/share/check.txt" 2>&1 &
  pids+=" $!"

  result=$(gw 60 SIGNAL="$signal" <<'END'
for round in 1 2; do
  sleep 3
  old=$(daemon_pid)
  start=$EPOCHREALTIME
  kill "-$SIGNAL" "$old" && wait_for 20 _gone "$old" && echo "gone in $(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') s"
  sleep 1
  serve && [[ $(daemon_pid) != "$old" ]] && echo "back $round"
done
END
)
  matches "gone and back, twice (${result//$'\n'/, })" 'gone.*back 1.*gone.*back 2' "${result//$'\n'/ }"
  # shellcheck disable=SC2086
  wait $pids
  result=$(tr '\n' ' ' <"$LAB_DIR/share/fio.txt")
  matches "fio over tcm_loop: no error" 'status 0 error 0 writes [1-9][0-9]+ reads [1-9]' "$result"
  result=$(tr '\n' ' ' <"$LAB_DIR/share/net.txt")
  matches "fio over iSCSI: no error" 'status 0 error 0 writes [1-9][0-9]+ reads [1-9]' "$result"
  result=$(cat "$LAB_DIR/share/check.txt")
  matches "checker: no error ($(grep slowest <<<"$result"))" '[1-9] passed, 0 failed' "$result"
  # Proof that the outage was met by I/O: some command waited for the daemon.
  matches "checker: a command outlived the outage" 'slowest [1-9][0-9]{3,} ms' "$result"
  ok "checker: every acknowledged write is there" gw DISK="$check" <<<'"$SGTEST" verify "$DISK" --state /tmp/state'
  silent "the ring was not broken" <<<"dmesg | grep -E 'ring broken|ring is broken|not found, ring|BUG:|Oops' | head -n 3"
  ok "logout" ini <<<'iscsi_logout $IQN'
  ok "nothing left, daemon stopped" gw 60 <<<clean
  no_watcher "$signal-check"
}

#!/usr/bin/env bash
# An administrator meddles with a live device under verified I/O: block_dev on and off, reset_ring, both at once. Nothing is
# acknowledged falsely, no write is lost, no error reaches the initiator. Then the device is removed under I/O.
# limit: 240
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image meddle 64M
image gone 64M
disk=$(gw <<'END'
serve && backstore meddle rbd/meddle 64 && loop_export meddle
END
)
matches "a disk" '^/dev/sd' "$disk"
ok "stamped" gw DISK="$disk" <<<'"$SGTEST" fill "$DISK" --state /tmp/state'
gw 100 DISK="$disk" <<<'"$SGTEST" check "$DISK" --state /tmp/state --seconds 25' >"$LAB_DIR/share/check.txt" 2>&1 &
pid=$!
output=$(gw 60 <<'END'
action=$(lun_path meddle)/action
noticed() { grep -c 'dropping the commands in progress' /var/log/tcmu-runner.log; }
before=$(noticed)
sleep 2
for n in 1 2 3 4 5 6 7 8; do echo 1 >$action/block_dev; sleep 0.2; echo 0 >$action/block_dev; sleep 0.3; done; echo "blocked 8 times"
for n in 1 2 3 4 5 6 7 8; do echo 1 >$action/reset_ring; sleep 0.5; done; echo "reset 8 times"
for n in 1 2 3 4 5 6 7 8; do echo 1 >$action/block_dev; echo 1 >$action/reset_ring; echo 0 >$action/block_dev; sleep 0.4; done; echo "both 8 times"
daemon_alive && echo alive
echo "noticed $(($(noticed) - before))"
END
)
wait $pid
matches "meddled" 'blocked 8 times.*reset 8 times.*both 8 times.*alive' "${output//$'\n'/ }"
between "resets that met a command were noticed" 1 16 "$(sed -n 's/^noticed //p' <<<"$output")"
result=$(cat "$LAB_DIR/share/check.txt")
matches "checker: no error ($(grep slowest <<<"$result"))" '[1-9] passed, 0 failed' "$result"
ok "checker: every acknowledged write is there" gw DISK="$disk" <<<'"$SGTEST" verify "$DISK" --state /tmp/state'
silent "the ring was not broken" <<<"dmesg | grep -E 'ring broken|ring is broken|not found, ring|BUG:|Oops' | head -n 3"

# Removal under I/O: the LUN is unlinked while fio writes; then the backstore goes, and its image is closed.
output=$(gw 100 <<'END'
backstore gone rbd/gone 64 && disk=$(loop_export gone) || exit
(rmdir "$(lun_path gone)") 2>/dev/null || echo "in use"
fio --name=w --filename="$disk" --ioengine=libaio --direct=1 --iodepth=32 --rw=randwrite --bs=4k --size=60M --time_based --runtime=60 \
  >/tmp/gone.fio 2>&1 & fio=$!
writes() { awk '{ exit !($7 > 100) }' "/sys/block/${disk##*/}/stat"; }
wait_for 20 writes
start=$EPOCHREALTIME
loop_unexport gone && backstore_rm gone && awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "removed after %.1f\n", b - a }'
wait $fio; echo "fio $?"
END
)
matches "an exported backstore cannot be removed" 'in use' "$output"
at_most "removed under I/O" 20 "$(sed -n 's/^removed after //p' <<<"$output")"
matches "its user gets errors" 'fio [1-9]' "$output"
no_watcher gone
silent "no task waits in the kernel" <<<d_tasks
matches "the other serves" serves "$(gw DISK="$disk" <<<'timeout 20 dd if="$DISK" of=/dev/null bs=64k count=16 iflag=direct status=none && echo serves')"
ok "nothing left, daemon stopped" gw <<<clean
no_watcher meddle
finish

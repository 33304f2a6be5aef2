#!/usr/bin/env bash
# A daemon that is frozen: commands that the kernel gives up, commands that their initiator gives up (with and without a
# notification of it), and their late answers. A small data area, a small ring. ALUA states that the kernel enforces. A
# device that goes without an event.
# limit: 240
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

for name in expire abort notify area ring standby silent; do image fz-$name 64M; done
# shellcheck disable=SC2016
prelude='
freeze() { kill -STOP "$(daemon_pid)"; }
thaw() { kill -CONT "$(daemon_pid)"; }
sg() { echo "/dev/$(ls "/sys/block/${1##*/}/device/scsi_generic")"; }
serves() { timeout 30 dd if=/dev/urandom of="$1" bs=64k count=8 oflag=direct status=none && timeout 30 sg_turs "$1" && echo "$2 serves"; }
broken() { dmesg | grep -cE "ring broken|ring is broken|not found, ring"; }
'
output=$(gw 60 <<END
$prelude
serve && backstore expire rbd/fz-expire 64 && echo 2 >\$(lun_path expire)/attrib/cmd_time_out && disk=\$(loop_export expire) || exit
freeze
start=\$EPOCHREALTIME
sg_raw -t 30 -r 512 "\$(sg \$disk)" 28 0 0 0 0 0 0 0 1 0 2>&1 | grep -iE 'not ready|asc|logical unit' | tr '\n' ' '
awk -v a="\$start" -v b="\$EPOCHREALTIME" 'BEGIN { printf "\nexpired after %.1f\n", b - a }'
thaw
serves \$disk "after expiry"; echo "broken \$(broken)"
loop_unexport expire && backstore_rm expire
END
)
matches "a command that the kernel gives up is NOT READY" '[Nn]ot [Rr]eady' "$output"
between "in its time" 1.5 8 "$(sed -n 's/^expired after //p' <<<"$output")"
matches "its late answer harms nothing" $'after expiry serves\nbroken 0' "$output"

for name in abort notify; do
  output=$(gw 90 NAME=$name <<END
$prelude
backstore \$NAME rbd/fz-\$NAME 64 && echo 0 >\$(lun_path \$NAME)/attrib/cmd_time_out || exit
disk=\$(loop_export \$NAME) && tmr=\$(lun_path \$NAME)/attrib/tmr_notification || exit
wait_for 10 grep -qx 1 \$tmr && echo "aborts are told of"
[[ \$NAME != abort ]] || echo 0 >\$tmr
freeze
(sg_raw -t 2 -r 512 "\$(sg \$disk)" 28 0 0 0 0 0 0 0 1 0 >/dev/null 2>&1; echo "ended \$?" >/tmp/ended.\$NAME) &
sleep 6
[[ -e /tmp/ended.\$NAME ]] || echo "its end waits for the daemon"
thaw
wait_for 30 test -e /tmp/ended.\$NAME && cat /tmp/ended.\$NAME
serves \$disk "after an abort"; echo "broken \$(broken)"
loop_unexport \$NAME && backstore_rm \$NAME
END
)
  matches "$name: the daemon has the kernel tell of aborts" 'aborts are told of' "$output"
  matches "$name: an abort waits for the daemon, then ends" 'its end waits for the daemon.*ended [1-9]' "${output//$'\n'/ }"
  matches "$name: the device serves on" $'after an abort serves\nbroken 0' "$output"
done

output=$(gw 100 <<END
$prelude
backstore area rbd/fz-area 64 hw_max_sectors=1024,max_data_area_mb=1 && disk=\$(loop_export area) || exit
fio --name=a --filename=\$disk --ioengine=libaio --direct=1 --iodepth=16 --rw=randwrite --bs=256k --size=32M --verify=crc32c \
  --verify_fatal=1 --output-format=json --output=/tmp/a.json; jq -r '.jobs[0] | "area: error \(.error) writes \(.write.total_ios)"' /tmp/a.json
loop_unexport area && backstore_rm area
backstore ring rbd/fz-ring 64 cmd_ring_size_mb=1 && disk=\$(loop_export ring) || exit
sg_turs --number=9000 "\$(sg \$disk)" && echo "9000 commands, a ring of 8000"
serves \$disk "a small ring"; echo "broken \$(broken)"
loop_unexport ring && backstore_rm ring
END
)
matches "large writes through a data area of 1 MiB" 'area: error 0 writes 128' "$output"
matches "once around a ring of 1 MiB" $'9000 commands, a ring of 8000\na small ring serves\nbroken 0' "$output"

output=$(gw 60 <<END
$prelude
backstore standby rbd/fz-standby 64 && disk=\$(loop_export standby) || exit
state=\$(lun_path standby)/alua/default_tg_pt_gp/alua_access_state
echo 2 >\$state || exit
sg_turs \$disk >/dev/null 2>&1 # the unit attention
sg_raw -r 512 "\$(sg \$disk)" 28 0 0 0 0 0 0 0 1 0 2>&1 | grep -i standby
echo 0 >\$state
sg_turs \$disk >/dev/null 2>&1
serves \$disk "optimized again"
loop_unexport standby && backstore_rm standby
backstore silent rbd/fz-silent 64 && disk=\$(loop_export silent) && serves \$disk "before" && loop_unexport silent
echo 1 >/sys/module/target_core_user/parameters/block_netlink
backstore_rm silent && echo "gone without an event"
echo 0 >/sys/module/target_core_user/parameters/block_netlink
closed() { ! find "/proc/\$(daemon_pid)/fd" -lname '/dev/uio*' | grep -q .; }
wait_for 10 closed && echo "closed all the same"
END
)
matches "standby is the kernel's to enforce" '[Ss]tandby' "$output"
matches "optimized again" 'optimized again serves' "$output"
matches "a device that goes without an event is closed" $'gone without an event\nclosed all the same' "$output"
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw <<<clean
no_watcher fz-silent
finish

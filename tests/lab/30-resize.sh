#!/usr/bin/env bash
# `rbd resize` alone, under fio, over tcm_loop and iSCSI: the LUN grows with its image, initiators are told, nobody runs
# targetcli. Shrinking is refused loudly and harms nothing that is left; growing back mends it. (tcmu-runner notices none
# of it.)
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

mib() { echo $(($1 * 1048576)); }
for lun in size-loop size-net; do image $lun 64M; done
disk=$(gw <<'END'
serve && for lun in size-loop size-net; do backstore $lun rbd/$lun 64 || exit; done
iscsi_export "$IQN" size-net && iscsi_allow "$IQN" "$CLIENT" user "$SECRET"
loop_export size-loop
END
)
matches "a disk over tcm_loop" '^/dev/sd' "$disk"
matches "one over iSCSI" '^/dev/sd' "$(ini <<<'iscsi_login $IQN gateway user $SECRET && iscsi_disk $IQN 0 | tee /tmp/disk')"

# shellcheck disable=SC2016
fio='fio --name=v --filename=$DISK --ioengine=libaio --direct=1 --iodepth=4 --rw=randwrite --bs=4k --size=32M --io_size=10000k \
  --rate_iops=200 --verify=crc32c --verify_fatal=1 --output-format=json --output=/tmp/fio.json; echo "status $?"
  jq -r ".jobs[0] | \"error \(.error) writes \(.write.total_ios) reads \(.read.total_ios)\"" /tmp/fio.json'
gw 100 DISK="$disk" <<<"$fio" >"$LAB_DIR/share/fio.txt" 2>&1 &
pids=$!
ini 100 <<<"DISK=\$(cat /tmp/disk); $fio" >"$LAB_DIR/share/net.txt" 2>&1 &
pids+=" $!"
sleep 3 # fio is at work for some 12 s
# shellcheck disable=SC2016
grown='reached() { [[ $(cat "$(lun_path "$LUN")/attrib/dev_size") == "$SIZE" ]]; }; wait_for 15 reached; cat "$(lun_path "$LUN")/attrib/dev_size"'
for lun in size-loop size-net; do
  ok "$lun: the image grows under fio" ceph rbd resize --no-progress --size 96M rbd/$lun
  is "$lun: the kernel's device follows" "$(mib 96)" "$(gw LUN=$lun SIZE="$(mib 96)" <<<"$grown")"
done
# shellcheck disable=SC2086
wait $pids
for file in fio net; do
  matches "$file: no error" 'status 0 error 0 writes [1-9][0-9]+ reads [1-9]' "$(tr '\n' ' ' <"$LAB_DIR/share/$file.txt")"
done
# The unit attention went to whichever command came first, one of fio's; Linux says so and is asked to look.
# shellcheck disable=SC2016
rescan='echo 1 >"/sys/block/${DISK##*/}/device/rescan"; cat "/sys/block/${DISK##*/}/size"'
matches "tcm_loop: the initiator was told" 'Capacity data has changed' "$(gw <<<'dmesg | grep Capacity')"
matches "iSCSI: the initiator was told" 'Capacity data has changed' "$(ini <<<'dmesg | grep Capacity')"
is "tcm_loop: the disk is larger" 196608 "$(gw DISK="$disk" <<<"$rescan")"
is "iSCSI: the disk is larger" 196608 "$(ini <<<"DISK=\$(cat /tmp/disk); $rescan")"
ok "tcm_loop: what is new can be written" gw DISK="$disk" <<<'dd if=/dev/urandom of="$DISK" bs=1M seek=90 count=6 oflag=direct status=none'
ok "iSCSI: what is new can be written" ini <<<'dd if=/dev/urandom of="$(cat /tmp/disk)" bs=1M seek=90 count=6 oflag=direct status=none'
matches "status tells" '"size":100663296,"reason":"grown from 67108864 to 100663296' "$(gw <<<'"$DAEMON" status --json')"

# Shrunk to 48 MiB; the LUN keeps 96. Block 18000h is where the image ends now.
ok "the image is shrunk" ceph rbd resize --no-progress --allow-shrink --size 48M rbd/size-loop
output=$(gw DISK="$disk" <<'END'
told() { "$DAEMON" status | grep -q 'image was shrunk'; }
wait_for 15 told && echo "status tells"
grep -o 'the image was shrunk to 50331648 bytes.*100663296.*rbd resize' /var/log/tcmu-runner.log | tail -n 1
echo "size $(cat "$(lun_path size-loop)/attrib/dev_size")"
sg=/dev/$(basename "/sys/block/${DISK##*/}/device/scsi_generic"/sg*)
probe() { local what=$1; shift; echo "$what: $(sg_raw "$@" 2>&1 | tr '\n' ' ')"; }
head -c 1024 /dev/urandom >/tmp/two
# READ(10), WRITE(10), WRITE SAME(16) with UNMAP, COMPARE AND WRITE behind the end; across it; before it.
probe read-behind -r 512 "$sg" 28 0 0 1 80 0 0 0 1 0
probe write-behind -s 512 -i /tmp/two "$sg" 2a 0 0 1 80 0 0 0 1 0
probe unmap-behind -s 512 -i /dev/zero "$sg" 93 8 0 0 0 0 0 1 80 0 0 0 0 8 0 0
probe compare-behind -s 1024 -i /tmp/two "$sg" 89 0 0 0 0 0 0 1 80 0 0 0 0 1 0 0
probe read-across -r 1024 "$sg" 28 0 0 1 7f ff 0 0 2 0
probe write-across -s 1024 -i /tmp/two "$sg" 2a 0 0 1 7f ff 0 0 2 0
probe read-before -r 512 "$sg" 28 0 0 1 7f ff 0 0 1 0
probe write-before -s 512 -i /tmp/two "$sg" 2a 0 0 1 7f ff 0 0 1 0
END
)
matches "status tells that it is shrunk" 'status tells' "$output"
matches "the log tells, with the remedy" 'shrunk to 50331648 bytes.*rbd resize' "$output"
matches "the kernel's device keeps its size" "size $(mib 96)" "$output"
for what in read-behind write-behind unmap-behind compare-behind read-across write-across; do
  matches "$what: LOGICAL BLOCK ADDRESS OUT OF RANGE" 'Illegal Request.*[Ll]ogical block address out of range' "$(grep "^$what" <<<"$output")"
done
for what in read-before write-before; do
  matches "$what: GOOD" 'SCSI Status: Good' "$(grep "^$what" <<<"$output")"
done

# Growing back, to more than before. What was left is there, what was cut off is zeros.
ok "the image grows again" ceph rbd resize --no-progress --size 128M rbd/size-loop
is "the kernel's device follows again" "$(mib 128)" "$(gw LUN=size-loop SIZE="$(mib 128)" <<<"$grown")"
output=$(gw DISK="$disk" <<'END'
dd if="$DISK" of=/dev/null bs=512 count=1 iflag=direct status=none # takes the unit attention
echo 1 >"/sys/block/${DISK##*/}/device/rescan"
echo "blocks $(cat "/sys/block/${DISK##*/}/size")"
dd if="$DISK" bs=512 skip=98303 count=1 iflag=direct status=none | cmp -n 512 - /tmp/two && echo "the last block is kept"
dd if="$DISK" bs=1M skip=48 count=80 iflag=direct status=none | cmp -n $((80 * 1048576)) - /dev/zero && echo "behind it are zeros"
dd if=/dev/urandom of="$DISK" bs=1M seek=120 count=8 oflag=direct status=none && echo "and can be written"
"$DAEMON" status | grep -c 'ready(1).*grown from 100663296 to 134217728'
END
)
is "all of it" $'blocks 262144\nthe last block is kept\nbehind it are zeros\nand can be written\n1' "$output"

# A new client watches too.
owner=$(ceph rbd lock ls rbd/size-loop --format json | jq -r '.[0].address')
ok "its client is blocklisted" ceph ceph osd blocklist add "$owner"
ok "a new one takes over" gw DISK="$disk" <<'END'
dd if=/dev/zero of="$DISK" bs=64k count=4 oflag=direct status=none
again() { "$DAEMON" status | grep -q 'size-loop.*ready(2)'; }
wait_for 20 again
END
ok "the image grows once more" ceph rbd resize --no-progress --size 160M rbd/size-loop
is "the kernel's device follows the new client" "$(mib 160)" "$(gw LUN=size-loop SIZE="$(mib 160)" <<<"$grown")"
ceph ceph osd blocklist rm "$owner" >/dev/null 2>&1

# Grown while nobody watches: it is noticed at the start.
ok "the daemon stops" gw <<<daemon_stop
ok "the image grows meanwhile" ceph rbd resize --no-progress --size 192M rbd/size-loop
matches "without a daemon status says so, and ends with 3" 'no tcmu-rbd is running.* 3$' "$(gw <<<'echo "$("$DAEMON" status 2>&1) $?"')"
ok "a new daemon" gw <<<serve
is "the kernel's device follows at the start" "$(mib 192)" "$(gw LUN=size-loop SIZE="$(mib 192)" <<<"$grown")"

# Images change while their LUNs go: neither waits for the other.
ok "logout" ini <<<'iscsi_logout $IQN'
(for n in 1 2 3 4 5 6 7 8; do for lun in size-loop:192 size-net:96; do ceph rbd resize --no-progress --size $((${lun#*:} + 4 * n))M rbd/${lun%:*}; done; done) >/dev/null 2>&1 &
ok "nothing left, daemon stopped" gw 60 <<<clean
wait $!
silent "no task waits in the kernel" <<<d_tasks
for lun in size-loop size-net; do no_watcher $lun; done
finish

#!/usr/bin/env bash
# fio randrw 4k + 128k with crc32c over tcm_loop and iSCSI: no error; then `rbd export` is byte for byte what a read of
# the LUN gives, and qemu-img compare agrees.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image fio-loop 64M
image fio-iscsi 64M
disk=$(gw <<'END'
serve && backstore loop rbd/fio-loop 64 && backstore net rbd/fio-iscsi 64 && loop_export loop
iscsi_export "$IQN" net && iscsi_allow "$IQN" "$CLIENT" user "$SECRET"
END
)
matches "tcm_loop disk" '^/dev/sd' "$disk"
remote=$(ini <<<'iscsi_login $IQN gateway user $SECRET && iscsi_disk $IQN 0')
matches "iSCSI disk" '^/dev/sd' "$remote"

# shellcheck disable=SC2016
script='fio --name=v --filename=$DISK --ioengine=libaio --direct=1 --iodepth=16 --rw=randrw --bssplit=4k/60:128k/40 --size=64M \
  --verify=crc32c --verify_fatal=1 --randseed=7 --output-format=json --output=/tmp/fio.json; echo "status $?"
jq -r ".jobs[0] | \"error \(.error) writes \(.write.total_ios) reads \(.read.total_ios)\"" /tmp/fio.json'
gw 100 DISK="$disk" <<<"$script" >"$LAB_DIR/share/fio-loop.txt" 2>&1 &
result=$(ini 100 DISK="$remote" <<<"$script" 2>&1)
wait $!
matches "fio over iSCSI" 'status 0.*error 0 writes [1-9][0-9]* reads [1-9]' "${result//$'\n'/ }"
result=$(cat "$LAB_DIR/share/fio-loop.txt")
matches "fio over tcm_loop" 'status 0.*error 0 writes [1-9][0-9]* reads [1-9]' "${result//$'\n'/ }"

# compared NAME: /share/NAME.raw (what the LUN reads) against the image itself
compared() {
  local raw=$LAB_DIR/share/$1.raw
  is "$1: the LUN was read whole" 67108864 "$(stat -c %s "$raw" 2>/dev/null)"
  is "$1: it holds data" yes "$(tr -d '\0' <"$raw" | head -c 1000000 | wc -c | awk '{ print $1 == 1000000 ? "yes" : "no" }')"
  ceph rbd export --no-progress "rbd/$1" "$LAB_DIR/share/$1.export" 2>/dev/null
  ok "$1: rbd export is byte-identical" cmp "$raw" "$LAB_DIR/share/$1.export"
  ok "$1: qemu-img compare agrees" ceph qemu-img compare -f raw -F raw "$raw" "rbd:rbd/$1:conf=$LAB_DIR/ceph/ceph.conf"
  rm -f "$raw" "$LAB_DIR/share/$1.export"
}
ok "the LUN read over tcm_loop" gw DISK="$disk" <<<'dd if=$DISK of=/share/fio-loop.raw bs=512k iflag=direct status=none'
ok "the LUN read over iSCSI" ini DISK="$remote" <<<'dd if=$DISK of=/share/fio-iscsi.raw bs=512k iflag=direct status=none; iscsi_logout $IQN'
compared fio-loop
compared fio-iscsi
ok "nothing left, daemon stopped" gw <<<clean
no_watcher fio-loop
finish

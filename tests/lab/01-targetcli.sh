#!/usr/bin/env bash
# targetcli: create, ls, export over tcm_loop and iSCSI (CHAP, ACL by IQN), delete; then no watcher, and `rbd rm` works.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image cli 64M
output=$(gw 100 <<'END'
serve
targetcli /backstores/user:rbd create name=d0 size=64M cfgstring="rbd/cli;osd_op_timeout=30" hw_max_sectors=1024 control=max_data_area_mb=8
echo "create: $?"
targetcli ls /backstores/user:rbd
cat "$(lun_path d0)/info"
echo "nl_reply_supported: $(cat "$(lun_path d0)/attrib/nl_reply_supported")"
END
)
matches "create says what it did" 'Created user-backed storage object d0 size 67108864\.' "$output"
matches "create ends with 0" 'create: 0' "$output"
matches "ls shows the LUN" 'd0 .*\[rbd/cli;osd_op_timeout=30 \(64\.0MiB\) deactivated\]' "$output"
matches "configfs info" 'Config: rbd/rbd/cli;osd_op_timeout=30 Size: 67108864 MaxDataAreaMB: 8 ' "$output"
matches "netlink replies are on" 'nl_reply_supported: 1' "$output"

disk=$(gw 30 <<<'loop_export d0')
matches "tcm_loop disk" '^/dev/sd' "$disk"
output=$(gw 40 DISK="$disk" <<'END'
echo "serial: $(sed -n '1s/.*: //p' "$(lun_path d0)/wwn/vpd_unit_serial")"
echo "vpd80: $(sg_inq -p 0x80 "$DISK" | sed -n 's/.*serial number: //p')"
echo "blocks: $(cat "/sys/block/${DISK##*/}/size")"
head -c 1M /dev/urandom >/tmp/data && dd if=/tmp/data of="$DISK" bs=64k oflag=direct status=none && echo written
END
)
is "the serial set after enable is in VPD 80h" "$(sed -n 's/serial: //p' <<<"$output")" "$(sed -n 's/vpd80: //p' <<<"$output")"
matches "capacity" 'blocks: 131072' "$output"
matches "written over tcm_loop" written "$output"

ok "iSCSI target with ACL and CHAP" gw <<<'iscsi_export $IQN d0 && iscsi_allow $IQN $CLIENT user $SECRET'
is "a wrong secret is refused" 0 "$(ini 60 <<<'iscsi_login $IQN gateway user wrong-secret-here >/dev/null 2>&1; iscsiadm -m session 2>/dev/null | grep -c $IQN')"
is "another initiator is refused" 0 "$(ini 90 <<'END'
iscsiadm -m node -T "$IQN" -o delete 2>/dev/null
sed -i s/:initiator/:stranger/ /etc/iscsi/initiatorname.iscsi; pid=$(cat /run/iscsid.pid); kill "$pid"; wait_for 5 _gone "$pid"; iscsid
iscsi_login "$IQN" gateway user "$SECRET" >/dev/null 2>&1
iscsiadm -m session 2>/dev/null | grep -c "$IQN"
iscsiadm -m node -T "$IQN" -o delete 2>/dev/null
sed -i s/:stranger/:initiator/ /etc/iscsi/initiatorname.iscsi; pid=$(cat /run/iscsid.pid); kill "$pid"; wait_for 5 _gone "$pid"; iscsid
END
)"
sum=$(gw <<<'md5sum </tmp/data')
output=$(ini 60 <<'END'
iscsi_login "$IQN" gateway user "$SECRET" && disk=$(iscsi_disk "$IQN" 0) || exit
dd if="$disk" bs=64k count=16 iflag=direct status=none | md5sum
iscsi_logout "$IQN" && echo out
END
)
matches "the initiator reads what the gateway wrote" "^${sum:-nothing}" "$output"
matches "logout" out "$output"

ok "unexport" gw 60 <<<'iscsi_unexport $IQN && loop_unexport d0'
output=$(gw 60 <<<'targetcli /backstores/user:rbd delete d0; echo "delete: $?"')
no_watcher cli
matches "delete ends with 0" 'delete: 0' "$output"
ok "rbd rm works at once" ceph rbd rm --no-progress rbd/cli
ok "nothing left, daemon stopped" gw <<<clean
finish

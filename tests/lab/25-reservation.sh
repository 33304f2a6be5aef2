#!/usr/bin/env bash
# A Write Exclusive reservation and read-only access hold for commands that overwrite the disk without data too: the kernel
# lets those through to us, whoever sends them.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image reserved 64M
disk=$(gw <<'END'
mkdir -p /etc/target/pr
serve && backstore reserved rbd/reserved 64 && loop_export reserved
iscsi_export "$IQN" reserved >/dev/null && iscsi_allow "$IQN" "$CLIENT" user "$SECRET"
END
)
matches "a disk over tcm_loop" '^/dev/sd[a-z]+$' "$disk"
ok "the same over iSCSI" ini <<<'iscsi_login $IQN gateway user $SECRET && iscsi_disk $IQN 0 >/tmp/disk'
ok "it is full of data" gw DISK="$disk" <<<'"$SGTEST" fill "$DISK" --state /tmp/reserved'
# sends COMMAND...: prints the SCSI status of what the gateway's own initiator sends
sends() { gw 60 DISK="$disk" CDB="$*" <<<'sg_raw "$DISK" $CDB 2>&1 | sed -n "s/^SCSI Status: //p"'; }
FORMAT="04 00 00 00 00 00" SANITIZE="48 02 00 00 00 00 00 00 00 00"
SAME="93 01 00 00 00 00 00 00 00 00 00 00 00 08 00 00" # WRITE SAME(16), NDOB

for type in 1 5; do # Write Exclusive; Write Exclusive, Registrants Only
  ok "type $type: the iSCSI initiator registers and reserves" ini TYPE=$type <<'END'
disk=$(cat /tmp/disk)
sg_persist --out --register --param-sark=abc "$disk" && sg_persist --out --reserve --param-rk=abc --prout-type="$TYPE" "$disk"
END
  for command in "$FORMAT" "$SANITIZE" "$SAME"; do
    matches "type $type: ${command:0:2}h from the other initiator" 'Reservation Conflict' "$(sends "$command")"
  done
  ok "type $type: released" ini TYPE=$type <<'END'
disk=$(cat /tmp/disk)
sg_persist --out --release --param-rk=abc --prout-type="$TYPE" "$disk" && sg_persist --out --register --param-rk=abc --param-sark=0 "$disk"
END
done
# Nor does the kernel keep them from an initiator that may only read.
protect() { gw VALUE="$1" <<<'echo "$VALUE" >"$TARGET/iscsi/$IQN/tpgt_1/acls/$CLIENT/lun_0/write_protect"'; }
ok "the iSCSI initiator may only read" protect 1
for command in "$FORMAT" "$SANITIZE" "$SAME"; do
  # shellcheck disable=SC2016
  matches "${command:0:2}h from an initiator that may only read" 'Data Protect' "$(ini CDB="$command" <<<'sg_raw -v "$(cat /tmp/disk)" $CDB 2>&1')"
done
ok "it may write again" protect 0
ok "not a block has changed" gw DISK="$disk" <<<'"$SGTEST" verify "$DISK" --state /tmp/reserved'
matches "without a reservation WRITE SAME is carried out" 'Good' "$(sends "$SAME")"
ok "logout" ini <<<'iscsi_logout $IQN'
ok "nothing left, daemon stopped" gw 60 <<<clean
finish

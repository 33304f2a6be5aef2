#!/usr/bin/env bash
# A file system on the iSCSI disk of the initiator: mkfs, mount, copy, fsync, mount again, checksums.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image ext4 256M
ok "target" gw <<<'serve && backstore fs rbd/ext4 256 && iscsi_export $IQN fs && iscsi_allow $IQN $CLIENT user $SECRET'
output=$(ini 100 <<'END'
set -e
iscsi_login "$IQN" gateway user "$SECRET"
disk=$(iscsi_disk "$IQN" 0)
mkfs.ext4 -q "$disk" && echo made
mkdir -p /mnt/lun && mount "$disk" /mnt/lun
cp -r /etc /usr/share/perl5 /mnt/lun 2>/dev/null || true
head -c 20M /dev/urandom >/mnt/lun/random
sync -f /mnt/lun
sync /mnt/lun/random
(cd /mnt/lun && find . -type f -print0 | sort -z | xargs -0 md5sum) >/tmp/sums
echo "files $(wc -l </tmp/sums)"
umount /mnt/lun
# Another session: nothing may come from this machine's memory.
iscsi_logout "$IQN" && iscsi_login "$IQN" gateway user "$SECRET"
disk=$(iscsi_disk "$IQN" 0)
fsck.ext4 -fn "$disk" >/tmp/fsck 2>&1 && echo clean
mount -o ro "$disk" /mnt/lun
(cd /mnt/lun && md5sum --quiet -c /tmp/sums) && echo same
mount -o remount,rw /mnt/lun && rm -rf /mnt/lun/perl5 && fstrim /mnt/lun && echo trimmed
(cd /mnt/lun && grep -v perl5 /tmp/sums | md5sum --quiet -c -) && echo still
umount /mnt/lun
fsck.ext4 -fn "$disk" >/tmp/fsck 2>&1 && echo sound
iscsi_logout "$IQN" && echo out
END
)
matches "mkfs.ext4" made "$output"
matches "many files" 'files [1-9][0-9]{2,}' "$output"
matches "fsck after another login" clean "$output"
matches "checksums after another login" same "$output"
matches "fstrim" trimmed "$output"
matches "checksums after fstrim" still "$output"
matches "fsck after fstrim" sound "$output"
matches "logout" out "$output"
ok "nothing left, daemon stopped" gw <<<clean
no_watcher ext4
finish

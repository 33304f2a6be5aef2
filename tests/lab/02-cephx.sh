#!/usr/bin/env bash
# A cephx user with `profile rbd` only, named by id=; a user that does not exist is refused.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image user 64M
disk=$(gw <<<'serve && lun_create u "rbd/user;id=lun" 64M >/dev/null && loop_export u')
matches "LUN of client.lun" '^/dev/sd' "$disk"
sessions=$(ceph tell mon.a sessions 2>/dev/null | jq -r '.[].entity_name' | sort -u | tr '\n' ' ')
matches "the daemon is client.lun to the cluster" 'client\.lun' "$sessions"
ok "written and read" gw DISK="$disk" <<'END'
set -e
head -c 4M /dev/urandom >/tmp/data
dd if=/tmp/data of="$DISK" bs=256k oflag=direct status=none
dd if="$DISK" bs=256k count=16 iflag=direct status=none | cmp - /tmp/data
blkdiscard -l 1M "$DISK"
END
matches "a user that does not exist is refused" 'failed [1-9]' "$(gw 90 <<<'lun_create v "rbd/user;id=nobody" 64M >/dev/null 2>&1; echo "failed $?"')"
ok "nothing left, daemon stopped" gw <<<'loop_unexport u; lun_delete u >/dev/null; clean'
no_watcher user
finish

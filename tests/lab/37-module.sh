#!/usr/bin/env bash
# The kernel module is unloaded and loaded anew between the lives of two LUNs, under a daemon that goes on: the second LUN is
# served too, and a daemon is stopped in order while the module is not there.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image module 64M
output=$(gw 120 <<'END'
unload() {
  rmdir $TARGET/loopback $TARGET/iscsi 2>/dev/null
  modprobe -r tcm_loop iscsi_target_mod; rmmod target_core_user && ! [[ -e /sys/module/target_core_user ]]
}
rm -f /var/log/tcmu-runner.log # its errors are counted
serve && pid=$(daemon_pid) || exit
live() {
  backstore module rbd/module 64 && disk=$(loop_export module) || return
  timeout 20 dd if=/dev/urandom of="$disk" bs=64k count=4 oflag=direct status=none && echo "$1 life"
  loop_unexport module && backstore_rm module
}
live first
unload && echo "unloaded"
sleep 6
modprobe target_core_user && modprobe tcm_loop && modprobe iscsi_target_mod
heard() { grep -q 'loaded anew' /var/log/tcmu-runner.log; }
wait_for 15 heard && echo "noticed"
sleep 1
live second
[[ $(daemon_pid) == "$pid" ]] && daemon_alive && echo "the same daemon"
unload && echo "unloaded again"
daemon_stop && echo "stopped"
grep -c ERROR /var/log/tcmu-runner.log | sed 's/^/errors /'
modprobe target_core_user && modprobe tcm_loop && modprobe iscsi_target_mod
END
)
matches "two lives and a reload" 'first life unloaded noticed second life the same daemon unloaded again stopped' "${output//$'\n'/ }"
matches "without an error in the log" 'errors 0' "$output"
ok "nothing left" gw <<<clean
no_watcher module
finish

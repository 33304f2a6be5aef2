#!/usr/bin/env bash
# Creators, and one who changes an attribute, that wait in the kernel for a daemon that was killed: the next one frees them at
# its start, and what they wanted works then. Devices of other handlers, and of none, are left alone meanwhile.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

for n in 0 1 2 3 4 5 6 7; do image "s$n" 16M; done
output=$(gw <<'END'
serve && backstore s0 rbd/s0 16 && loop_export s0 >/dev/null || exit
daemon_stop KILL
# Nobody listens; the kernel still waits for answers.
for n in 1 2 3 4 5 6 7; do
  (backstore s$n rbd/s$n 16; echo "s$n ended $?" >>/tmp/stuck) >/dev/null 2>&1 &
done
dir=$TARGET/core/user_98/other dark=$TARGET/core/user_97/dark like=$TARGET/core/user_96/like
for d in $dir $dark $like; do mkdir -p $d; done
echo -n dev_config=qcow/some/file,dev_size=1048576,nl_reply_supported=-1 >$dir/control; echo 1 >$dir/enable && echo "another handler's is there"
echo -n dev_size=1048576,nl_reply_supported=-1 >$dark/control; echo 1 >$dark/enable && echo "one without a name is there"
echo -n dev_config=rbdx/rbd/s0,dev_size=1048576,nl_reply_supported=-1 >$like/control; echo 1 >$like/enable && echo "one with a name like ours is there"
wait_for 5 eval '(($(d_tasks | wc -l) >= 7))'
echo "waiting $(d_tasks | wc -l)"
start=$EPOCHREALTIME
serve
free() { [[ $(grep -c ended /tmp/stuck) == 7 ]]; }
wait_for 20 free && awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "freed after %.1f\n", b - a }'
echo "failed $(grep -vc 'ended 0' /tmp/stuck)"
d_tasks
opened() { find "/proc/$(daemon_pid)/fd" -lname "/dev/uio*" -printf '%l\n' 2>/dev/null | sort | tr '\n' ' '; }
mine() { grep -l '/s0/' /sys/class/uio/uio*/name | cut -d/ -f5; }
served() { [[ "$(opened)" == "/dev/$(mine) " ]]; }
wait_for 20 served && echo "only ours is open"
timeout 20 dd if="$(ls /dev/sd? | tail -n 1)" of=/dev/null bs=64k count=16 iflag=direct status=none && echo "s0 serves"
# Reconfiguration and removal of those that are not ours are nobody's business, and ours is not disturbed.
(echo qcow/other/file >$dir/attrib/dev_config) 2>/dev/null; echo "changed: $(cat $dir/attrib/dev_config)"
rmdir $dir $dark $like $TARGET/core/user_98 $TARGET/core/user_97 $TARGET/core/user_96 && echo "removed"
for n in 1 2 3 4 5 6 7; do backstore s$n rbd/s$n 16 || echo "s$n fails"; done
served || echo "$(opened | wc -w) open"
END
)
matches "others' devices can be made" "another handler's is there.*one without a name is there.*one with a name like ours" "${output//$'\n'/ }"
matches "seven creators wait" $'(^|\n)waiting ([7-9]|[1-9][0-9])\n' "$output"
at_most "they are freed by the start" 10 "$(sed -n 's/^freed after //p' <<<"$output")"
matches "with an error, since nobody knew of them" 'failed 7' "$output"
matches "devices of others are not opened" 'only ours is open' "$output"
matches "ours serves" 's0 serves' "$output"
matches "the others' can be removed" $'\nremoved' "$output"
matches "the creators succeed now" '8 open' "$output"
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw <<<clean
no_watcher s0
finish

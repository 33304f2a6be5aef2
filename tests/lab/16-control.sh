#!/usr/bin/env bash
# The control surface: D-Bus as targetcli and busctl see it, netlink replies.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image control 64M
name=org.kernel.TCMUService1 root=/org/kernel/TCMUService1
output=$(gw <<'END'
serve && echo started
busctl call org.freedesktop.DBus / org.freedesktop.DBus GetConnectionUnixProcessID s $BUS_NAME | sed 's/^u/owner/'
echo "pid $(daemon_pid)"
END
)
matches "the daemon owns the bus name" 'owner ([0-9]+)' "$output"
is "it is the one that was started" "$(sed -n 's/^pid //p' <<<"$output")" "$(sed -n 's/^owner //p' <<<"$output")"

output=$(gw <<<"busctl introspect $name $root/rbd $name --no-pager | tr -s ' '")
matches "CheckConfig takes a string, gives (bs)" '\.CheckConfig method s bs ' "$output"
matches "ConfigDesc is a string that tells its changes" '\.ConfigDesc property s "RBD config string.* emits-change' "$output"
matches "the root has an ObjectManager" 'org\.freedesktop\.DBus\.ObjectManager interface' \
  "$(gw <<<"busctl introspect $name $root --no-pager | tr -s ' '")"
xml=$(gw <<<"busctl call $name $root/rbd org.freedesktop.DBus.Introspectable Introspect; busctl call $name $root/HandlerManager1 org.freedesktop.DBus.Introspectable Introspect")
for argument in configstr is_valid message subtype cfgstr_desc succeeded; do
  matches "argument $argument is named" "name=\\\\?\"$argument" "$xml"
done
output=$(gw <<<"busctl tree $name --no-pager --list")
matches "tree: rbd" "$root/rbd" "$output"
matches "tree: HandlerManager1" "$root/HandlerManager1" "$output"
output=$(gw <<<"busctl call $name $root org.freedesktop.DBus.ObjectManager GetManagedObjects")
matches "exactly one managed object, rbd, with one interface" \
  "^a\{oa\{sa\{sv\}\}\} 1 \"$root/rbd\" 1 \"$name\" 1 \"ConfigDesc\" s " "$output"

check() { gw <<<"busctl call $name $root/rbd $name CheckConfig s '$1' 2>&1; echo status \$?"; }
for good in rbd/rbd/control 'rbd/rbd/control;osd_op_timeout=30;conf=/etc/ceph/ceph.conf;id=lun' 'rbd/;tcmur_cmd_time_out=20;rbd/control'; do
  matches "CheckConfig of $good" '^bs true "success"' "$(check "$good")"
done
if [[ ${DAEMON##*/} != tcmu-runner ]]; then # the incumbent says yes to everything
  for bad in rbd/ rbd/control 'rbd/rbd/' 'rbd/rbd/a,b' 'rbd/rbd/control;osd_op_timeout=' 'qcow/rbd/control' ''; do
    matches "CheckConfig of '$bad' is an answer, not an error" '^bs false ".+"' "$(check "$bad")"
  done
fi
matches "RegisterHandler refuses" '^bs false ".*org\.kernel\.TCMUService1\.HandlerManager1\.foo' \
  "$(gw <<<"busctl call $name $root/HandlerManager1 $name.HandlerManager1 RegisterHandler ss foo d 2>&1")"
matches "ConfigDesc by Properties.Get" 'poolname/devicename\[;option1;option2' \
  "$(gw <<<"busctl get-property $name $root/rbd $name ConfigDesc")"
output=$(gw <<<"targetcli /backstores/user:rbd help create 2>&1; targetcli ls /backstores")
matches "targetcli shows the format" 'RBD config string is of the form' "$output"
matches "targetcli lists user:rbd" 'user:rbd' "$output"
is "targetcli lists no other user: handler of ours" 0 "$(grep -c 'user:HandlerManager1' <<<"$output")"

# Netlink: a subtype that is nobody's is refused at once, not left waiting in the kernel .
output=$(gw 30 <<'END'
start=$EPOCHREALTIME
python3 - <<'PY' 2>&1 | tail -n 1
from rtslib_fb import UserBackedStorageObject
UserBackedStorageObject("x", config="foo/bar", size=67108864)
PY
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "seconds %.1f\n", b - a }'
END
)
matches "a foreign subtype is FileNotFoundError to rtslib" 'FileNotFoundError|No such file' "$output"
at_most "and soon" 6 "$(sed -n 's/^seconds //p' <<<"$output")"
output=$(gw <<'END'
backstore c rbd/control 64 && d=$(lun_path c)
echo "supported $(cat "$d/attrib/nl_reply_supported")"
echo $((64 * 1048576)) >"$d/attrib/dev_size" && echo "same size accepted"
(echo $((640 * 1048576)) >"$d/attrib/dev_size") 2>/dev/null || echo "a size the image has not is refused"
(echo rbd/rbd/other >"$d/attrib/dev_config") 2>/dev/null || echo "another image is refused"
END
)
matches "netlink replies are on" 'supported 1' "$output"
matches "RECONFIG of the same size" 'same size accepted' "$output"
[[ ${DAEMON##*/} == tcmu-runner ]] || matches "RECONFIG of a size that the image has not" 'has not is refused' "$output"
matches "RECONFIG of the configuration" 'another image is refused' "$output"
if [[ ${DAEMON##*/} != tcmu-runner ]]; then
  output=$(gw <<'END'
d=$(lun_path c) disk=$(loop_export c)
echo "$disk" >/tmp/disk
refused() { (echo "$1" >"$d/attrib/dev_size") 2>/dev/null || echo "$1 refused, still $(cat "$d/attrib/dev_size")"; }
refused $((32 * 1048576)); refused $((80 * 1048576 + 1)); refused 0
END
)
  ok "the image grows" ceph rbd resize --no-progress --size 96M rbd/control
  # The LUN follows by itself (30-resize); tools that set the size themselves get along with that.
  output+=$'\n'$(gw <<'END'
d=$(lun_path c) disk=$(cat /tmp/disk)
grown() { [[ $(cat "$d/attrib/dev_size") == $((96 * 1048576)) ]]; }
wait_for 20 grown # the kernel takes one change at a time
echo $((96 * 1048576)) >"$d/attrib/dev_size" && sg_raw -r 32 "$disk" 0 0 0 0 0 0 2>&1 | grep -i 'capacity data has changed'
sg_readcap --long "$disk" | grep 'Device size'
dd if=/dev/zero of="$disk" bs=1M seek=95 count=1 oflag=direct status=none 2>&1 || (echo 1 >"/sys/block/${disk##*/}/device/rescan"; dd if=/dev/zero of="$disk" bs=1M seek=95 count=1 oflag=direct status=none) && echo "written behind the old end"
END
)
  matches "a shrink is refused" '33554432 refused, still 67108864' "$output"
  matches "half a block is refused" '83886081 refused, still 67108864' "$output"
  matches "a size of zero is refused" $'(^|\n)0 refused, still 67108864' "$output"
  matches "growth is told, once" '[Cc]apacity data has changed' "$output"
  matches "and is there" 'Device size: 100663296' "$output"
  matches "and can be written" 'written behind the old end' "$output"
fi
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw <<<clean
no_watcher control
finish

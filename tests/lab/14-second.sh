#!/usr/bin/env bash
# A second instance is refused with status 1 and a reason; the first does not notice.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image instance 64M
output=$(gw <<'END'
serve && backstore one rbd/instance 64 && loop_export one >/dev/null
owner() { busctl call org.freedesktop.DBus / org.freedesktop.DBus GetConnectionUnixProcessID s $BUS_NAME; }
before=$(owner)
start=$EPOCHREALTIME
words=(); [[ ${DAEMON##*/} == tcmu-runner ]] || words=(serve)
timeout -k 1 15 "$DAEMON" "${words[@]}" >/tmp/second.out 2>&1 </dev/null
echo "status $?"
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "seconds %.1f\n", b - a }'
echo "said $(tail -n 3 /tmp/second.out | tr '\n' ' ') $(tail -n 3 /var/log/tcmu-runner.log | tr '\n' ' ')"
daemon_alive && echo alive
[[ $(owner) == "$before" && -n $before ]] && echo "owns the name"
disk=$(ls /dev/sd? | tail -n 1)
timeout 10 dd if="$disk" of=/dev/null bs=64k count=4 iflag=direct status=none && echo serves
END
)
matches "status 1" 'status 1$' "$(grep ^status <<<"$output")"
at_most "at once" 5 "$(sed -n 's/^seconds //p' <<<"$output")"
matches "a reason" 'already' "$(grep ^said <<<"$output")"
matches "the first lives" alive "$output"
matches "the first owns the bus name" 'owns the name' "$output"
matches "the first serves" serves "$output"
ok "nothing left, daemon stopped" gw <<<clean
no_watcher instance
finish

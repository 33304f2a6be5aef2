#!/usr/bin/env bash
# 32 LUNs, and no Ceph when the daemon starts: bus, kernel events and status are answered within a second all the same, and
# all come up by themselves when Ceph does.
# limit: 300
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

trap '{ "$LAB" ceph-resume mon; "$LAB" ceph-resume osd; } >/dev/null 2>&1' EXIT
for ((n = 0; n < 32; n++)); do echo "rbd create --size 16M rbd/many$n"; done | "$LAB" ns bash -e >/dev/null 2>&1 || fail "32 images" "made" "an error"
disk=$(gw 150 <<'END'
serve
for ((n = 0; n < 32; n++)); do backstore many$n rbd/many$n 16 || exit; done
loop_export many31
END
)
matches "32 LUNs, one exported" '^/dev/sd[a-z]+$' "$disk"
ok "it is stamped" gw DISK="$disk" <<<'"$SGTEST" fill "$DISK" --state /tmp/many'
ok "the daemon is killed" gw <<<'old=$(daemon_pid); kill -9 "$old"; wait_for 10 _gone "$old"'
ok "Ceph stops" "$LAB" ceph-pause mon
ok "all of it" "$LAB" ceph-pause osd

# The best of three: this machine has more to do than the daemon.
output=$(gw 120 <<'END'
serve
best() { # best NAME COMMAND...
  local name=$1 start n
  shift
  for n in 1 2 3; do
    start=$EPOCHREALTIME
    "$@" >/dev/null 2>&1
    awk -v a="$start" -v b="$EPOCHREALTIME" -v n="$name" 'BEGIN { printf "%s %.2f\n", n, b - a }'
  done | sort -k2 -n | head -n 1
}
best bus busctl call org.kernel.TCMUService1 /org/kernel/TCMUService1/rbd org.kernel.TCMUService1 CheckConfig s rbd/many0
best status "$DAEMON" status
best refused backstore bad nonsense 16
start=$EPOCHREALTIME
backstore_rm many0
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "removed %.2f\n", b - a }'
"$DAEMON" status --json | jq -r '"opening \([.luns[] | select(.state == "opening")] | length)"'
END
)
for what in bus status refused removed; do
  at_most "$what: within a second" 1 "$(sed -n "s/^$what //p" <<<"$output")"
done
matches "31 are opening" 'opening 31' "$output"
ok "initiators get BUSY within half a minute, not no answer" gw 60 <<'END'
all() { (($(grep -L unblocked "$TARGET"/core/user_*/many*/action/block_dev | wc -l) == 31)); }
wait_for 30 all
END
gw 200 DISK="$disk" <<<'"$SGTEST" verify "$DISK" --state /tmp/many --limit 180' >"$LAB_DIR/share/many.txt" 2>&1 &
pid=$!
ok "status tells why" gw 60 <<<'why() { (($("$DAEMON" status | grep -c "opening.*no monitor of .* answered in 15 s") == 31)); }; wait_for 45 why'
"$LAB" ceph-resume mon
"$LAB" ceph-resume osd
start=$(now)
output=$(gw 130 <<'END'
blocked() { grep -L unblocked "$TARGET"/core/user_*/many*/action/block_dev; }
up() { [[ $("$DAEMON" status --json | jq -r '[.luns[] | select(.state == "ready")] | length') == 31 && -z $(blocked) ]]; }
wait_for 120 up && echo up
"$DAEMON" status | head -n 1
blocked
END
)
matches "all come up ($(since "$start") s after Ceph)" up "$output"
matches "status counts them" '31 ready' "$output"
is "and none is blocked" "" "$(grep block_dev <<<"$output")"
wait $pid
matches "every block is what was last acknowledged" '[1-9] passed, 0 failed' "$(cat "$LAB_DIR/share/many.txt")"
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw 150 <<<clean
for ((n = 0; n < 32; n++)); do echo "rbd rm --no-progress rbd/many$n"; done | "$LAB" ns bash >/dev/null 2>&1
finish

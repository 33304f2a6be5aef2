#!/usr/bin/env bash
# kill -9 with eight LUNs: a new daemon fences every dead client before it serves, takes the LUNs on in parallel, and one
# whose image is gone holds up nobody, stays retryable and comes up when the image is back. A daemon that is stopped while
# it takes LUNs on leaves no image open; one that is killed then leaves a note of every client it had.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

LUNS="a0 a1 a2 a3 a4 a5 a6 a7"
for name in $LUNS; do image "$name" 16M; done
ok "eight LUNs, one exported and written to" gw LUNS="$LUNS" <<'END'
serve
for name in $LUNS; do backstore "$name" "rbd/$name" 16 || exit 1; done
disk=$(loop_export a0) && dd if=/dev/urandom of="$disk" bs=64k count=16 oflag=direct status=none
END
dead=$(gw <<<'cat /run/tcmu-rbd/*.client | tr "\n" " "; ls /run/tcmu-rbd | wc -l' | tr '\n' ' ')
ok "the daemon is killed" gw <<<'daemon_stop KILL'
ok "the image of one is away meanwhile" ceph rbd mv rbd/a7 rbd/away
output=$(gw <<'END'
start=$EPOCHREALTIME before=$(grep -c 'device taken on' /var/log/tcmu-runner.log)
serve
all() { (($(grep -c 'device taken on' /var/log/tcmu-runner.log) >= before + 7)); }
wait_for 20 all && awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "taken on within %.1f\n", b - a }'
timeout 10 dd if="$(ls /dev/sd? | tail -n 1)" of=/dev/null bs=64k count=16 iflag=direct status=none && echo "a0 serves"
held() { [[ $(cat "$(lun_path a7)/action/block_dev") == blocked ]]; }
wait_for 20 held && echo "a7 is blocked"
grep -q 'a7: cannot take the device on.*trying again' /var/log/tcmu-runner.log && echo "a7 is complained of"
END
)
between "the seven others are there at once" 0.1 10 "$(sed -n 's/^taken on within //p' <<<"$output")"
matches "their data too" "a0 serves" "$output"
matches "the one without its image is blocked, not failed" "a7 is blocked" "$output"
matches "and the log says so" "a7 is complained of" "$output"
fenced=$(ceph ceph osd blocklist ls 2>/dev/null)
missing=""
for address in $(grep -oE '[0-9.]+:0/[0-9]+' <<<"$dead" | sort -u); do
  [[ $fenced == *"$address"* ]] || missing+=" $address"
done
is "dead clients that are not on the cluster's blocklist" "" "${missing# }"
ok "its image comes back" ceph rbd mv rbd/away rbd/a7
output=$(gw 60 <<'END'
served() { [[ $(cat "$(lun_path a7)/action/block_dev") == unblocked ]]; }
wait_for 40 served && echo "a7 serves"
END
)
matches "and it is served without a restart" "a7 serves" "$output"
ok "the daemon stops" gw <<<daemon_stop

# Ended while it opens images, each time a little later. The watch of a process that has died stays for 30 s, unless it is
# fenced: what any round has left is seen at the end.
# shellcheck disable=SC2016
watched() { "$LAB" ns bash -c 'for name in "$@"; do rbd status "rbd/$name" 2>&1 | grep -q "Watchers: none" || echo "$name"; done' _ $LUNS | xargs; }
rounds() {
  gw 100 LUNS="$LUNS" SIGNAL="$1" <<'END'
for wait in 0 0.02 0.06 0.1 0.14 0.2; do serve && sleep $wait && daemon_stop $SIGNAL && echo ended; done
[[ $SIGNAL == KILL ]] || exit
serve
unblocked() { local name; for name in $LUNS; do [[ $(cat "$(lun_path "$name")/action/block_dev") == unblocked ]] || return; done; }
wait_for 40 unblocked && daemon_stop && echo ended
END
}
is "stops while images are being opened" 6 "$(rounds TERM | grep -c ended)"
is "images that stay open" "" "$(watched)"
is "kills while images are being opened, then a start that takes all on, and a stop" 7 "$(rounds KILL | grep -c ended)"
is "images that stay open" "" "$(watched)"
ok "nothing left, daemon stopped" gw <<<clean
for name in $LUNS; do no_watcher "$name"; done
finish

#!/usr/bin/env bash
# kill -9 with eight LUNs: a new daemon fences every dead client before it serves, takes the LUNs on in parallel, and one
# whose image is gone holds up nobody, stays retryable and comes up when the image is back.
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
cat "$(lun_path a7)/action/block_dev" | sed 's/^/a7 is /'
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
ok "nothing left, daemon stopped" gw <<<clean
for name in $LUNS; do no_watcher "$name"; done
finish

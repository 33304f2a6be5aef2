#!/usr/bin/env bash
# Two gateways with one image. What waited on the ring of one, while nobody served it and the other wrote, is not carried out by
# the next daemon: its initiator has written something newer since. The same for a daemon that stood still meanwhile, before it
# looked at its ring or between two looks. While the other only has the image open, what waited is carried out.
#   DAEMON_CRASH    a daemon built with the feature crash-points (default: target/crash-points/release/tcmu-rbd)
# limit: 600
# shellcheck disable=SC1091,SC2016
. "$(dirname "$0")/lib.sh"

crash=${DAEMON_CRASH:-$LAB_TOP/target/crash-points/release/tcmu-rbd}
gw2() { in_guest gateway2 "$@"; }
undo() {
  "$LAB" ns ip link set tap-gateway master br0
  "$LAB" guest-down gateway2 --kill
} >/dev/null 2>&1
trap undo EXIT
ok "a second gateway" "$LAB" guest-up gateway2
ok "a daemon" gw <<<serve
ok "one there too" gw2 <<<serve
# A path is given up after about 15 s without an answer on the network.
ok "multipathd" ini <<<multipath_start

# served IMAGE SERIAL: by both, by one name; the disk is /dev/mapper/$map
served() {
  local at
  image "$1" 64M
  for at in gw gw2; do
    ok "$1 is exported by $at" "$at" IMAGE="$1" SERIAL="$2" AT="$at" <<'END'
backstore "$IMAGE" "rbd/$IMAGE" 64 && lun_wwn "$IMAGE" "$SERIAL" && echo 0 >"$(lun_path "$IMAGE")/attrib/cmd_time_out" &&
  iscsi_export "$IQN-$AT" "$IMAGE" >/dev/null && iscsi_allow "$IQN-$AT" "$CLIENT"
END
  done
  map=$(ini 90 <<'END'
for at in gw gw2; do
  [[ $at == gw ]] && host=gateway || host=gateway2
  timeout 30 iscsiadm -m discovery -t sendtargets -p $host >/dev/null &&
    iscsiadm -m node -T "$IQN-$at" -o update -n node.session.timeo.replacement_timeout -v 5 &&
    iscsi_login "$IQN-$at" $host >/dev/null && iscsi_disk "$IQN-$at" 0 >/dev/null || exit
done
both() { multipath -ll | grep -c 'ready running' | grep -qx 2; }
wait_for 30 both && basename "$(ls /dev/mapper/* | grep -v control)"
END
)
  matches "$1: two paths" '^[a-z0-9]+$' "$map"
}
gone() {
  ok "logout" ini 90 <<<'multipath -F; iscsi_logout "$IQN-gw"; iscsi_logout "$IQN-gw2"'
  ok "the export is removed" gw 60 IMAGE="$1" <<<'iscsi_unexport "$IQN-gw" && backstore_rm "$IMAGE"'
  ok "there too" gw2 60 IMAGE="$1" <<<'iscsi_unexport "$IQN-gw2" && backstore_rm "$IMAGE"'
}
# put LETTER: fills block 0 with it
put() {
  ini 200 MAP="$map" LETTER="$1" <<'END'
tr '\0' "$LETTER" </dev/zero | timeout 180 dd of="/dev/mapper/$MAP" bs=4096 count=1 oflag=direct iflag=fullblock status=none && echo "$LETTER is written"
END
}
taken_on() {
  gw 60 <<'END'
taken() { grep -q 'device taken on' /var/log/tcmu-runner.log; }
wait_for 40 taken; sed -n 's/.*device taken on //p' /var/log/tcmu-runner.log
END
}
owner() { ceph rbd lock ls "rbd/$1" --format json | jq -r '.[0].address // "nobody"'; }

serial=0
for signal in KILL TERM; do
  serial=$((serial + 1)) name=two-${signal,,}
  served "$name" "6e7b9b6e-2d7c-4e0c-9b0e-00000000000$serial"
  is "$signal: the first write" "0 is written" "$(put 0)"
  matches "$signal: came by the first gateway" '^10\.99\.0\.11:' "$(owner "$name")"
  ok "$signal: its daemon ends" gw SIGNAL="$signal" <<<'daemon_stop "$SIGNAL"'
  put A >"$LAB_DIR/share/put.txt" 2>&1 & pid=$!
  sleep 3 # it waits on the ring: nobody answers it
  ok "$signal: its network is cut" "$LAB" ns ip link set tap-gateway nomaster
  wait $pid
  is "$signal: the other path takes the write" "A is written" "$(cat "$LAB_DIR/share/put.txt")"
  is "$signal: and the next" "B is written" "$(put B)"
  matches "$signal: by the second gateway" '^10\.99\.0\.12:' "$(owner "$name")"
  ok "$signal: the network is back" "$LAB" ns ip link set tap-gateway master br0
  ok "$signal: a new daemon" gw <<<'rm -f /var/log/tcmu-runner.log; serve'
  matches "$signal: does not carry out what has waited" '\(reset: another client may have had' "$(taken_on)"
  sleep 2 # it would have by now
  is "$signal: the block holds what was acknowledged last" B "$(ceph rbd export "rbd/$name" - 2>/dev/null | head -c 1)"
  is "$signal: so the initiator says" B "$(ini MAP="$map" <<<'dd if="/dev/mapper/$MAP" bs=4096 count=1 iflag=direct status=none | head -c 1')"
  gone "$name"
done

# overtaken WHAT IMAGE: A is written by the first gateway, which does not answer, then by the second, then B
overtaken() {
  put A >"$LAB_DIR/share/put.txt" 2>&1 & pid=$!
  sleep 3
  ok "$1: its network is cut" "$LAB" ns ip link set tap-gateway nomaster
  wait $pid
  is "$1: the other path takes the write" "A is written" "$(cat "$LAB_DIR/share/put.txt")"
  is "$1: and the next" "B is written" "$(put B)"
  matches "$1: by the second gateway" '^10\.99\.0\.12:' "$(owner "$2")"
  ok "$1: the network is back" "$LAB" ns ip link set tap-gateway master br0
  ok "$1: it goes on" gw <<<'kill -CONT "$(daemon_pid)"'
  sleep 5
  is "$1: the block holds what was acknowledged last" B "$(ceph rbd export "rbd/$2" - 2>/dev/null | head -c 1)"
}

served stalled 6e7b9b6e-2d7c-4e0c-9b0e-000000000003
is "stalled: the first write" "0 is written" "$(put 0)"
matches "stalled: came by the first gateway" '^10\.99\.0\.11:' "$(owner stalled)"
ok "stalled: a daemon that stands still once it has seen that nobody had the lock" gw 90 CRASH="$crash" <<'END'
daemon_stop TERM && ls /run/tcmu-rbd/*.left >/dev/null || exit
export TCMU_RBD_CRASH_AT=adopt-as-left:1:stop
DAEMON=$CRASH serve
stands() { [[ $(awk '{ print $3 }' "/proc/$(daemon_pid)/stat") == T ]]; }
wait_for 20 stands
END
overtaken stalled stalled
matches "stalled: what has waited got BUSY" '\(reset: another client may have had' "$(gw <<<'cat /var/log/daemon.out')"
gone stalled

served frozen 6e7b9b6e-2d7c-4e0c-9b0e-000000000004
is "frozen: a write by the second gateway's own path" "1 is written" "$(ini 100 <<'END'
tr '\0' 1 </dev/zero | timeout 80 dd of="$(iscsi_disk "$IQN-gw2" 0)" bs=4096 count=1 oflag=direct iflag=fullblock status=none && echo "1 is written"
END
)"
matches "frozen: it has the lock" '^10\.99\.0\.12:' "$(owner frozen)"
ok "frozen: the first gateway's daemon stands still" gw <<<'kill -STOP "$(daemon_pid)"'
overtaken frozen frozen
matches "frozen: what has waited got BUSY" 'stood still for [0-9]+ s' "$(gw <<<'cat /var/log/daemon.out')"
gone frozen

# The other has the image open and does not write: a daemon that ends in order is followed without a BUSY.
image idle 64M
ok "a disk of one gateway" gw <<<'backstore idle rbd/idle 64 && echo 0 >"$(lun_path idle)/attrib/cmd_time_out" && loop_export idle >/tmp/idle'
ok "open in the other" gw2 <<<'backstore idle rbd/idle 64'
# Who stands still for half a second at either end doubts, as it must, and resets: then once more.
for try in 1 2 3; do
output=$(gw 90 <<'END'
write() { tr '\0' "$1" </dev/zero | timeout 60 dd of="$(cat /tmp/idle)" bs=4096 count=1 oflag=direct iflag=fullblock status=none; }
write 0 && daemon_stop TERM || exit
rm -f /var/log/tcmu-runner.log
write C & pid=$!
queued() { awk '{ exit !($9 > 0) }' "/sys/block/$(basename "$(cat /tmp/idle)")/stat"; }
wait_for 10 queued && echo "C waits"
serve && wait $pid && echo "C is written"
sed -n 's/.*device taken on //p' /var/log/tcmu-runner.log
END
)
[[ $output == *'(reset: another client may have had'* ]] || break
echo "      doubt, try $try: $output"
done
matches "what waited is carried out" $'C waits\nC is written\n\\(handed over\\)' "$output"
is "it is there" C "$(ceph rbd export rbd/idle - 2>/dev/null | head -c 1)"

# A daemon that is told to stop while it takes the device on leaves it to the next as it has found it.
image early 64M
ok "another disk" gw <<<'backstore early rbd/early 64 && echo 0 >"$(lun_path early)/attrib/cmd_time_out" && loop_export early >/tmp/early'
output=$(gw 90 CRASH="$crash" <<'END'
write() { tr '\0' "$1" </dev/zero | timeout 60 dd of="$(cat /tmp/early)" bs=4096 count=1 oflag=direct iflag=fullblock status=none; }
write 0 && loop_unexport idle && backstore_rm idle && daemon_stop TERM || exit
TCMU_RBD_CRASH_AT=adopt-as-left:1:stop DAEMON=$CRASH serve
stands() { [[ $(awk '{ print $3 }' "/proc/$(daemon_pid)/stat") == T ]]; }
wait_for 20 stands || exit
write D & pid=$!
kill -TERM "$(daemon_pid)"; kill -CONT "$(daemon_pid)"
gone() { ! daemon_alive; }
wait_for 30 gone && rm -f /var/log/tcmu-runner.log
serve && wait $pid && echo "D is written"
sed -n 's/.*early.*device taken on //p' /var/log/tcmu-runner.log
END
)
matches "nor does a daemon that is stopped meanwhile cost a BUSY" $'D is written\n\\(handed over\\)' "$output"

silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw 60 <<<clean
ok "nor there" gw2 60 <<<clean
no_watcher idle
finish

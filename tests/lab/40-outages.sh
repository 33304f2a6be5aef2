#!/usr/bin/env bash
# The cluster goes away under verified I/O: the monitor and an OSD for 10 s, an OSD for longer than an operation may take, the
# network. No error, no acknowledged write lost or reverted, everything back by itself, told by `tcmu-rbd status`; a LUN whose
# OSD is well notices nothing. LONG=1: ten minutes, of the OSD and of the monitor, instead of 75 s and 10 s (CASE_LIMIT=2400).
# limit: 420
# shellcheck disable=SC1091,SC2016
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lab/second-osd.sh
. "$LAB_CASES/second-osd.sh"

long=75 monitor=10
[[ -z ${LONG:-} ]] || long=600 monitor=600
undo() {
  "$LAB" ceph-resume mon
  "$LAB" ceph-resume osd
  "$LAB" ns ip link set tap-gateway master br0
  second_osd_down well
} >/dev/null 2>&1
trap undo EXIT

ok "a second OSD with a pool of its own" second_osd_up well
image ill 64M
ok "an image there" ceph rbd create --size 64M well/well
disks=$(gw <<'END'
serve && backstore ill rbd/ill 64 && backstore well well/well 64 || exit
for lun in ill well; do echo 0 >"$(lun_path $lun)/attrib/cmd_time_out"; done
echo "$(loop_export ill) $(loop_export well)"
END
)
matches "two disks" '^/dev/sd[a-z]+ /dev/sd[a-z]+$' "$disks"
disk() { if [[ $1 == ill ]]; then echo "${disks% *}"; else echo "${disks#* }"; fi; }
for lun in ill well; do
  ok "$lun is stamped" gw LUN=$lun DISK="$(disk $lun)" <<<'"$SGTEST" fill "$DISK" --state "/tmp/$LUN"'
done
pid=$(gw <<<daemon_pid)
matches "the log has the time-outs" 'ill: time-outs: an OSD.s answer 31 s, a dead lock owner 30 s, so a command 61 s at worst' \
  "$(gw <<<"grep 'time-outs:' /var/log/tcmu-runner.log")"

# check SECONDS: both LUNs under load in the background of the gateway, whatever becomes of the network
check() {
  gw SECONDS_="$1" ILL="$(disk ill)" WELL="$(disk well)" <<'END'
rm -f /tmp/*.txt
for lun in ill well; do
  [[ $lun == ill ]] && disk=$ILL || disk=$WELL
  # As long as it takes: Linux gives a command up after six times this.
  echo 300 >"/sys/block/${disk##*/}/device/timeout"
  (setsid "$SGTEST" check "$disk" --state /tmp/$lun --seconds "$SECONDS_" --limit 1200 >/tmp/$lun.out 2>&1; mv /tmp/$lun.out /tmp/$lun.txt) >/dev/null 2>&1 </dev/null &
done
END
}
# checked WHAT SECONDS LEAST [MOST]: it ends within SECONDS, without an error; the slowest command of ill took at least LEAST
# ms, that of well at most MOST
checked() {
  local lun result most=$2
  result=$(gw $((most + 60)) MOST="$most" <<<'over() { [[ -e /tmp/ill.txt && -e /tmp/well.txt ]]; }; wait_for "$MOST" over; for lun in ill well; do echo "$lun: $(tr "\n" " " </tmp/$lun.txt)"; done')
  for lun in ill well; do
    matches "$1: $lun: no error ($(grep -o "slowest [0-9]* ms" <<<"$(grep "^$lun" <<<"$result")"))" '[1-9] passed, 0 failed' "$(grep "^$lun" <<<"$result")"
    ok "$1: $lun: every acknowledged write is there" gw LUN=$lun DISK="$(disk $lun)" <<<'"$SGTEST" verify "$DISK" --state "/tmp/$LUN"'
  done
  slowest() { grep "^$1" <<<"$result" | sed -n 's/.*slowest \([0-9]*\) ms.*/\1/p'; }
  between "$1: ill: a command waited" "$3" $(((most + long) * 1000)) "$(slowest ill)"
  [[ -z ${4:-} ]] || at_most "$1: well: none did" "$4" "$(slowest well)"
}
state() { gw LUN="$1" <<<'"$DAEMON" status --json | jq -r ".luns[] | select(.config | endswith(\"/$LUN\")) | \"\(.state) \(.epoch)\""'; }
reaches() { # reaches LUN STATE SECONDS
  gw $(($3 + 30)) LUN="$1" STATE="$2" LIMIT="$3" <<'END'
there() { [[ $("$DAEMON" status --json | jq -r ".luns[] | select(.config | endswith(\"/$LUN\")) | \"\(.state) \(.epoch)\"") == "$STATE" ]]; }
wait_for "$LIMIT" there
END
}

check $((monitor + 4))
sleep 2
ok "the monitor stops for $monitor s" "$LAB" ceph-pause mon
sleep "$monitor"
is "its LUNs are ready: nobody needs it" "ready 1" "$(state ill)"
"$LAB" ceph-resume mon
checked "monitor" $((monitor + 60)) 0

check 14
sleep 2
ok "the OSD stops for 10 s" "$LAB" ceph-pause osd
sleep 10
is "that is shorter than an operation may take" "ready 1" "$(state ill)"
"$LAB" ceph-resume osd
checked "OSD, short" 60 7000 5000
is "the same client goes on" "ready 1" "$(state ill)"

check $((long + 10))
sleep 2
ok "the OSD stops for $long s" "$LAB" ceph-pause osd
start=$SECONDS
ok "its LUN is recovering after the time-out" reaches ill "recovering 1" 60
is "the other is ready" "ready 1" "$(state well)"
matches "status tells why" 'recovering\(1\).*the cluster does not answer in time, initiators get BUSY' "$(gw <<<'"$DAEMON" status')"
output=$(gw <<'END'
start=$EPOCHREALTIME
"$DAEMON" status >/dev/null && awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "status after %.1f s\n", b - a }'
END
)
at_most "status is answered at once" 2 "$(sed -n 's/^status after \(.*\) s/\1/p' <<<"$output")"
while ((SECONDS < start + long)); do sleep 1; done
"$LAB" ceph-resume osd
ok "its client, with a write that timed out, is replaced" reaches ill "ready 2" 60
checked "OSD, long" 120 $((long < 100 ? 31000 : long * 1000)) 5000
is "the other has kept its client" "ready 1" "$(state well)"
is "the log tells of the one, once" 1 "$(gw PID="$pid" <<<'grep -c " $PID:.*ill: .*but writes of this client timed out" /var/log/tcmu-runner.log')"

check 50
sleep 2
ok "the gateway's network is cut for 45 s" "$LAB" ns ip link set tap-gateway nomaster
sleep 45
"$LAB" ns ip link set tap-gateway master br0
checked "network" 160 25000
ok "both LUNs are ready" gw 90 <<'END'
ready() { [[ $("$DAEMON" status --json | jq -r '[.luns[].state] | unique | join(" ")') == ready ]]; }
wait_for 60 ready
END

is "it is the same process" "$pid" "$(gw <<<daemon_pid)"
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw 60 <<<clean
no_watcher ill
finish

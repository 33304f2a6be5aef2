#!/usr/bin/env bash
# 16 creates and deletes in parallel, twice. Half of the creates go to a cluster that is paused (its monitor's port is
# open, nobody answers); half of the second lot run while the OSD is stopped. Every call returns, the healthy are not
# held up by the dead, D-Bus answers within a second all the while, and no task stays in the kernel.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

limit=10
for n in 1 2 3 4 5 6 7 8; do image "p$n" 16M; image "q$n" 16M; done
ok "daemon, and a monitor that never answers" gw OPEN_TIMEOUT=$limit <<'END'
serve
{ sed 's/mon_host.*/mon_host = v2:127.0.0.1:40008/' /etc/ceph/ceph.conf; echo 'keyring = /etc/ceph/ceph.client.admin.keyring'; } >/etc/ceph/paused.conf
setsid python3 -c 'import socket, time; s = socket.create_server(("127.0.0.1", 40008), backlog=64); time.sleep(600)' >/dev/null 2>&1 &
wait_for 5 python3 -c 'import socket; socket.create_connection(("127.0.0.1", 40008), 1)'
END

# together: runs jobs given as lines `NAME WORD...` at once; each result becomes `NAME STATUS SECONDS`; D-Bus is asked
# all the while (`bus SECONDS` lines). Lines that do not come back within $LIMIT seconds are printed as `NAME hangs`.
# shellcheck disable=SC2016
together='
rm -rf /tmp/jobs; mkdir /tmp/jobs
mkfifo /tmp/jobs/end; sleep 60 >/tmp/jobs/end 2>/dev/null & open=$!
"$CASES/bus-probe" 60 </tmp/jobs/end >/tmp/jobs/bus 2>&1 & probe=$!
wait_for 5 test -s /tmp/jobs/bus
while read -r name words; do
  [[ -n $name ]] || continue
  names+=" $name"
  (start=$EPOCHREALTIME; eval "$words" >/tmp/jobs/$name.out 2>&1 </dev/null; status=$?
   awk -v n=$name -v s=$status -v a=$start -v b=$EPOCHREALTIME "BEGIN { printf \"%s %d %.1f\n\", n, s, b - a }" >/tmp/jobs/$name.tmp
   mv /tmp/jobs/$name.tmp /tmp/jobs/$name.done) >/dev/null 2>&1 &
done <<<"$JOBS"
end=$((SECONDS + LIMIT))
while ((SECONDS < end)) && (($(ls /tmp/jobs/*.done 2>/dev/null | wc -l) < $(wc -w <<<"$names"))); do
  sleep 0.2
done
kill $open $probe
cat /tmp/jobs/bus
for name in $names; do cat /tmp/jobs/$name.done 2>/dev/null || echo "$name hangs"; done
'

# judge WHAT NAMES STATUS_REGEX LEAST MOST OUTPUT
judge() {
  local name wrong="" line
  for name in $2; do
    line=$(grep "^$name " <<<"$6")
    [[ $line =~ ^$name\ ($3)\ ([0-9.]+)$ ]] && awk -v a="${BASH_REMATCH[2]}" -v b="$4" -v c="$5" 'BEGIN { exit !(b <= a && a <= c) }' || wrong+="${line:-$name: no word}; "
  done
  if [[ -z $wrong ]]; then pass "$1"; else fail "$1" "status $3 after $4 to $5 s for each" "$wrong"; fi
}
# times NAMES OUTPUT: the seconds they took, ascending
times() { grep -E "^(${1// /|}) [0-9]+ " <<<"$2" | awk '{ print $3 }' | sort -n; }
bus() {
  local count
  count=$(grep -c '^bus [0-9]' <<<"$2")
  is "$1: D-Bus always answers" 0 "$(grep -c '^bus failed' <<<"$2")"
  between "$1: D-Bus was asked often enough" 3 1000 "$count"
  at_most "$1: D-Bus answers within a second, $count times" 1 "$(sed -n 's/^bus \([0-9.]*\)$/\1/p' <<<"$2" | sort -n | tail -n 1)"
}

P="p1 p2 p3 p4 p5 p6 p7 p8" Q="q1 q2 q3 q4 q5 q6 q7 q8"
# Alone first: that tells how busy this machine is. Beside the dead there are twice as many clients to start, which may
# take three times as long; behind only one of them in a queue it would take $limit s more.
jobs=$(for n in $P; do echo "$n backstore $n rbd/$n 16"; done)
alone=$(times "$P" "$(gw 70 CASES="$LAB_CASES" JOBS="$jobs" LIMIT=40 <<<"$together")" | tail -n 1)
patience=$(awk -v a="${alone:-0}" 'BEGIN { print 3 * a + 5 }')
ok "8 creates alone, deleted (${alone:-none})" gw <<<"for n in $P; do backstore_rm \$n || exit; done"
for round in 1 2; do
  jobs=""
  for n in 1 2 3 4 5 6 7 8; do
    jobs+="p$n backstore p$n rbd/p$n 16"$'\n'"q$n backstore q$n 'rbd/q$n;conf=/etc/ceph/paused.conf' 16"$'\n'
  done
  output=$(gw 70 CASES="$LAB_CASES" JOBS="$jobs" LIMIT=$((limit + 25)) <<<"$together")
  slowest=$(times "$P" "$output" | tail -n 1)
  judge "round $round: 8 creates beside 8 on a paused cluster succeed, not held up ($slowest s, alone $alone s)" "$P" 0 0 "$patience" "$output"
  judge "round $round: the 8 on the paused cluster fail in the configured time" "$Q" '[1-9][0-9]*' $((limit / 2)) \
    "$(awk -v a="${slowest:-0}" -v b=$limit 'BEGIN { print a + b + 4 }')" "$output"
  bus "round $round: creates" "$output"
  ! grep -q hangs <<<"$output" || finish # what follows would only wait for the same
  silent "round $round: the failed ones left nothing" <<<'ls -d $TARGET/core/user_*/q* 2>/dev/null'

  # Now the OSD stops for 5 s: 8 deletes and 8 creates meet it.
  jobs=""
  for n in 1 2 3 4 5 6 7 8; do jobs+="p$n backstore_rm p$n"$'\n'"q$n backstore q$n rbd/q$n 16"$'\n'; done
  "$LAB" ceph-pause osd
  gw 60 CASES="$LAB_CASES" JOBS="$jobs" LIMIT=30 <<<"$together" >"$LAB_DIR/share/parallel.txt" 2>&1 &
  pid=$!
  sleep 5
  "$LAB" ceph-resume osd
  wait $pid
  output=$(cat "$LAB_DIR/share/parallel.txt")
  judge "round $round: 8 deletes while the OSD stands still return" "$P" 0 0 25 "$output"
  judge "round $round: 8 creates while the OSD stands still return" "$Q" '[0-9]+' 0 25 "$output"
  bus "round $round: the OSD stands still" "$output"

  jobs=""
  for n in $Q; do jobs+="$n lun_path $n && backstore_rm $n || ! lun_path $n"$'\n'; done
  output=$(gw 60 CASES="$LAB_CASES" JOBS="$jobs" LIMIT=30 <<<"$together")
  judge "round $round: 8 deletes" "$Q" 0 0 15 "$output"
done
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw <<<clean
no_watcher p1
no_watcher q8
finish

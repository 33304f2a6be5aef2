#!/usr/bin/env bash
# A LUN whose RADOS client is blocklisted gets a new client without a restart (tcmu-runner, outside implicit ALUA: BUSY
# for ever). No error, nothing lost; the other LUN notices nothing.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

for lun in fence other; do image $lun 64M; done
disks=$(gw <<'END'
serve && backstore fence rbd/fence 64 && backstore other rbd/other 64 && echo "$(loop_export fence) $(loop_export other)"
END
)
matches "two disks" '^/dev/sd[a-z]+ /dev/sd[a-z]+$' "$disks"
ok "both are stamped" gw FENCED="${disks% *}" OTHER="${disks#* }" <<'END'
"$SGTEST" fill "$FENCED" --state /tmp/fence && "$SGTEST" fill "$OTHER" --state /tmp/other
END

pids=
for lun in fence other; do
  [[ $lun == fence ]] && disk=${disks% *} || disk=${disks#* }
  # shellcheck disable=SC2016
  gw 100 DISK="$disk" LUN=$lun <<<'"$SGTEST" check "$DISK" --state "/tmp/$LUN" --seconds 20' >"$LAB_DIR/share/$lun.txt" 2>&1 &
  pids+=" $!"
done
# The lock's owner is the client that writes: it is shut out twice, under load.
owner() { ceph rbd lock ls rbd/fence --format json | jq -r '.[0].address'; }
pid=$(gw <<<daemon_pid)
fenced=()
for round in 1 2; do
  sleep 4
  for ((n = 0; n < 20; n++)); do
    old=$(owner)
    [[ $old != null && $old != "${fenced[*]: -1}" ]] && break
    sleep 0.5
  done
  matches "round $round: the client has the lock" '^[0-9.]+:[0-9]+/[0-9]+$' "$old"
  ok "round $round: it is blocklisted" ceph ceph osd blocklist add "$old"
  fenced+=("$old")
done
# shellcheck disable=SC2086
wait $pids
for lun in fence other; do
  [[ $lun == fence ]] && disk=${disks% *} || disk=${disks#* }
  result=$(cat "$LAB_DIR/share/$lun.txt")
  matches "$lun: no error ($(grep slowest <<<"$result"))" '[1-9] passed, 0 failed' "$result"
  # shellcheck disable=SC2016
  ok "$lun: every acknowledged write is there" gw DISK="$disk" LUN=$lun <<<'"$SGTEST" verify "$DISK" --state "/tmp/$LUN"'
done
is "it is the same process" "$pid" "$(gw <<<daemon_pid)"
new=$(owner)
matches "another client has the lock now ($new)" '^[0-9.]+:[0-9]+/[0-9]+$' "$new"
is "the three clients are three" 3 "$(printf '%s\n' "${fenced[@]}" "$new" | sort -u | wc -l)"
is "the log says so, twice" 2 "$(gw <<<"grep -c 'fence: the image is open again' /var/log/tcmu-runner.log")"
listed=$(ceph ceph osd blocklist ls 2>/dev/null)
for old in "${fenced[@]}"; do
  matches "nobody has taken $old off the blocklist" "$old " "$listed"
  ceph ceph osd blocklist rm "$old" >/dev/null
done
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw 60 <<<clean
no_watcher fence
finish

#!/usr/bin/env bash
# FORMAT UNIT and SANITIZE by sg_format and sg_sanitize: progress, thin stays thin, and what kill -9 interrupts a successor
# finishes before the disk is usable.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image thin 64M
image wide 256M
ok "two LUNs" gw <<'END'
serve
backstore thin rbd/thin 64 && backstore wide rbd/wide 256 || exit 1
echo 0 >"$(lun_path thin)/attrib/cmd_time_out" && echo 0 >"$(lun_path wide)/attrib/cmd_time_out"
loop_export thin >/run/thin && loop_export wide >/run/wide
END
used() { ceph rbd du --format json "rbd/$1" 2>/dev/null | grep -oE '"used_size": ?[0-9]+' | grep -oE '[0-9]+' | head -n 1; }
# not_zero DISK: how many bytes are not zero    ready DISK: whether it is    fill DISK MIB
# shellcheck disable=SC2016
remote='
not_zero() { dd if="$1" bs=1M iflag=direct status=none | tr -d "\0" | wc -c; }
ready() { sg_turs "$1" >/dev/null 2>&1; }
fill() { dd if=/dev/urandom of="$1" bs=1M count="$2" oflag=direct status=none; }
'

# shellcheck disable=SC2016
ok "the small one is full of data" gw REMOTE="$remote" <<<'eval "$REMOTE"; fill "$(cat /run/thin)" 64'
is "and takes its space" $((64 << 20)) "$(used thin)"
output=$(gw 120 REMOTE="$remote" <<'END'
eval "$REMOTE"
disk=$(cat /run/thin)
timeout 60 sg_format --format --wait --quick "$disk" >/dev/null && echo "formatted"
echo "left $(not_zero "$disk")"
fill "$disk" 64
timeout 60 sg_sanitize --block --wait --quick "$disk" >/dev/null && echo "sanitized"
echo "remain $(not_zero "$disk")"
timeout 60 sg_raw -s 5 -i <(printf '\x83\0\0\x01\xa5') "$disk" 48 01 00 00 00 00 00 00 05 00 2>&1 | grep -q 'SCSI Status: Good' && echo "overwritten"
dd if="$disk" bs=1M iflag=direct status=none | tr -d '\245' | wc -c | sed 's/^/other bytes /'
END
)
matches "sg_format --wait" "formatted" "$output"
is "bytes that are not zero then" 0 "$(sed -n 's/^left //p' <<<"$output")"
matches "sg_sanitize --block --wait" "sanitized" "$output"
is "bytes that are not zero then" 0 "$(sed -n 's/^remain //p' <<<"$output")"
matches "OVERWRITE in three passes" "overwritten" "$output"
is "bytes that are not of the pattern" 0 "$(sed -n 's/^other bytes //p' <<<"$output")"
# shellcheck disable=SC2016
ok "BLOCK ERASE gives the space back" gw 60 <<<'sg_sanitize --block --wait --quick "$(cat /run/thin)"'
is "space taken" 0 "$(used thin)"

# 31 passes over the large one take long enough to look at them, and to die in their midst.
# shellcheck disable=SC2016
ok "the large one has data" gw REMOTE="$remote" <<<'eval "$REMOTE"; fill "$(cat /run/wide)" 32'
output=$(gw 120 REMOTE="$remote" <<'END'
eval "$REMOTE"
disk=$(cat /run/wide)
start=$EPOCHREALTIME
sg_raw -s 5 -i <(printf '\x1f\0\0\x01\x5a') "$disk" 48 81 00 00 00 00 00 00 05 00 2>&1 | grep -q 'SCSI Status: Good' && echo "accepted"
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "after %.1f\n", b - a }'
for _ in 1 2 3 4 5 6; do sg_requests -p --num=1 "$disk" 2>&1 | sed 's/^/seen: /'; sleep 0.5; done
ready "$disk" || echo "not ready"
# Not dd: the kernel's disk driver retries until the disk is ready, which takes its time.
sg_raw -r 512 "$disk" 28 00 00 00 00 00 00 00 01 00 2>&1 | grep -qi 'sanitize in progress' && echo "read refused"
sg_inq "$disk" >/dev/null && echo "INQUIRY is answered"
daemon_stop KILL && echo killed
END
)
matches "OVERWRITE with IMMED = 1" "accepted" "$output"
at_most "it is answered at once" 5 "$(sed -n 's/^after //p' <<<"$output")"
seen=$(grep -oE 'seen:.* [0-9]+(\.[0-9]+)?%' <<<"$output" | grep -oE '[0-9.]+%' | tr -d %)
is "progress was seen as often as asked" 6 "$(wc -l <<<"$seen")"
is "and never went back" "$(sort -n <<<"$seen")" "$seen"
matches "TEST UNIT READY is refused" "not ready" "$output"
matches "and so is READ" "read refused" "$output"
matches "but not INQUIRY" "INQUIRY is answered" "$output"
matches "the daemon is killed" "killed" "$output"
is "the image has the note" "overwrite passes=31 pattern=5a" \
  "$(ceph rbd image-meta get rbd/wide tcmu-rbd.note 2>&1 | grep -oE 'overwrite passes=31 pattern=5a')"
output=$(gw 60 REMOTE="$remote" <<'END'
eval "$REMOTE"
disk=$(cat /run/wide)
serve
taken() { grep -q 'going on with an erasure' /var/log/tcmu-runner.log; }
wait_for 20 taken && echo "goes on"
ready "$disk" || echo "not ready"
start=$EPOCHREALTIME
daemon_stop TERM && awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "stopped within %.1f\n", b - a }'
END
)
matches "its successor goes on" "goes on" "$output"
matches "before the disk is usable" "not ready" "$output"
at_most "a stop does not wait for the end" 10 "$(sed -n 's/^stopped within //p' <<<"$output")"
output=$(gw 400 REMOTE="$remote" <<'END'
eval "$REMOTE"
disk=$(cat /run/wide)
serve
wait_for 300 ready "$disk" && echo finished
dd if="$disk" bs=1M iflag=direct status=none | tr -d '\132' | wc -c | sed 's/^/other bytes /'
END
)
matches "and the next one ends it" "finished" "$output"
is "bytes that are not of the pattern" 0 "$(sed -n 's/^other bytes //p' <<<"$output")"
matches "the note is gone" "failed to get metadata|No such file" "$(ceph rbd image-meta get rbd/wide tcmu-rbd.note 2>&1)"
ok "LUNs deleted, daemon stopped" gw <<<clean

# A note that this version does not know.
ok "a note of another kind" ceph rbd image-meta set rbd/thin tcmu-rbd.note "$(ceph rbd info --format json rbd/thin | grep -oE '"id": ?"[^"]*"' | grep -oE '[^"]*"$' | tr -d '"') shred"
output=$(gw 60 <<'END'
serve
backstore thin rbd/thin 64 && disk=$(loop_export thin)
sg_turs -v /dev/"$(ls /sys/class/scsi_generic | tail -n 1)" 2>&1 | tr '\n' ' '
grep -o "rbd image-meta remove rbd/thin tcmu-rbd.note" /var/log/tcmu-runner.log | head -n 1
END
)
matches "needs somebody" "manual intervention required" "$output"
matches "and the log says what to do" "rbd image-meta remove rbd/thin tcmu-rbd.note" "$output"
ok "LUN deleted, daemon stopped" gw <<<clean

# A note of another gateway, which may be at it still: neither erased nor used before an erasure of ours has succeeded.
image foreign 64M
ok "a LUN with data" gw <<'END'
serve && backstore foreign rbd/foreign 64 && dd if=/dev/urandom of="$(loop_export foreign)" bs=1M count=64 oflag=direct status=none && clean
END
before=$(ceph rbd export rbd/foreign - 2>/dev/null | md5sum)
id=$(ceph rbd info --format json rbd/foreign | jq -r .id)
ok "a note of another client" ceph rbd image-meta set rbd/foreign tcmu-rbd.note "$id v2:10.99.0.77:0/7 format"
output=$(gw 60 <<'END'
serve && backstore foreign rbd/foreign 64 && loop_export foreign >/dev/null
look() { sg_raw -r 512 /dev/"$(ls /sys/class/scsi_generic | tail -n 1)" 28 00 00 00 00 00 00 00 01 00 2>&1 | tr '\n' ' '; }
look
daemon_stop
serve
look
END
)
is "refused before and after a restart" 2 "$(grep -oi 'medium format corrupted' <<<"$output" | wc -l)"
is "not a byte was erased" "$before" "$(ceph rbd export rbd/foreign - 2>/dev/null | md5sum)"
output=$(gw 60 <<'END'
sg_raw /dev/"$(ls /sys/class/scsi_generic | tail -n 1)" 04 00 00 00 00 00 2>&1 | tr '\n' ' '
END
)
matches "a FORMAT UNIT of ours is carried out" 'SCSI Status: Good' "$output"
is "and makes zeros" 0 "$(ceph rbd export rbd/foreign - 2>/dev/null | tr -d '\0' | wc -c)"
ok "nothing left, daemon stopped" gw <<<clean
for name in thin wide foreign; do no_watcher "$name"; done
finish

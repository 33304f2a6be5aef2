#!/usr/bin/env bash
# Stop and start, and upgrade between two builds, under verified load: no error, no BUSY; fio over iSCSI notices nothing.
# limit: 400
# shellcheck disable=SC1091
#   STORM_STOPS   how often (12)     DAEMON_OLD   the other build (default: a copy of DAEMON)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/storm.sh"
stops=${STORM_STOPS:-12} STORM_TIER='handed over'
cp "${DAEMON_OLD:-$DAEMON}" "$LAB_DIR/share/tcmu-rbd"
image fio 64M
storm_up upgrade
ok "a second LUN, for fio" gw IQN="$IQN:fio" <<<'backstore fio rbd/fio 64 && echo 0 >"$(lun_path fio)/attrib/cmd_time_out" && iscsi_export "$IQN" fio && iscsi_allow "$IQN" "$CLIENT"'
# 100 writes a second for as long as the stops take, about; then all of it is read and compared.
ini 300 IQN="$IQN:fio" WRITES=$((stops * 200)) <<'END' >"$LAB_DIR/share/fio.txt" 2>&1 &
iscsi_login $IQN gateway && disk=$(iscsi_disk $IQN 0) && fio --name=v --filename=$disk --ioengine=libaio --direct=1 --iodepth=8 \
  --rw=randwrite --bs=4k --size=64M --io_size=$((WRITES * 4))k --rate_iops=100 --verify=crc32c --verify_fatal=1 \
  --output-format=json --output=/tmp/fio.json; echo "status $?"
jq -r '.jobs[0] | "error \(.error) writes \(.write.total_ios) reads \(.read.total_ios) slowest \(.write.clat_ns.max / 1000000 | floor) ms"' /tmp/fio.json
iscsi_logout $IQN
END
fio=$!
storm_run --strikes "$stops" --signal TERM --programs "/share/tcmu-rbd,$DAEMON" --early 0 --service 300,1500
wait $fio
storm_verdict "$stops"
storm_undisturbed
result=$(tr '\n' ' ' <"$LAB_DIR/share/fio.txt")
matches "fio: $result" 'status 0 error 0 writes [1-9][0-9]+ reads [1-9]' "$result"
at_most "longest stall of service, ms" 10000 "$(storm_field stall_max_ms)"
echo "      median stall $(storm_field stall_median_ms) ms, slowest command $(storm_field slowest_ms) ms"
storm_down upgrade
finish

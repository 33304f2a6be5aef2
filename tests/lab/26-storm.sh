#!/usr/bin/env bash
# Crash storm: kill -9 at random times under verified load, restart at once. Nothing is wrong, in error, or answered BUSY.
# limit: 1800
# shellcheck disable=SC1091
#   STORM_KILLS   how many (200)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/storm.sh"
kills=${STORM_KILLS:-200}

# First the load itself: an object that is set back to what it was a second ago must not escape it.
storm_up proof
object=$(ceph rbd info rbd/proof | sed -n 's/.*block_name_prefix: //p').0000000000000000
touch "$LAB_DIR/share/going"
trap 'rm -f "$LAB_DIR/share/going"' EXIT
(
  for ((n = 0; n < 20; n++)); do sleep 1; ceph rados -p rbd get "$object" "$LAB_DIR/share/object" && break; done
  sleep 1; ceph rados -p rbd put "$object" "$LAB_DIR/share/object"
  sleep 1.5; rm "$LAB_DIR/share/going"
) 2>/dev/null &
reverted=$!
storm_run --while "$LAB_DIR/share/going" >/dev/null
wait $reverted
between "a reverted object is noticed: blocks" 1 1000000 "$(storm_field wrong)"
# By a read, a VERIFY that miscompares, a bit or an exchange that is not there any more: whichever comes first.
matches "and called so" 'WRONG (block [0-9]+: (.*reverted|bit [0-9]+, .* is lost)|8Fh at [0-9]+, .*MISCOMPARE|COMPARE AND WRITE: .* replaced twice)' \
  "$(grep -m 1 WRONG "$LAB_DIR/share/storm.txt")"
ok "removed" gw <<<clean

# Beside the LUN under load one that has a command or two at a time: its ring is empty now and then.
storm_up storm
image beside 64M
ok "a second LUN" gw IQN="$IQN:beside" <<<'backstore beside rbd/beside 64 && echo 0 >"$(lun_path beside)/attrib/cmd_time_out" && iscsi_export "$IQN" beside && iscsi_allow "$IQN" "$CLIENT"'
touch "$LAB_DIR/share/going"
"$LAB" ns "$STORM" run --portal "$("$LAB" ip gateway):3260" --target "$IQN:beside" --initiator "$CLIENT" --seed "$STORM_SEED" --depth 2 \
  --state "$LAB_DIR/share/beside.state" --while "$LAB_DIR/share/going" >"$LAB_DIR/share/beside.txt" 2>&1 &
beside=$!
storm_run --strikes "$kills"
rm -f "$LAB_DIR/share/going"
wait $beside
sed 's/^/      beside: /' "$LAB_DIR/share/beside.txt" | cut -c1-400
storm_verdict "$kills"
if [[ $STORM_TIER != reset ]]; then storm_undisturbed; fi
storm_stalls
storm=$(tail -n 1 "$LAB_DIR/share/beside.txt")
matches "the LUN beside: no error, nothing wrong" 'end=ok .*errors=0 wrong=0 ' "$storm"
if [[ $STORM_TIER != reset ]]; then is "nor BUSY" 0 $(($(storm_field busy) - $(storm_field busy_locks))); fi
storm_down storm
finish

# shellcheck shell=bash
# shellcheck disable=SC2154
# storm.sh - verified load over iSCSI, from an initiator that sees every status, while the daemon is ended again and again.
#   STORM     the load (default: this checkout's target/release/storm)      STORM_SEED    its seed (1); printed
#   STORM_TIER   how the log must say that a device was taken on: journal (default), `handed over` or reset
#
#   storm_up NAME            daemon, new image and LUN NAME, exported
#   storm_run ARG...         `storm run`; its last line is in $storm
#   storm_field NAME         a number of that line
#   storm_verdict STRIKES [LOCKS]   nothing wrong, no error, every strike done, LOCKS (as many) COMPARE AND WRITE succeeded
#   storm_tiers              how often each way of taking on stands in the log
#   storm_undisturbed        no ring reset, all of them taken on by $STORM_TIER
#   storm_stalls             the median is short; the longest is printed
#   storm_down NAME          removes it all
STORM=${STORM:-$LAB_TOP/target/release/storm}
STORM_SEED=${STORM_SEED:-1}
STORM_TIER=${STORM_TIER:-journal}
AGENT=10.99.0.1:7000 # this machine in the lab
storm=

storm_up() {
  image "$1" 64M
  # cmd_time_out=0 as ceph-iscsi sets it: a command may wait for the next daemon as long as it takes.
  ok "daemon, LUN $1" gw NAME="$1" <<'END'
rm -f /var/log/tcmu-runner.log; serve && backstore "$NAME" "rbd/$NAME" 64 hw_max_sectors=1024 &&
  echo 0 >"$(lun_path "$NAME")/attrib/cmd_time_out" && iscsi_export "$IQN" "$NAME" && iscsi_allow "$IQN" "$CLIENT"
END
}

storm_run() {
  local agent='' options=()
  if [[ " $* " == *" --strikes "* ]]; then
    gw 3000 AGENT="$AGENT" DIR="$LAB_CASES" <<<'agent() { "$DIR/storm-agent" "${AGENT%:*}" "${AGENT#*:}"; }; wait_for 20 agent' \
      >"$LAB_DIR/share/agent.txt" 2>&1 &
    agent=$! options=(--agent "$AGENT")
  fi
  "$LAB" ns "$STORM" run --portal "$("$LAB" ip gateway):3260" --target "$IQN" --initiator "$CLIENT" --seed "$STORM_SEED" \
    --state "$LAB_DIR/share/state" "${options[@]}" "$@" >"$LAB_DIR/share/storm.txt" 2>&1 || true
  sed 's/^/      /' "$LAB_DIR/share/storm.txt" | cut -c1-400
  storm=$(grep '^storm: seed=' "$LAB_DIR/share/storm.txt" | tail -n 1)
  [[ -z $agent ]] || wait "$agent"
}

storm_field() { sed -n "s/.* $1=\([^ ]*\).*/\1/p" <<<"$storm"; }

storm_verdict() {
  is "the load ran to its end" ok "$(storm_field end)"
  is "strikes" "$1" "$(storm_field strikes)"
  is "I/O errors" 0 "$(storm_field errors)"
  is "wrong blocks" 0 "$(storm_field wrong)"
  is "daemons that ended by themselves" 0 "$(storm_field strange)"
  between "commands" $((100 + 10 * $1)) 100000000 "$(storm_field commands)"
  between "COMPARE AND WRITE that succeeded" "${2:-$1}" 100000000 "$(storm_field locks)"
}

# After the daemon is gone: what RADOS holds is what the initiator was told.
storm_image() {
  ceph rbd export --no-progress "rbd/$1" "$LAB_DIR/share/image" >/dev/null 2>&1
  matches "the image in RADOS agrees" 'blocks=131072 wrong=0$' "$("$STORM" verify "$LAB_DIR/share/image" --state "$LAB_DIR/share/state" 2>&1 | tail -n 1)"
  rm -f "$LAB_DIR/share/image"
}

storm_tiers() {
  gw <<<'for tier in journal "handed over" reset; do echo "$tier: $(grep "taken on" /var/log/tcmu-runner.log | grep -c "$tier")"; done' | tr '\n' ' '
}

# storm_undisturbed: no BUSY but where nobody can know better, no reset
storm_undisturbed() {
  local tiers
  tiers=$(storm_tiers)
  is "answers BUSY, but to COMPARE AND WRITE" 0 $(($(storm_field busy) - $(storm_field busy_locks)))
  echo "      in doubt: $(storm_field busy_locks) COMPARE AND WRITE were answered BUSY, of which $(storm_field unsure) had succeeded; \
$(storm_field aborted) EXTENDED COPY were aborted"
  matches "no ring was reset ($tiers)" 'reset: 0 ' "$tiers"
  matches "devices were taken on by $STORM_TIER" "$STORM_TIER: [1-9]" "$tiers"
  is "each says by which way" "$(gw <<<'grep -c "taken on" /var/log/tcmu-runner.log')" $(($(grep -oE "[0-9]+" <<<"$tiers" | paste -sd+)))
}

storm_stalls() {
  at_most "median stall of service, ms" "${STORM_MEDIAN_MS:-1000}" "$(storm_field stall_median_ms)"
  echo "      longest stall $(storm_field stall_max_ms) ms, slowest command $(storm_field slowest_ms) ms"
}

storm_down() {
  silent "the ring was not broken" <<<"dmesg | grep -E 'ring broken|ring is broken|not found, ring|BUG:|Oops' | head -n 3"
  ok "nothing left, daemon stopped" gw 60 <<<clean
  storm_image "$1"
}

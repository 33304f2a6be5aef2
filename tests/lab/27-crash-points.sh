#!/usr/bin/env bash
# Crash storm at chosen points: a daemon that kills itself at each instrumented point in turn, under verified load.
# limit: 1800
# shellcheck disable=SC1091
#   DAEMON_CRASH    a daemon built with the feature crash-points (default: target/crash-points/release/tcmu-rbd)
#   STORM_COUNTS    at which passing of a point ("1 2 25")
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/storm.sh"
crash=${DAEMON_CRASH:-$LAB_TOP/target/crash-points/release/tcmu-rbd}
points=$("$crash" crash-points) || fail "the points of $crash" "one a line" "$points"

[[ -n $points ]] || finish

# A daemon may die before it serves, so no strike waits for that. Each strike starts the next daemon: strike n arms it, strike n + 1 waits until it has killed itself.
signals=KILL environment='' armed=0
for count in ${STORM_COUNTS:-1 2 25}; do
  for point in $points; do
    # A start passes these once.
    if [[ $point == adopt-* ]]; then at=$point:1; else at=$point:$count; fi
    signals+=,AWAIT:10 environment+=TCMU_RBD_CRASH_AT=$at,
    armed=$((armed + 1))
  done
done
echo "      $(wc -l <<<"$points") points: $(tr '\n' ' ' <<<"$points")"
DAEMON=$crash storm_up points
storm_run --strikes $((armed + 1)) --signal "$signals" --environment "$environment-" --programs "$crash" --early 100 \
  --patience 180 # many die one after the other before they answer anything
storm_verdict $((armed + 1)) "$(wc -l <<<"$points")"
missed=$(sed -n 's/.*MISSED .*CRASH_AT=//p' "$LAB_DIR/share/storm.txt")
echo "      not reached within 10 s: ${missed//$'\n'/ }"
for point in $points; do
  # Reached at least once.
  is "crashed at $point" yes "$( (($(grep -c "^$point:" <<<"$missed") < $(wc -w <<<"${STORM_COUNTS:-1 2 25}"))) && echo yes)"
done
if [[ $STORM_TIER != reset ]]; then storm_undisturbed; fi
# Several die one after the other without having served: no median here.
echo "      longest stall $(storm_field stall_max_ms) ms, slowest command $(storm_field slowest_ms) ms"
storm_down points
finish

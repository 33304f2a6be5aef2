#!/usr/bin/env bash
# Crash storm: kill -9 at random times under verified load, restart at once. Nothing is wrong, in error, or answered BUSY.
# limit: 1800
# shellcheck disable=SC1091
#   STORM_KILLS   how many (100)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/storm.sh"
kills=${STORM_KILLS:-100}
storm_up storm
storm_run --strikes "$kills"
storm_verdict "$kills"
if [[ $STORM_TIER != reset ]]; then storm_undisturbed; fi
at_most "median stall of service, ms" 1000 "$(storm_field stall_median_ms)"
echo "      longest stall $(storm_field stall_max_ms) ms, slowest command $(storm_field slowest_ms) ms"
storm_down storm
finish

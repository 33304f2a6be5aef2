#!/usr/bin/env bash
# The daemon is killed while the OSD stands still with its writes, and started: no write of the dead lands later.
# limit: 900
# shellcheck disable=SC1091
#   STORM_PAUSES   how often (20)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/storm.sh"
trap '"$LAB" ceph-resume osd' EXIT
pauses=${STORM_PAUSES:-20}
storm_up late
# The load goes on for a tenth of a second while the OSD stands, until all that may be under way is; the OSD goes on when
# the next daemon has begun. More writes than otherwise.
storm_run --strikes "$pauses" --early 0 --depth 48 --mix read=25,write=60 \
  --before "$LAB ceph-pause osd && sleep 0.1" --after "sleep 1; $LAB ceph-resume osd"
storm_verdict "$pauses"
if [[ $STORM_TIER != reset ]]; then storm_undisturbed; fi
echo "      longest stall $(storm_field stall_max_ms) ms, of which the OSD stood for more than 1000"
storm_down late
finish

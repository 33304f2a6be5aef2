#!/usr/bin/env bash
# kill -9 of the daemon under verified I/O, restart: no error, nothing lost.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/outage.sh"
outage KILL
finish

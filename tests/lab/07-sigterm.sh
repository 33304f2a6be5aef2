#!/usr/bin/env bash
# SIGTERM under verified I/O, restart: no error, nothing lost.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/outage.sh"
outage TERM
finish

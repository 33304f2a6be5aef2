#!/usr/bin/env bash
# INQUIRY data and VPD pages are the incumbent's, byte for byte.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"
sg_checks identity
finish

#!/usr/bin/env bash
# INQUIRY data and VPD pages name the disk byte for byte as the incumbent did.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"
sg_checks identity
finish

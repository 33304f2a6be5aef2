#!/usr/bin/env bash
# All 256 operation codes through SG_IO: each answered within 2 s, the LUN alive after, nothing damaged.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"
sg_checks opcodes
finish

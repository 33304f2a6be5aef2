#!/usr/bin/env bash
# A short reply after a WRITE carries no byte of it.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"
sg_checks foreign-bytes
finish

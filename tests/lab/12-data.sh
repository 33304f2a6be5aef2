#!/usr/bin/env bash
# Every data command against a model of the disk.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"
sg_checks data
finish

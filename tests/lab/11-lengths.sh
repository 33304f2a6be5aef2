#!/usr/bin/env bash
# Lengths that disagree, zero lengths, addresses at the edges.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"
sg_checks lengths
finish

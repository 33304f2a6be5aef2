#!/usr/bin/env bash
# libiscsi's conformance suite, 512 and 4096 byte blocks: which tests pass, and why the others do not.
# limit: 1200
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

# The suites of LINUX, and all of ALL, are those of SCSI and iSCSI: with these two every test runs once.
names=$(iscsi-test-cu --list | awk -F. 'NF == 3 { print $1, $2 "." $3 }')
of() { awk -v family="$1" '$1 == family { print $2 }' <<<"$names" | sort; }
is "families of the suite" "ALL LINUX SCSI iSCSI" "$(cut -d' ' -f1 <<<"$names" | sort -u | xargs)"
is "tests of ALL and LINUX that are in neither SCSI nor iSCSI" "" \
  "$(comm -23 <({ of ALL; of LINUX; } | sort -u) <({ of SCSI; of iSCSI; } | sort -u))"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
ok "every run of the suite came to its end" "$LAB_TOP/scripts/conformance" --in-lab --subject ours --family SCSI --family iSCSI --out "$out"
output=$("$LAB_TOP/scripts/conformance.d/check" "$LAB_CASES/conformance.expected" "$out/results.tsv" 2>&1)
echo "$output"
passed=$((passed + $(grep -c '^PASS' <<<"$output"))) failed=$((failed + $(grep -vc '^PASS' <<<"$output")))
ok "LUN deleted, daemon stopped" gw <<<leftovers
finish

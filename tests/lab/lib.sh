# shellcheck shell=bash
# lib.sh - what a lab case begins with. A case is started by scripts/test-lab (or by hand) with a running lab in LAB_DIR
# and ends with status 0 only if it made checks and all passed. It starts its own daemon and leaves no LUN behind.
#   DAEMON   the program under test (default: this checkout's target/release/tcmu-rbd); tcmu-runner is known too
#   SGTEST   the SCSI checks (default: this checkout's target/release/sgtest)     LAB   the lab command
#
#   is WHAT EXPECTED FOUND               passes if equal
#   matches WHAT REGEX FOUND             passes if FOUND contains REGEX (extended)
#   silent WHAT <<END                    passes if a script in the gateway runs to its end and prints nothing
#   at_most WHAT LIMIT FOUND             passes if the number FOUND is there and is <= LIMIT   between WHAT LEAST MOST FOUND
#   ok WHAT COMMAND...                   passes if COMMAND ends with status 0; else its last lines are shown
#   gw [SECONDS] [NAME=VALUE...] <<END   a bash script in the gateway, with lun.sh and guest.sh (limit 60 s)
#   ini ...                              the same in the initiator
#   ceph ...                             `lab ceph` (ceph, rbd, ...)
#   image NAME SIZE [OPTION...]          a new image rbd/NAME; the case ends if there is none: never somebody else's data
set -uo pipefail

LAB_CASES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB_TOP=$(dirname "$(dirname "$LAB_CASES")")
LAB=${LAB:-$LAB_TOP/scripts/lab}
DAEMON=${DAEMON:-$LAB_TOP/target/release/tcmu-rbd}
SGTEST=${SGTEST:-$LAB_TOP/target/release/sgtest}
# shellcheck disable=SC2034
IQN=iqn.2026-01.io.tcmu-rbd:case CLIENT=iqn.2026-01.io.tcmu-rbd:initiator SECRET=secret-of-16-chars
passed=0 failed=0

pass() { echo "PASS  $*"; passed=$((passed + 1)); }
fail() { echo "FAIL  $1: expected $2, found ${3:-nothing}"; failed=$((failed + 1)); }
is() { if [[ $3 == "$2" ]]; then pass "$1"; else fail "$1" "'$2'" "'$3'"; fi; }
matches() { if [[ $3 =~ $2 ]]; then pass "$1"; else fail "$1" "a match of '$2'" "'$3'"; fi; }
# silent WHAT [SECONDS] <<END: passes if the script runs to its end in the gateway and prints nothing
silent() {
  local what=$1 found
  shift
  found=$(gw "$@" <<<"$(cat)"$'\n''echo "the end"')
  is "$what" "the end" "$found"
}
at_most() { between "$1" 0 "$2" "$3"; }
between() {
  if [[ $4 =~ ^[0-9.]+$ ]] && awk -v a="$4" -v b="$2" -v c="$3" 'BEGIN { exit !(b <= a && a <= c) }'; then pass "$1 ($4)"; else fail "$1" "between $2 and $3" "'$4'"; fi
}
ok() {
  local what=$1 output status=0
  shift
  output=$("$@" 2>&1) || status=$?
  if ((status == 0)); then pass "$what"; else
    fail "$what" "status 0" "status $status"
    tail -n 12 <<<"$output" | sed 's/^/      /'
  fi
}

in_guest() {
  local guest=$1 limit=60 names
  shift
  if [[ ${1:-} =~ ^[0-9]+$ ]]; then limit=$1; shift; fi
  printf -v names '%q ' DAEMON="$DAEMON" SGTEST="$SGTEST" IQN="$IQN" CLIENT="$CLIENT" SECRET="$SECRET" "$@"
  "$LAB" exec --timeout "$limit" "$guest" "export $names; . \$LAB_SCRIPTS/guest/lun.sh; . $LAB_CASES/guest.sh; $(cat)"
}
gw() { in_guest gateway "$@"; }
ini() { in_guest initiator "$@"; }
ceph() { "$LAB" ceph "$@"; }
image() {
  local name=$1 size=$2
  shift 2
  ceph rbd create --size "$size" "$@" "rbd/$name" || { fail "image rbd/$name" "created" "an error"; finish; }
}
# no_watcher IMAGE: at once, without a second look
no_watcher() { matches "no watcher on rbd/$1" 'Watchers: none' "$(ceph rbd status "rbd/$1" 2>&1)"; }
now() { echo "$EPOCHREALTIME"; }
since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# sg_checks COMMAND [ARG...]: sgtest against a fresh LUN over tcm_loop; its failures are the case's
sg_checks() {
  local output summary
  image "sg-$1" 64M
  output=$(gw 110 ARGS="$*" <<'END'
serve && backstore disk "rbd/sg-${ARGS%% *}" 64 hw_max_sectors=1024 && loop_export disk >/dev/null || exit 9
serial=$(sed -n '1s/.*: //p' "$(lun_path disk)/wwn/vpd_unit_serial")
sg=/dev/$(ls /sys/class/scsi_generic | tail -n 1)
[[ $ARGS != identity ]] || ARGS+=" --serial $serial --config rbd/rbd/sg-identity --max-sectors 1024"
# shellcheck disable=SC2086
"$SGTEST" ${ARGS%% *} "$sg" ${ARGS#"${ARGS%% *}"} --limit 90
END
)
  summary=$(tail -n 1 <<<"$output")
  grep '^FAIL' <<<"$output" && failed=$((failed + $(grep -c '^FAIL' <<<"$output")))
  matches "sgtest $*: $summary" '^[1-9][0-9]* passed, 0 failed' "$summary"
  if ((failed == 0)); then
    ok "LUN deleted, daemon stopped" gw <<<clean
    no_watcher "sg-$1"
  fi
}

finish() {
  ((passed + failed > 0)) || fail "the case" "checks" "none"
  ((failed == 0)) || {
    echo "      end of the daemon's log and output:"
    "$LAB" exec --timeout 10 gateway 'tail -n 12 /var/log/tcmu-runner.log /var/log/daemon.out' 2>&1 | cut -c1-300 | sed 's/^/      /'
  }
  exit $((failed > 0))
}

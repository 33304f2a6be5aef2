#!/usr/bin/env bash
# The kernel interface against the real module: the tests of handler-rbd/tests/netlink.rs that need a guest of their own
# (they load nothing and serve nothing, but answer the kernel's events). NETLINK_TEST: that test program.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

test=${NETLINK_TEST:-$(find "$LAB_TOP/target/debug/deps" -name 'netlink-*' -executable -type f -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)}
ok "the test program is there: ${test:-none; cargo test -p handler-rbd --test netlink --no-run}" test -x "$test"
output=$(gw 110 TEST="$test" <<<'"$TEST" --ignored --test-threads 1 the_life frees_who 2>&1')
matches "both tests pass: $(grep -E '^test result' <<<"$output")" 'test result: ok. 2 passed; 0 failed' "$output"
((failed)) && tail -n 20 <<<"$output"
silent "no task waits in the kernel" <<<d_tasks
finish

#!/usr/bin/env bash
# Creating, deleting and stopping while the OSD is stopped: a create that comes too late takes nothing from the one that
# succeeds after it; a minor that is used again is served although its old device is still being closed; whoever waits
# for an answer when the daemon is stopped gets one.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

trap 'ceph-resume' EXIT
ceph-pause() { "$LAB" ceph-pause osd; }
ceph-resume() { "$LAB" ceph-resume osd >/dev/null 2>&1; }

for name in late old new pending; do image "$name" 16M; done
ok "daemon that waits 3 s for an image, and 2 s for commands" gw OPEN_TIMEOUT=3 <<<'serve --drain-timeout 2; backstore old rbd/old 16'
ok "its LUN holds the lock" gw <<<'dd if=/dev/zero of="$(loop_export old)" bs=64k count=1 oflag=direct status=none && loop_unexport old'

# Twice: the first create gives up after 3 s; the second is under way when the OSD comes back.
ok "the OSD stops" ceph-pause
(for ((n = 0; n < 600; n++)); do [[ ! -e $LAB_DIR/share/second ]] || break; sleep 0.1; done; sleep 1; ceph-resume) &
output=$(gw <<'END'
backstore late rbd/late 16; echo "first: $?"
touch /share/second
backstore late rbd/late 16; echo "second: $?"
one() { (($(ls /run/tcmu-rbd | grep -c '^user_.*\.late\..*\.client$') == 1)); }
wait_for 20 one # the late opening of the first ends
ls /run/tcmu-rbd | sed 's/^/record /'
END
)
wait $!
matches "a create is refused while the OSD is stopped" 'first: [1-9]' "$output"
matches "the next one succeeds when it is back" 'second: 0' "$output"
is "the LUN that is served has a record for its successor" 1 "$(grep -c '^record user_.*\.late\..*\.client$' <<<"$output")"

ok "the OSD stops again" ceph-pause
output=$(gw <<'END'
backstore_rm old; echo "removed: $?"
backstore new rbd/new 16; echo "created: $?"
END
)
ceph-resume
matches "a LUN can be deleted then" 'removed: 0' "$output"
matches "one is not created on a stopped OSD" 'created: [1-9]' "$output"
output=$(gw <<'END'
backstore new rbd/new 16; echo "created: $?"
timeout 20 dd if="$(loop_export new)" of=/dev/null bs=64k count=4 iflag=direct status=none && echo served
END
)
matches "it is when the OSD is back" 'created: 0' "$output"
matches "and served" served "$output"

ok "the OSD stops once more" ceph-pause
output=$(gw <<'END'
(backstore pending rbd/pending 16; echo "pending: $?" >/tmp/pending) >/dev/null 2>&1 &
opening() { "$DAEMON" status | grep 'pending.*opening'; }
wait_for 3 opening
daemon_stop TERM && echo stopped
wait_for 10 test -s /tmp/pending; cat /tmp/pending
END
)
ceph-resume
matches "SIGTERM ends the daemon" stopped "$output"
matches "and who waited for it gets an error" 'pending: [1-9]' "$output"
silent "no task waits in the kernel" <<<d_tasks
# Its predecessor could not close its images: until they are taken on nobody has fenced it.
ok "a new daemon" gw <<'END'
serve
ready() { [[ $("$DAEMON" status --json | jq -r '[.luns[].state] | join(" ")') == "ready ready" ]]; }
wait_for 30 ready
END
ok "nothing left, daemon stopped" gw <<<clean
finish

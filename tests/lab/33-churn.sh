#!/usr/bin/env bash
# Many creates at once, then as many deletes, with a cluster among them where nobody answers: every call returns, the
# healthy succeed, D-Bus answers within a second all the while, no task stays in the kernel.
# CHURN="ROUNDS COUNT DEAD" (3 24 4); all of it: CHURN="10 100 4" CASE_LIMIT=1800
# limit: 300
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

read -r rounds count dead <<<"${CHURN:-3 24 4}"
limit=$((rounds * 130 + 60))
"$LAB" ns /usr/bin/python3 - "$count" <<'END' || { fail "$count images" made "an error"; finish; }
import os, rados, rbd, sys
with rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster, cluster.open_ioctx("rbd") as pool:
    for n in range(int(sys.argv[1])):
        rbd.RBD().create(pool, f"c{n}", 4 << 20)
END
ok "daemon, and a monitor that never answers" gw OPEN_TIMEOUT=40 <<'END'
serve
{ sed 's/mon_host.*/mon_host = v2:127.0.0.1:40008/' /etc/ceph/ceph.conf; echo 'keyring = /etc/ceph/ceph.client.admin.keyring'; } >/etc/ceph/paused.conf
setsid python3 -c 'import socket, time; s = socket.create_server(("127.0.0.1", 40008), backlog=512); time.sleep(3000)' >/dev/null 2>&1 &
wait_for 5 python3 -c 'import socket; socket.create_connection(("127.0.0.1", 40008), 1)'
END
output=$(gw $limit CASES="$LAB_CASES" WORDS="$rounds $count $dead" <<'END'
mkfifo /tmp/churn.end; sleep 3000 >/tmp/churn.end 2>/dev/null & open=$!
"$CASES/bus-probe" 3000 </tmp/churn.end >/tmp/churn.bus 2>&1 & probe=$!
wait_for 5 test -s /tmp/churn.bus
# shellcheck disable=SC2086
"$CASES/churn" $WORDS /etc/ceph/paused.conf
kill $open $probe; rm /tmp/churn.end
cat /tmp/churn.bus
d_tasks
END
)
grep '^round' <<<"$output" | sed 's/^/      /'
healthy=$((count - dead))
# A hundred clients may be more than a slow machine can start in time; then some are refused, and that is in order.
is "rounds in which every call returned, and those on the dead cluster failed" "$rounds" "$(awk -v h=$healthy -v d="$dead" '
  /^round/ && $4 + $6 == h && $10 == d && $14 == $4 { n++ } END { print n + 0 }' <<<"$output")"
((count > 30)) || is "rounds in which all $healthy others were created" "$rounds" "$(grep -c ": created $healthy failed 0 " <<<"$output")"
is "no call stays in the kernel" "" "$(grep stuck <<<"$output")"
is "the only reason for a refusal is time" "" "$(grep -E '^c[0-9]+:' <<<"$output" | grep -v 'timed out')"
is "D-Bus always answers" 0 "$(grep -c '^bus failed' <<<"$output")"
between "D-Bus was asked often enough" 10 100000 "$(grep -c '^bus [0-9]' <<<"$output")"
at_most "D-Bus answers within a second" 1 "$(sed -n 's/^bus \([0-9.]*\)$/\1/p' <<<"$output" | sort -n | tail -n 1)"
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw <<<clean
no_watcher c0
finish

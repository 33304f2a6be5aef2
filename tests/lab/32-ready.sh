#!/usr/bin/env bash
# 32 LUNs and a cluster that does not answer at start: the unit is ready within 2 s, D-Bus and netlink answer within 1 s,
# the watchdog stays quiet, and every LUN comes up by itself when the cluster does.
# limit: 300
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

SD=". $LAB_CASES/systemd.sh"
LUNS=$(seq -f 'r%g' 32 | tr '\n' ' ')
"$LAB" ns /usr/bin/python3 - $LUNS <<'END' || { fail "32 images" made "an error"; finish; }
import os, rados, rbd, sys
with rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster, cluster.open_ioctx("rbd") as pool:
    for name in sys.argv[1:]:
        rbd.RBD().create(pool, name, 16 << 20)
END
ok "32 LUNs, then stopped" gw 120 LUNS="$LUNS" <<END
$SD
sd_up && sctl start tcmu-rbd || exit
for name in \$LUNS; do backstore \$name rbd/\$name 16 || exit; done
echo "threads \$(ls /proc/\$(unit_pid)/task | wc -l)" >/share/threads.txt
sctl stop tcmu-rbd
END
((failed == 0)) || finish
echo "      $(cat "$LAB_DIR/share/threads.txt")"
"$LAB" ceph-pause osd
"$LAB" ceph-pause mon
output=$(gw 60 <<END
$SD
took() { awk -v w="\$1" -v a="\$2" -v b="\$EPOCHREALTIME" 'BEGIN { printf "%s %.2f\n", w, b - a }'; }
start=\$EPOCHREALTIME; sctl start tcmu-rbd && took ready \$start
start=\$EPOCHREALTIME; busctl call $(echo org.kernel.TCMUService1 /org/kernel/TCMUService1/rbd org.kernel.TCMUService1) CheckConfig s rbd/rbd/x >/dev/null && took bus \$start
dir=\$TARGET/core/user_99/x; mkdir -p \$dir; echo -n dev_config=foo/bar,dev_size=1048576 >\$dir/control
start=\$EPOCHREALTIME; (echo 1 >\$dir/enable) 2>/dev/null || took netlink \$start
rmdir \$dir \$TARGET/core/user_99
sleep 20
shown StatusText; echo "restarts \$(shown NRestarts)"; d_tasks
END
)
"$LAB" ceph-resume mon
"$LAB" ceph-resume osd
at_most "ready" 2 "$(sed -n 's/^ready //p' <<<"$output")"
at_most "D-Bus answers" 1 "$(sed -n 's/^bus //p' <<<"$output")"
at_most "netlink answers" 1 "$(sed -n 's/^netlink //p' <<<"$output")"
matches "the status tells of them" 'serving 0 devices, 32 not open yet' "$output"
matches "the watchdog does not mind" 'restarts 0$' "$output"
output=$(gw 100 <<END
$SD
all() { [[ \$(shown StatusText) == "serving 32 devices" ]]; }
start=\$EPOCHREALTIME
wait_for 60 all && awk -v a="\$start" -v b="\$EPOCHREALTIME" 'BEGIN { printf "all up %.1f\n", b - a }'
shown StatusText
cat \$TARGET/core/user_*/r*/action/block_dev | sort | uniq -c | tr -s ' '
END
)
at_most "all 32 come up by themselves" 60 "$(sed -n 's/^all up //p' <<<"$output")"
matches "and serve" ' 32 unblocked' "$output"
ok "nothing left" gw 100 <<END
$SD
clean; sctl stop tcmu-rbd && sd_down && leftovers
END
finish

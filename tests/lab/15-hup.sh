#!/usr/bin/env bash
# logrotate: mv the log, SIGHUP; the daemon lives, opens a new log and writes there, no more to the old one.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image hup 64M
output=$(gw <<'END'
serve && backstore before rbd/hup 64 && backstore_rm before
log=/var/log/tcmu-runner.log
[[ -s $log ]] && echo "log is written"
mv "$log" "$log.1"
kill -HUP "$(daemon_pid)"
wait_for 5 test -e "$log" && echo "new log"
size=$(stat -c %s "$log.1")
daemon_alive && echo alive
backstore after rbd/hup 64 && backstore_rm after && echo "creates and deletes"
grep -q 'rbd/hup\|after' "$log" && echo "writes to the new log"
[[ $(stat -c %s "$log.1") == "$size" ]] && echo "not to the old log"
echo "mode $(stat -c %a "$log")"
END
)
for line in "log is written" "new log" alive "creates and deletes" "writes to the new log" "not to the old log" "mode 600"; do
  matches "$line" "$line" "$output"
done
ok "nothing left, daemon stopped" gw <<<clean
finish

#!/usr/bin/env bash
# Somebody else has /dev/uioN open when a killed daemon's successor comes: a process that opened it, and one that has only its
# mapping left. The device waits, its initiators too, and is served as soon as it is free. A new one's creation is refused.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image busy 64M
output=$(gw 100 <<'END'
serve && backstore busy rbd/busy 64 && disk=$(loop_export busy) || exit
uio=/dev/$(basename "$(ls -d /sys/class/uio/uio*)")
cat >/tmp/hold.py <<'PY'
import mmap, os, sys, time
uio, how = sys.argv[1:]
for _ in range(100):
    try:
        fd = os.open(uio, os.O_RDWR)
        break
    except OSError as e:
        time.sleep(0.02)
if how == "mapping":
    size = int(open(f"/sys/class/uio/{os.path.basename(uio)}/maps/map0/size").read(), 16)
    ring = mmap.mmap(fd, size)
    os.close(fd)
    print("mapped", flush=True)
else:
    print("open", flush=True)
time.sleep(300)
PY
python3 -c "import os; os.open('$uio', os.O_RDWR)" 2>&1 | grep -o 'Device or resource busy'
for how in descriptor mapping; do
  rm -f /tmp/hold.out
  daemon_stop KILL
  python3 /tmp/hold.py "$uio" $how >/tmp/hold.out & holder=$!
  wait_for 5 test -s /tmp/hold.out; cat /tmp/hold.out
  before=$(grep -c 'device taken on' /var/log/tcmu-runner.log)
  serve
  complained() { grep -q "cannot take the device on.*$uio" /var/log/tcmu-runner.log; }
  wait_for 20 complained && echo "complained of"
  (($(grep -c 'device taken on' /var/log/tcmu-runner.log) == before)) && echo "not served"
  timeout 60 dd if=/dev/urandom of="$disk" bs=64k count=16 oflag=direct status=none & dd=$!
  kill $holder
  wait $dd && echo "written"
  : >/var/log/tcmu-runner.log
done
END
)
matches "the daemon is the only opener" 'Device or resource busy' "$output"
matches "a descriptor is held, then a mapping" $'open\ncomplained of\nnot served\nwritten\nmapped\ncomplained of\nnot served\nwritten' "$output"
silent "no task waits in the kernel" <<<d_tasks
ok "nothing left, daemon stopped" gw <<<clean
no_watcher busy
finish

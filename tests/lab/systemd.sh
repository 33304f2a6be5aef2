# shellcheck shell=bash
# systemd.sh - systemd itself in the gateway, as process 1 of a PID namespace of its own (and mounts), under the guest's
# kernel. Sourced in a guest by the cases that need it. Its journal is off; the unit's output goes to /var/log/unit.out.
#   sd_up                  boot it, with tcmu-rbd.service of this checkout, enabled, and DAEMON as /usr/bin/tcmu-rbd
#   sd_down                end it and all it runs
#   sctl ARG...            systemctl           shown PROPERTY    a property of the unit
#   unit_pid               the daemon's pid in the guest, now
# shellcheck disable=SC2154

UNIT=tcmu-rbd.service

sd_pid() { pgrep -f '^/lib/systemd/systemd --system --unit=lab.target'; }
in_sd() { nsenter -t "$(sd_pid)" -m -p -C -r -w -- "$@"; }
sctl() { in_sd timeout 100 systemctl --no-pager "$@"; }
shown() { sctl show --value -p "$1" $UNIT; }
unit_pid() { pgrep -f '^/usr/bin/tcmu-rbd serve'; }
_sd_ready() { [[ $(sctl is-active lab.target 2>/dev/null) == active ]]; }
unit_active() { [[ $(shown ActiveState) == active ]]; }
unit_new() { local pid; pid=$(unit_pid) && [[ $pid != "$1" ]] && unit_active; }

sd_up() {
  local scripts
  scripts=$(dirname "$LAB_SCRIPTS/.")
  mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup /sys/fs/cgroup || return
  mkdir -p /run/systemd/system/$UNIT.d /run/log
  cp "$DAEMON" /usr/bin/tcmu-rbd && cp "$scripts/systemd/$UNIT" /etc/systemd/system/ || return
  printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/system/lab.target
  # No journal, no network units here.
  printf '[Unit]\nDefaultDependencies=no\nWants=\nAfter=\n[Service]\nStandardOutput=append:/var/log/unit.out\nStandardError=inherit\n' \
    >/run/systemd/system/$UNIT.d/lab.conf
  ((!$#)) || printf '%s\n' "$@" >/run/systemd/system/$UNIT.d/more.conf
  rm -f /etc/systemd/system/tcmu-runner.service
  setsid unshare --pid --fork --mount --mount-proc --cgroup env container=lab /lib/systemd/systemd --system \
    --unit=lab.target --log-level=notice --show-status=no </dev/null >/dev/null 2>&1 &
  disown
  wait_for 20 _sd_ready || _fail "systemd does not come up"
}

sd_down() {
  local pid
  pid=$(sd_pid) || return 0
  kill -KILL "$pid"
  wait_for 10 _gone "$pid" || return
  umount /sys/fs/cgroup
  rm -rf /run/systemd /etc/systemd/system/$UNIT /usr/bin/tcmu-rbd
}

# shellcheck shell=bash
# shellcheck disable=SC2154 # (here, die, say, lab_pids and others come from lab)
# guest.sh - user-mode Linux guests of the lab. Sourced by `lab`; guest_start and guest_wait run in its namespace.
# Contract: a guest is one session of host processes whose leader's id is in $LAB_DIR/NAME.pid; its console is
# $LAB_DIR/NAME.console. Names: gateway, gateway2..9, initiator, initiator2..9; the name decides role and address.

GUEST_MEMORY=${LAB_MEM:-2G}

guest_ip() {
  [[ $1 =~ ^(gateway|initiator)([2-9]?)$ ]] || die "no guest '$1'; names are gateway, gateway2..9, initiator, initiator2..9"
  local base=10 n=${BASH_REMATCH[2]:-1}
  [[ ${BASH_REMATCH[1]} == gateway ]] || base=20
  echo "$LAB_NET.$((base + n))"
}

guest_hosts() {
  local n role
  for n in '' 2 3 4 5 6 7 8 9; do
    for role in gateway initiator; do printf '%s %s;' "$(guest_ip $role$n)" "$role$n"; done
  done
  printf '%s ceph;' "$LAB_HOST_IP"
}

# guest_pid NAME: its leader's process id if it is alive, else status 1.
guest_pid() {
  local pid
  pid=$(cat "$LAB_DIR/$1.pid" 2>/dev/null) && lab_pids | grep -qx "$pid" && echo "$pid"
}

guest_start() {
  local name=$1 ip tap=tap-$1 visible=$LAB_REPO preload=
  ip=$(guest_ip "$name")
  ! guest_pid "$name" >/dev/null || die "guest $name is up already; first: lab guest-down $name"
  if ! ip link show "$tap" >/dev/null 2>&1; then
    ip tuntap add dev "$tap" mode tap || die "cannot make the tap device $tap; is CAP_NET_ADMIN there and the module tun loaded?"
    ip link set "$tap" master br0 up
  fi
  [[ -z ${CARGO_TARGET_DIR:-} ]] || visible+=:$(realpath -m "$CARGO_TARGET_DIR")
  [[ -z ${LAB_VISIBLE:-} ]] || visible+=:$LAB_VISIBLE
  printf '%s=%q\n' ADDRESS "$ip" VISIBLE "$visible" SCRIPTS "$here" HOSTS "$(guest_hosts)" \
    ACTIVATION "${LAB_ACTIVATION:-0}" >"$LAB_DIR/$name.env"
  mkdir -p "$LAB_DIR/uml"
  # On a CPU with AMX this UML cannot set registers by itself; see xstate.c.
  if grep -qw amx_tile /proc/cpuinfo && [[ ! -e $LAB_DIR/xstate.so ]]; then
    gcc -O2 -shared -fPIC -o "$LAB_DIR/xstate.$name" "$here/lab.d/xstate.c" -ldl && mv "$LAB_DIR/xstate.$name" "$LAB_DIR/xstate.so" ||
      die "cannot compile lab.d/xstate.c, which guests need on this CPU (AMX); run: scripts/install"
  fi
  [[ ! -e $LAB_DIR/xstate.so ]] || preload=LD_PRELOAD=$LAB_DIR/xstate.so
  # shellcheck disable=SC2016
  setsid bash -c 'echo $$ >"$1"; shift; exec "$@"' _ "$LAB_DIR/$name.pid" "${GUEST_PIN[@]}" env ${preload:+"$preload"} linux.uml \
    mem="$GUEST_MEMORY" uml_dir="$LAB_DIR/uml" umid="$name" rootfstype=hostfs rootflags=/ ro init="$here/guest/init" \
    vec0:transport=tap,ifname="$tap",depth=128,gro=1,mac=52:54:00:00:00:"$(printf %02x "${ip##*.}")" \
    quiet con=null con0=null,fd:2 -- "$name" "$LAB_DIR" </dev/null >"$LAB_DIR/$name.console" 2>&1 &
  disown
}

# guest_last_words NAME: the reason on its console, or else the console's end.
guest_last_words() {
  grep -m 3 -iE "panic|^guest $1:" "$LAB_DIR/$1.console" || tail -n 5 "$LAB_DIR/$1.console"
}

guest_wait() {
  local name=$1 ip n
  ip=$(guest_ip "$name")
  for ((n = 0; n < 600; n++)); do
    if (: <>"/dev/tcp/$ip/2222") 2>/dev/null; then
      say "guest $name: up ($ip)"
      return
    fi
    [[ $n -lt 10 ]] || guest_pid "$name" >/dev/null ||
      die "guest $name died while booting: $(guest_last_words "$name" | tr '\n' ' ')"
    sleep 0.1
  done
  die "guest $name does not answer after 60 s: $(guest_last_words "$name" | tr '\n' ' ')"
}

# guest_stop NAME [--kill]: power off (or, as a power cut would, kill) and see that every process of its session is gone.
guest_stop() {
  local name=$1 pid n
  guest_ip "$name" >/dev/null
  if pid=$(guest_pid "$name"); then
    if [[ ${2:-} != --kill ]]; then
      kill -CONT "$pid" 2>/dev/null || true
      "${EXEC_CLIENT[@]}" "$name" "$(guest_ip "$name")" 5 --poweroff 2>/dev/null || true
      for ((n = 0; n < 50; n++)); do [[ -n $(ps -o pid= -s "$pid") ]] || break; sleep 0.1; done
    fi
    for ((n = 0; n < 50; n++)); do
      [[ -n $(ps -o pid= -s "$pid") ]] || break
      kill -KILL -- "-$pid" 2>/dev/null || true
      sleep 0.1
    done
    [[ -z $(ps -o pid= -s "$pid") ]] || die "guest $name has processes that do not end: $(ps -o pid= -s "$pid" | tr '\n' ' ')"
  fi
  rm -rf "$LAB_DIR/$name.pid" "$LAB_DIR/uml/$name"
}

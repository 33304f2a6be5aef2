# shellcheck shell=bash
# lun.sh - LUNs inside a lab guest, for whichever daemon owns org.kernel.TCMUService1. Source it: . $LAB_SCRIPTS/guest/lun.sh
# Contract: every function prints its result (or nothing) on stdout, explains a failure on stderr and returns non-zero;
# none waits without a limit. NAME is a backstore's name, unique in the guest.
#
#   daemon_start PROGRAM [ARG...]        in the background, until it owns the bus name; output to /var/log/daemon.out
#   daemon_stop [SIGNAL]                 end that one (default TERM), until it is gone
#   lun_create NAME POOL/IMAGE[;opt=v] SIZE [CONTROL]        through targetcli    lun_delete NAME    lun_path NAME
#   lun_wwn NAME UUID                    give it this serial (the same on every gateway), before it is exported
#   loop_export NAME                     over tcm_loop; prints /dev/sdX           loop_unexport NAME
#   iscsi_export IQN NAME... [--portal IP:PORT]              LUN numbers 0, 1, ...    iscsi_unexport IQN
#   iscsi_allow IQN INITIATOR_IQN [USER PASSWORD]            ACL of all LUNs, CHAP if a user is given
# and on an initiator:
#   iscsi_login IQN IP [USER PASSWORD]   iscsi_disk IQN LUN  (prints /dev/sdX)    iscsi_logout IQN
#   multipath_start                      multipathd as the Ceph manual configures it; then: multipath -ll
#   wait_for SECONDS COMMAND...          until COMMAND succeeds

TARGET=/sys/kernel/config/target
BUS_NAME=org.kernel.TCMUService1

_fail() { echo "lun.sh: $*" >&2; return 1; }

wait_for() {
  local end=$((SECONDS + $1 + 1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

_bus_owned() {
  dbus-send --system --print-reply=literal --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner \
    string:$BUS_NAME 2>/dev/null | grep -q true
}
_gone() { ! kill -0 "$1" 2>/dev/null; }

daemon_start() {
  ! _bus_owned || { _fail "$BUS_NAME is owned already: a daemon runs"; return; }
  setsid "$@" </dev/null >>/var/log/daemon.out 2>&1 &
  echo $! >/run/daemon.pid
  disown $!
  # shellcheck disable=SC2317
  _up_or_dead() { _bus_owned || _gone "$(cat /run/daemon.pid)"; }
  wait_for 30 _up_or_dead
  _bus_owned || _fail "$1 did not take the bus name: $(tail -n 5 /var/log/daemon.out)"
}

daemon_stop() {
  local pid
  pid=$(cat /run/daemon.pid) || return
  kill "-${1:-TERM}" "$pid" || return
  wait_for 30 _gone "$pid" || _fail "the daemon ($pid) does not end"
}

lun_path() {
  local dir
  for dir in "$TARGET"/core/{user,fileio}_*/"$1"; do
    if [[ -d $dir ]]; then echo "$dir"; return; fi
  done
  _fail "no backstore $1"
}

lun_create() {
  timeout 60 targetcli /backstores/user:rbd create name="$1" size="$3" cfgstring="$2" ${4:+control="$4"} ||
    _fail "cannot create $1 ($2)"
}

lun_wwn() {
  local path
  path=$(lun_path "$1") && echo "$2" >"$path/wwn/vpd_unit_serial"
}

lun_delete() { timeout 60 targetcli /backstores/user:rbd delete "$1"; }

# A world wide name made of a string: naa.5001405 and nine digits of its hash.
_naa() { echo "naa.5001405$(md5sum <<<"$1" | cut -c1-9)"; }

_block_of() { # _block_of H:C:T:L
  local dir
  for dir in "/sys/class/scsi_device/$1/device/block"/*; do
    if [[ -b /dev/${dir##*/} ]]; then echo "/dev/${dir##*/}"; return; fi
  done
  return 1
}

loop_export() {
  local tpg lun address
  lun=$(lun_path "$1") || return
  tpg=$TARGET/loopback/$(_naa "$1")/tpgt_1
  mkdir -p "$tpg" && _naa "$1-nexus" >"$tpg/nexus" && mkdir "$tpg/lun/lun_0" && ln -s "$lun" "$tpg/lun/lun_0/$1" || return
  address=$(cat "$tpg/address"):0
  wait_for 20 _block_of "$address" >/dev/null || { _fail "no disk appeared at $address"; return; }
  _block_of "$address"
}

loop_unexport() {
  local hba
  hba=$TARGET/loopback/$(_naa "$1")
  rm "$hba/tpgt_1/lun/lun_0/$1" && rmdir "$hba/tpgt_1/lun/lun_0" && echo NULL >"$hba/tpgt_1/nexus" &&
    rmdir "$hba/tpgt_1" "$hba"
}

iscsi_export() {
  local iqn=$1 portal=0.0.0.0:3260 n=0 lun
  local tpg=$TARGET/iscsi/$iqn/tpgt_1
  shift
  mkdir -p "$tpg" || return
  while (($#)); do
    if [[ $1 == --portal ]]; then portal=$2; shift 2; continue; fi
    lun=$(lun_path "$1") && mkdir "$tpg/lun/lun_$n" && ln -s "$lun" "$tpg/lun/lun_$n/$1" || return
    n=$((n + 1))
    shift
  done
  mkdir "$tpg/np/$portal" || return
  echo 0 >"$tpg/attrib/generate_node_acls"
  echo 0 >"$tpg/attrib/authentication"
  echo 1 >"$tpg/enable"
}

iscsi_allow() {
  local tpg=$TARGET/iscsi/$1/tpgt_1 lun n
  local acl=$tpg/acls/$2
  mkdir -p "$acl" || return
  for lun in "$tpg"/lun/lun_*; do
    n=${lun##*_}
    mkdir "$acl/lun_$n" && ln -s "$lun" "$acl/lun_$n/mapped" && echo 0 >"$acl/lun_$n/write_protect" || return
  done
  [[ -n ${3:-} ]] || return 0
  echo -n "$3" >"$acl/auth/userid"
  echo -n "$4" >"$acl/auth/password"
  echo 1 >"$tpg/attrib/authentication"
}

iscsi_unexport() {
  local tpg=$TARGET/iscsi/$1/tpgt_1 acl lun
  [[ -d $tpg ]] || { _fail "no target $1"; return; }
  echo 0 >"$tpg/enable"
  for acl in "$tpg"/acls/*/; do
    [[ -d $acl ]] || continue
    for lun in "$acl"lun_*; do
      [[ -d $lun ]] || continue
      rm -f "$lun/mapped"
      rmdir "$lun"
    done
    rmdir "$acl"
  done
  for lun in "$tpg"/lun/lun_*; do
    [[ -d $lun ]] || continue
    find "$lun" -maxdepth 1 -type l -delete
    rmdir "$lun"
  done
  rmdir "$tpg"/np/* "$tpg" "$TARGET/iscsi/$1"
}

iscsi_login() {
  local node=(timeout 60 iscsiadm -m node -T "$1" -p "$2:3260")
  timeout 30 iscsiadm -m discovery -t sendtargets -p "$2" >/dev/null || { _fail "discovery at $2 failed"; return; }
  if [[ -n ${3:-} ]]; then
    "${node[@]}" -o update -n node.session.auth.authmethod -v CHAP &&
      "${node[@]}" -o update -n node.session.auth.username -v "$3" &&
      "${node[@]}" -o update -n node.session.auth.password -v "$4" || return
  fi
  "${node[@]}" --login >/dev/null
}

_iscsi_block() {
  local session
  for session in /sys/class/iscsi_session/session*; do
    [[ $(cat "$session/targetname" 2>/dev/null) == "$1" ]] || continue
    _block_of "$(basename "$session"/device/target*/ | sed 's/^target//'):$2" && return
  done
  return 1
}

iscsi_disk() {
  wait_for 20 _iscsi_block "$1" "$2" >/dev/null || { _fail "no disk for LUN $2 of $1"; return; }
  _iscsi_block "$1" "$2"
}

iscsi_logout() { timeout 60 iscsiadm -m node -T "$1" --logout >/dev/null && iscsiadm -m node -T "$1" -o delete; }

multipath_start() {
  cat >/etc/multipath.conf <<'CONF'
defaults {
  user_friendly_names no
  find_multipaths no
}
devices {
  device {
    vendor "LIO-ORG"
    product "TCMU device"
    hardware_handler "1 alua"
    path_grouping_policy "failover"
    path_selector "queue-length 0"
    failback 60
    path_checker tur
    prio alua
    prio_args exclusive_pref_bit
    fast_io_fail_tmo 25
    no_path_retry queue
  }
}
CONF
  modprobe -a dm-multipath dm-queue-length && multipathd
}

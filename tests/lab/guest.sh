# shellcheck shell=bash
# guest.sh - what the cases need inside a guest beside lun.sh. DAEMON and SGTEST come from lib.sh.
# shellcheck disable=SC2154
#   serve [ARG...]                       the daemon under test, until it owns the bus name; OPEN_TIMEOUT (20) is passed on
#   backstore NAME POOL/IMAGE[;opt] MIB [CONTROL]   as rtslib does it, without targetcli; the status is 0 only if `enable` succeeded
#   backstore_rm NAME                    the reverse
#   clean                                every LUN, then the daemon; fails if something stays
#   leftovers                            prints what there is of LUNs and daemons; status 1 if anything
#   d_tasks                              prints tasks in uninterruptible sleep that are so twice within a second
#   daemon_pid                           daemon_alive

serve() {
  case ${DAEMON##*/} in
  tcmu-runner) daemon_start "$DAEMON" "$@" ;;
  *) daemon_start "$DAEMON" serve --open-timeout "${OPEN_TIMEOUT:-20}" "$@" ;;
  esac
}
daemon_pid() { cat /run/daemon.pid; }
daemon_alive() { [[ -e /run/daemon.pid ]] && kill -0 "$(daemon_pid)" 2>/dev/null; }

backstore() {
  local hba dir n status=0
  for ((n = 0; n < 256; n++)); do
    hba=$TARGET/core/user_$n
    # A look first: a fork is dear in a guest, and 16 of these run at once.
    if [[ ! -e $hba ]] && mkdir "$hba" 2>/dev/null; then break; fi
  done
  dir=$hba/$1
  mkdir "$dir" || return
  { echo -n "dev_config=rbd/$2" >"$dir/control" && echo -n "dev_size=$(($3 * 1048576))" >"$dir/control"; } || status=1
  [[ -z ${4:-} ]] || echo -n "$4" >"$dir/control" || status=1
  ((status)) || echo 1 >"$dir/enable" || status=1
  if ((status)); then
    rmdir "$dir" "$hba"
    return $status
  fi
  cat /proc/sys/kernel/random/uuid >"$dir/wwn/vpd_unit_serial"
}
backstore_rm() {
  local dir
  dir=$(lun_path "$1") && rmdir "$dir" "$(dirname "$dir")"
}

clean() {
  local path hba
  for path in "$TARGET"/iscsi/iqn*; do
    [[ ! -d $path ]] || iscsi_unexport "${path##*/}"
  done
  for hba in "$TARGET"/loopback/naa*; do
    [[ -d $hba ]] || continue
    find "$hba"/tpgt_*/lun/lun_* -maxdepth 1 -type l -delete
    rmdir "$hba"/tpgt_*/lun/lun_*
    for path in "$hba"/tpgt_*; do echo NULL >"$path/nexus"; rmdir "$path"; done
    rmdir "$hba"
  done
  for path in "$TARGET"/core/user_*/*/; do
    [[ ! -d $path ]] || rmdir "$path" "$(dirname "$path")"
  done
  ! daemon_alive || daemon_stop || return
  leftovers
}

leftovers() {
  local found=0 path
  for path in "$TARGET"/core/user_*/*/ "$TARGET"/loopback/naa* "$TARGET"/iscsi/iqn*; do
    [[ ! -d $path ]] || { echo "configfs: $path"; found=1; }
  done
  for path in /sys/class/uio/uio*/name; do
    [[ ! -e $path ]] || { echo "uio: $(cat "$path")"; found=1; }
  done
  ! daemon_alive || { echo "daemon: $(daemon_pid)"; found=1; }
  return $found
}

d_tasks() {
  local first second
  first=$(ps -eLo stat=,tid=,comm= | awk '$1 ~ /^D/ { print $2, $3 }')
  [[ -n $first ]] || return 0
  sleep 1
  second=$(ps -eLo stat=,tid=,comm= | awk '$1 ~ /^D/ { print $2, $3 }')
  comm -12 <(sort <<<"$first") <(sort <<<"$second")
}

# shellcheck shell=bash
# shellcheck disable=SC2154 # (die, say, lab_pids and others come from lab)
# ceph.sh - the lab's throw-away Ceph: one mon, one mgr, one memstore OSD, pool rbd. Sourced by `lab`, runs in its namespace.
# Contract: everything lives in $LAB_DIR/ceph and, for clients inside guests, $LAB_DIR/etc-ceph. ceph_prepare is quick and
# writes configuration and keys only; ceph_start returns when the pool can be written to.

CEPH_D=$LAB_DIR/ceph
CEPH_OSD_MEMORY=${LAB_OSD_MEMORY:-4G}

ceph_conf_common() {
  cat <<CONF
[global]
fsid = $1
mon_host = v2:$LAB_HOST_IP:40001/0
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
ms_bind_ipv6 = false
CONF
}

ceph_prepare() {
  local fsid keys=$CEPH_D/keyring guest=$LAB_DIR/etc-ceph
  fsid=$(cat /proc/sys/kernel/random/uuid)
  mkdir -p "$CEPH_D"/{mon,mgr,osd,log,crash} "$guest"
  ceph_conf_common "$fsid" >"$guest/ceph.conf"
  { ceph_conf_common "$fsid"; cat <<CONF; } >"$CEPH_D/ceph.conf"
public_addr = $LAB_HOST_IP
cluster_addr = $LAB_HOST_IP
keyring = $keys
run_dir = $CEPH_D
crash_dir = $CEPH_D/crash
log_file = $CEPH_D/log/\$name.log
admin_socket = $CEPH_D/\$name.\$pid.asok
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_autoscale_mode = off
osd_pool_default_pg_num = 8
# A placement group's lease outlasts every pause of its OSD. Without a replica Ceph 16 keeps what comes between a lease's end
# and its renewal for ever ("laggy", "waiting for readable": github.com/ceph/ceph-container, issue 1682).
osd_pool_default_read_lease_ratio = 1000
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_crit = 1
mon_data_avail_warn = 2
paxos_propose_interval = 0.1
[mon]
mon_data = $CEPH_D/mon
pid_file = $CEPH_D/mon.pid
[mgr]
mgr_data = $CEPH_D/mgr
mgr_initial_modules =
pid_file = $CEPH_D/mgr.pid
[osd]
osd_data = $CEPH_D/osd
osd_objectstore = memstore
memstore_device_bytes = $CEPH_OSD_MEMORY
pid_file = $CEPH_D/osd.pid
CONF
  ceph_key() { ceph-authtool "$keys" --gen-key -n "$@" >/dev/null; }
  ceph-authtool --create-keyring "$keys" >/dev/null
  ceph_key mon. --cap mon 'allow *'
  ceph_key client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  ceph_key client.lun --cap mon 'profile rbd' --cap osd 'profile rbd pool=rbd' --cap mgr 'profile rbd pool=rbd'
  ceph_key osd.0 --cap mon 'allow *' --cap osd 'allow *'
  ceph_key mgr.x --cap mon 'allow *' --cap osd 'allow *'
  local user
  for user in admin lun; do
    ceph-authtool -n "client.$user" -p "$keys" | sed "1i [client.$user]
      s/^/key = /" >"$guest/ceph.client.$user.keyring"
  done
}

# ceph_do WHAT COMMAND...: COMMAND within 60 s, or a sentence that names the log.
ceph_do() {
  local what=$1
  shift
  timeout 60 "$@" >>"$CEPH_D/log/up.log" 2>&1 ||
    die "Ceph: $what failed: $(tail -n 3 "$CEPH_D/log/up.log" | tr '\n' ' ')(logs were in $CEPH_D/log; LAB_KEEP=1 keeps them)"
}

ceph_start() {
  export CEPH_CONF=$CEPH_D/ceph.conf
  local fsid osd
  fsid=$(sed -n 's/^fsid = //p' "$CEPH_CONF")
  osd=$(cat /proc/sys/kernel/random/uuid)
  ceph_do "making the monitor map" monmaptool --create --fsid "$fsid" --addv a "[v2:$LAB_HOST_IP:40001]" "$CEPH_D/monmap"
  ceph_do "making the monitor" ceph-mon -i a --mkfs --monmap "$CEPH_D/monmap" --keyring "$CEPH_D/keyring"
  ceph_do "starting the monitor" "${CEPH_PIN[@]}" ceph-mon -i a
  ceph_do "starting the manager" "${CEPH_PIN[@]}" ceph-mgr -i x
  ceph_do "registering the OSD" ceph osd new "$osd" 0
  # The same UUID as registered, or the OSD never comes up.
  ceph_do "making the OSD" ceph-osd -i 0 --mkfs --osd-uuid "$osd"
  ceph_do "starting the OSD" "${CEPH_PIN[@]}" ceph-osd -i 0
  ceph_do "creating pool rbd" ceph osd pool create rbd 8
  ceph_do "naming pool rbd" ceph osd pool application enable rbd rbd
  ceph_do "writing to pool rbd" rados -p rbd put lab-probe /dev/null
  ceph_do "cleaning pool rbd" rados -p rbd rm lab-probe
  say "ceph: up (pool rbd, users client.admin and client.lun)"
}

# ceph_pid osd|mon|mgr: its process id, checked to be this lab's.
ceph_pid() {
  local pid
  [[ $1 =~ ^(osd|mon|mgr)$ ]] || die "no Ceph daemon '$1'; one of osd, mon, mgr"
  pid=$(cat "$CEPH_D/$1.pid" 2>/dev/null) || die "Ceph is not up; run: lab up"
  lab_pids | grep -qx "$pid" || die "ceph-$1 ($pid) has died; see $CEPH_D/log"
  echo "$pid"
}

# shellcheck shell=bash
# second-osd.sh - a second OSD and a pool on it alone, so that one pool can be without its OSD and the other not. Sourced
# after lib.sh.
#   second_osd_up POOL      ends when POOL can be written to; every pool that was there stays on the first OSD
#   second_osd_down POOL    the reverse; also after a partial `up`

second_osd_up() {
  timeout 100 "$LAB" ns bash -eu -s "$1" <<'END'
D=$LAB_DIR/ceph pool=$1
exec >>"$D/log/second-osd.log" 2>&1
osd=(-i 1 --osd-data "$D/osd1" --keyring "$D/osd1.keyring" --pid-file "$D/osd1.pid")
ceph config set osd osd_class_update_on_start false
ceph osd crush rm-device-class 0
ceph osd crush set-device-class first 0
ceph osd crush rule create-replicated on-first default osd first
for old in $(ceph osd pool ls); do ceph osd pool set "$old" crush_rule on-first; done
uuid=$(cat /proc/sys/kernel/random/uuid)
ceph osd new "$uuid" 1
ceph osd crush set-device-class second 1
ceph auth get-or-create osd.1 mon 'allow *' osd 'allow *' -o "$D/osd1.keyring"
mkdir -p "$D/osd1"
ceph-osd "${osd[@]}" --mkfs --osd-uuid "$uuid"
ceph-osd "${osd[@]}"
ceph osd crush rule create-replicated on-second default osd second
ceph osd pool create "$pool" 8 8 on-second
ceph osd pool application enable "$pool" rbd
timeout 60 rados -p "$pool" put lab-probe /dev/null
rados -p "$pool" rm lab-probe
END
}

second_osd_down() {
  timeout 100 "$LAB" ns bash -u -s "$1" <<'END' >/dev/null 2>&1
D=$LAB_DIR/ceph pool=$1
ceph config set mon mon_allow_pool_delete true
ceph osd pool delete "$pool" "$pool" --yes-i-really-really-mean-it
if [[ -e $D/osd1.pid ]]; then
  pid=$(cat "$D/osd1.pid")
  kill -CONT "$pid"; kill -KILL "$pid"
fi
ceph osd down 1
ceph osd purge 1 --yes-i-really-mean-it
ceph auth rm osd.1
ceph osd crush rule rm on-second
rm -rf "$D/osd1" "$D/osd1.pid" "$D/osd1.keyring"
END
}

#!/usr/bin/env bash
# targetcli saveconfig and restoreconfig, with the real targetcli: after all was cleared, and in the
# place of what is there (onto what is there targetcli itself restores nothing). Its attributes, written again, are taken.
# limit: 300
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

image restore0 64M
image restore1 64M
output=$(gw 200 <<'END'
serve
cli() { timeout 60 targetcli "$@" >/tmp/cli.out 2>&1; echo "$1 $?"; [[ $? == 0 ]]; grep -iE 'error|could not|skipped|invalid|exist' /tmp/cli.out | head -n 5; }
lun_create restore0 rbd/restore0 64M max_data_area_mb=16 >/dev/null && lun_create restore1 rbd/restore1 64M >/dev/null || exit
timeout 60 targetcli /iscsi create $IQN >/dev/null && timeout 60 targetcli /iscsi/$IQN/tpg1/luns create /backstores/user:rbd/restore0 >/dev/null &&
  timeout 60 targetcli /iscsi/$IQN/tpg1/luns create /backstores/user:rbd/restore1 >/dev/null && echo made
attributes() { for n in restore0 restore1; do d=$(lun_path $n); for a in dev_size dev_config emulate_write_cache max_data_area_mb; do cat "$d/attrib/$a"; done; cat "$d/wwn/vpd_unit_serial"; done; ls $TARGET/iscsi/$IQN/tpgt_1/lun; }
attributes >/tmp/before
cli saveconfig /tmp/saved.json
cli clearconfig confirm=True
ls -d $TARGET/core/user_*/restore? 2>/dev/null
cli restoreconfig /tmp/saved.json
attributes | cmp - /tmp/before && echo "restored as it was"
cli restoreconfig /tmp/saved.json clear_existing=True
attributes | cmp - /tmp/before && echo "replaced as it was"
for n in restore0 restore1; do
  d=$(lun_path $n)
  # What restoring writes, once more, on a live device.
  for a in dev_config dev_size emulate_write_cache; do
    v=$(cat "$d/attrib/$a"); (echo -n "$v" >"$d/attrib/$a") 2>/tmp/err || echo "$n $a=$v: $(cat /tmp/err)"
  done
done
echo "written again"
END
)
sed 's/^/      /' <<<"$output"
matches "made" $'(^|\n)made\n' "$output"
matches "saved" 'saveconfig 0' "$output"
is "restoreconfig exits 0, twice" 2 "$(grep -c '^restoreconfig 0' <<<"$output")"
is "nothing was skipped or refused" "" "$(grep -iE 'error|could not|skipped|invalid|: .*(denied|failed)' <<<"$output")"
matches "as it was, twice" 'restored as it was.*replaced as it was' "${output//$'\n'/ }"
ok "nothing left, daemon stopped" gw <<<'timeout 60 targetcli clearconfig confirm=True >/dev/null; clean'
no_watcher restore0
finish

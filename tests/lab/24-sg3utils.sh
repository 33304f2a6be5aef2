#!/usr/bin/env bash
# sg3_utils and ddpt do what their manuals say, on LUNs of 512 and 4096 byte blocks, over tcm_loop and iSCSI.
# shellcheck disable=SC1091
. "$(dirname "$0")/lib.sh"

# tool STATUS REGEX COMMAND is noted; `tools GUEST` runs what is noted, in order, in /tmp of that guest, and looks at each
# status and output. The statuses are those of sg3_utils(8).
GOOD=0 NOT_READY=2 ILLEGAL=5 OPCODE=9 ABORTED=10 MISCOMPARE=14 RANGE=22
MEANS_CDB='Invalid field in cdb' MEANS_LIST='Invalid field in parameter list'
statuses=() regexes=() commands=()
tool() { statuses+=("$1") regexes+=("$2") commands+=("$3"); }
tools() {
  local output k=0 line found='' list
  list=$(printf 'run %q\n' "${commands[@]}")
  output=$(in_guest "$1" 120 <<END
cd /tmp
run() { eval "\$1" 2>&1; echo "@@ \$?"; }
same() { dd if=\$1 bs=1M skip=\$((\$2 * \$3)) count=\$((\$2 * \$4)) iflag=direct,skip_bytes,count_bytes status=none | cmp - <(dd if=\$5 bs=1M skip=\$((\$2 * \${6:-0})) count=\$((\$2 * \$4)) iflag=skip_bytes,count_bytes status=none); } # DISK BS LBA COUNT FILE [AT]
zeros() { same \$1 \$2 \$3 \$4 /dev/zero; }
fill() { dd if=\$2 of=\$1 bs=1M oflag=direct status=none; } # DISK FILE
end_of() { local n; for ((n = 0; n < 300; n++)); do [[ -n \$(sg_requests -p \$1) ]] || return 0; sleep 0.1; done; return 1; }
$list
END
)
  while IFS= read -r line; do
    if [[ $line == '@@ '* ]]; then
      if [[ ${line#@@ } == "${statuses[k]}" && $found =~ ${regexes[k]} ]]; then pass "${commands[k]}"; else
        fail "${commands[k]}" "status ${statuses[k]} and a match of '${regexes[k]}'" "status ${line#@@ }: '$found'"
      fi
      k=$((k + 1)) found=
    else found+=$line$'\n'; fi
  done <<<"$output"
  is "commands run on the $1" ${#commands[@]} $k
  statuses=() regexes=() commands=()
}
# used IMAGE: MiB that are allocated
used() { echo $(($(ceph rbd du "rbd/$1" --format json | jq '.images[0].used_size') >> 20)); }
# lines SPEC...: a regex that wants these one after the second, with anything in between
lines() { local IFS=; printf '%s' "$1"; shift; printf '.*%s' "$@"; }

for lun in b512 b4096 second; do image $lun 64M; done
image sparse 32G --image-feature layering,exclusive-lock
lines_before=$(gw <<<'cat /var/log/tcmu-runner.log 2>/dev/null | wc -l')
names=$(gw <<'END'
serve && backstore b512 rbd/b512 64 hw_max_sectors=1024 && backstore b4096 rbd/b4096 64 hw_block_size=4096,hw_max_sectors=256 &&
  backstore second rbd/second 64 && backstore sparse rbd/sparse 32768 || exit
group=$(lun_path second)/alua/ag
mkdir "$group" && echo 16 >"$group/tg_pt_gp_id" && echo 1 >"$group/alua_access_type" && echo 0 >"$group/alua_access_state" || exit
for lun in b512 b4096 second sparse; do
  echo 0 >"$(lun_path $lun)/attrib/cmd_time_out" # else the log says, rightly, that it should be
  sd=$(loop_export $lun) && sg=$(ls "/sys/block/${sd#/dev/}/device/scsi_generic") || exit
  serial=$(sed -n '1s/.*: //p' "$(lun_path $lun)/wwn/vpd_unit_serial")
  echo "$lun $sd /dev/$sg $serial"
done
cd /tmp && head -c 12M /dev/urandom >r && head -c 1024 r >two && truncate -s 8192 ones && tr '\0' '\377' <ones >ff
# The logical OR of the first 8 KiB of r and its second.
python3 -c 'r = open("r", "rb").read(16384); open("or", "wb").write(bytes(a | b for a, b in zip(r, r[8192:])))'
python3 -c 'r = open("r", "rb").read(37); open("p512", "wb").write((r * 14)[:512] * 8192)'
head -c 37 r >p37
END
)
is "LUNs" 4 "$(grep -c '/dev/sg' <<<"$names")"
sd() { awk -v lun="$1" '$1 == lun { print $2 }' <<<"$names"; }
sg() { awk -v lun="$1" '$1 == lun { print $3 }' <<<"$names"; }
serial() { awk -v lun="$1" '$1 == lun { print $4 }' <<<"$names"; }
# NAA 6, LIO's company 001405, and the first 25 hexadecimal digits of the serial
naa() { local hex; hex=$(serial "$1" | tr -d -); echo "6001405${hex:0:25}"; }

# Operation code, service action, CDB length. REPORT LUNS, PERSISTENT RESERVE, RESERVE and RELEASE are not in the list:
# the kernel answers them, and the list is the handler's.
COMMANDS="00 - 6,03 - 6,04 - 6,08 - 6,0a - 6,12 - 6,15 - 6,1a - 6,1b - 6,1e - 6,25 - 10,28 - 10,2a - 10,2e - 10,2f - 10,34 - 10,35 - 10,\
37 - 10,41 - 10,42 - 10,48 1 10,48 2 10,48 1f 10,4d - 10,55 - 10,5a - 10,7f 12 32,83 0 16,84 0 16,84 3 16,84 4 16,88 - 16,89 - 16,8a - 16,8b - 16,\
8e - 16,8f - 16,90 - 16,91 - 16,93 - 16,9c - 16,9e 10 16,9e 12 16,a3 c 12,a3 d 12,a8 - 12,aa - 12,ae - 12,af - 12,b7 - 12"
opcodes() { gw <<<"sg_opcodes $1" | awk '/^ [0-9a-f][0-9a-f] / { print $1, $3 ~ /,/ ? "- " $2 : $2 " " $3 }' | sort | paste -sd,; }
expected() { tr , '\n' <<<"$COMMANDS" | grep -vE "^(${1:-none})" | cat - <(echo -n "${2:-}") | sort | paste -sd,; }

# What the LUN says of itself.
for bs in 512 4096; do
  lun=b$bs n=$((67108864 / bs)) sg=$(sg b$bs) caw='1 blocks' longest=1024
  ((bs == 512)) || caw='0 blocks' longest=256
  tool $GOOD "$(lines 'PDT=0  RMB=0' 'version=0x05' 'TPGS=0  3PC=1  Protect=0' 'CmdQue=1' 'length=74 ' 'Vendor identification: LIO-ORG' \
    'Product identification: TCMU device' 'Product revision level: 0002' "Unit serial number: $(serial $lun)" \
    SAM-4 SPC-3 'SBC-3 \(no version')" "sg_inq -d $sg"
  tool $GOOD "$(lines 'Unit serial number \[sn\]' 'Device identification \[di\]' 'Extended inquiry data \[ei\]' 'Block limits' \
    'Block device characteristics' 'Logical block provisioning' "Unit serial number: $(serial $lun)" \
    'designator type: T10 vendor identification,  code set: ASCII' 'vendor id: LIO-ORG' "vendor specific: $(serial $lun)" \
    'designator type: NAA,  code set: Binary' "0x$(naa $lun)" "vendor specific: rbd/rbd/$lun" 'SIMPSUP=1' 'V_SUP=0' \
    '\(WSNZ\): 1' "compare and write length: $caw" "Maximum transfer length: $longest blocks" "Maximum unmap LBA count: $((4 * 4194304 / bs))" \
    'unmap block descriptor count: 4' "Optimal unmap granularity: $((65536 / bs)) blocks" 'alignment valid: true' \
    "granularity alignment: $((65536 / bs))"$'\n' "Maximum atomic transfer length: $((16384 / bs)) blocks" "Atomic alignment: $((16384 / bs))" \
    "Atomic transfer length granularity: $((16384 / bs))" 'with atomic boundary: 0 blocks' 'Maximum atomic boundary size: 0 blocks' \
    'WABEREQ=1' 'WACEREQ=0' '\(LBPU\): 1' '\(LBPWS\): 1' '\(LBPWS10\): 1' '\(LBPRZ\): 1' '\(ANC_SUP\): 0')" "sg_vpd -a $sg"
  tool $ILLEGAL "$MEANS_CDB" "sg_vpd -v -f -p 0xb5 $sg"
  tool $GOOD "Last LBA=$((n - 1)) .*Number of logical blocks=$n.*block length=$bs bytes.*67108864 bytes" "sg_readcap $sg"
  tool $GOOD "$(lines 'prot_en=0' 'lbpme=1, lbprz=1' "Last LBA=$((n - 1)) " "block length=$bs bytes" 'exponent=0' 'aligned LBA=0')" "sg_readcap --16 $sg"
  tool $GOOD "$(lines 'WP=0, DpoFua=1' 'recovery, page_control: current' '01 0a' 'Caching, page_control: current' '08 12 00' 'Control, page_control: current' '0a 0a')" "sg_modes -a $sg"
  tool $GOOD 'MODE SENSE\(6\).*08 12 00' "sg_modes -6 -p 8 $sg"
  tool $ILLEGAL "$MEANS_CDB" "sg_modes -v -p 0x1c $sg"
  tool $GOOD "$(lines '0x00 +Supported log pages' '0x00,0xff +Supported log pages and subpages')" "sg_logs -p 0,0xff $sg"
  tool $ILLEGAL "$MEANS_CDB" "sg_logs -v -p 0x2f $sg"
  tool $GOOD 'LIO-ORG' "sg_logs -a $sg"
  tool $GOOD 'No Sense.*No additional sense' "sg_requests $sg"
  tool $GOOD 'Descriptor format.*No Sense' "sg_requests -d $sg"
  tool $GOOD '^$' "sg_turs $sg"
  tool $OPCODE 'not supported' "sg_rtpg -d $sg"
  tool $GOOD 'Abort task.*Logical unit reset' "sg_opcodes --tmf $sg"
  tool $GOOD 'Usage data: 28 1a ff ff ff ff .. ff ff 00' "sg_opcodes -o 0x28 $sg"
  tool $GOOD 'NOT supported' "sg_opcodes -o 0x48,3 $sg"
  tool $ILLEGAL "$MEANS_CDB" "sg_opcodes -v -o 0x9e $sg" # REPORTING OPTIONS 001b, but it has service actions
  tool $GOOD "$(lines '\(SNLID\): yes' 'Inline data not supported' "Data segment granularity: $bs bytes" '0x02: Copy from block' '0xe4: Ident')" "sg_copy_results --params $sg"
  tool $ILLEGAL 'Illegal request' "sg_copy_results --status --list_id=9 $sg"
done
tools gateway
is "sg_opcodes, 512 byte blocks" "$(expected)" "$(opcodes "$(sg b512)")"
is "sg_opcodes, 4096 byte blocks: as librbd compares 512 bytes, no COMPARE AND WRITE, no ORWRITE" "$(expected '89|8b')" "$(opcodes "$(sg b4096)")"

# What they do with data. An object is 4 MiB.
for bs in 512 4096; do
  lun=b$bs n=$((67108864 / bs)) o=$((4194304 / bs)) d="$(sd b$bs) $bs" sg=$(sg b$bs) k=$((8192 / bs))
  tool $GOOD "LBA: 0x0+  blocks: +$n  deallocated" "sg_get_lba_status $sg"
  tool $GOOD '^$' "fill ${d% *} r && dd if=r of=block bs=$bs count=1 status=none && dd if=r of=last bs=$bs count=1 skip=1 status=none"
  tool $GOOD "0x0+  blocks: +$((3 * o))  mapped.*LBA: 0x0*$(printf %x $((3 * o)))  blocks: +$((13 * o))  deallocated" "sg_get_lba_status -m 1024 $sg"
  tool $GOOD "^0x0*$(printf %x $((n - 1)))  0x1  1  0" "sg_get_lba_status -b -l $((n - 1)) $sg | tail -n 1"
  tool $RANGE 'LBA out of range' "sg_get_lba_status -l $n $sg"

  tool $GOOD '^$' "sg_verify -l 0 -c $((3 * o)) $sg"
  tool $GOOD '^$' "sg_verify -E 1 -n 8192 -i r -l 0 -c $k $sg"
  tool $GOOD '^$' "sg_verify -S -E 1 -n 8192 -i r -l 0 -c $k $sg"
  tool $GOOD '^$' "head -c 8192 r >bent && printf '\\0\\1\\2\\3' | dd of=bent bs=1 seek=5000 conv=notrunc status=none"
  # The first block that differs
  tool $MISCOMPARE "Miscompare during verify.*Info fld=0x$(printf %x $((5000 / bs))) .*MISCOMPARE" "sg_verify -v -S -E 1 -n 8192 -i bent -l 0 -c $k $sg"
  tool $GOOD '^$' "sg_verify -S -E 3 -n $bs -i block -l 0 -c 1 $sg"
  tool $MISCOMPARE 'MISCOMPARE' "sg_verify -S -E 3 -n $bs -i block -l 0 -c 2 $sg"
  tool $RANGE 'LBA out of range' "sg_verify -l $((n - 1)) -c 2 $sg"

  tool $GOOD '^$' "sg_write_same -i block -l $((4 * o)) -n $o $sg && same $d $((4 * o)) 1 block && same $d $((5 * o - 1)) 1 block"
  tool $GOOD '^$' "zeros $d $((4 * o - 1)) 1 && zeros $d $((5 * o)) 1 && sg_verify -S -E 3 -n $bs -i block -l $((4 * o)) -c $o $sg"
  tool $GOOD '^$' "sg_write_same -R -i last -l $((4 * o + 7)) -n 3 $sg && same $d $((4 * o + 8)) 1 last && same $d $((4 * o + 10)) 1 block"
  tool $GOOD '^$' "sg_write_same -S -U -i block -l $((6 * o)) -n 9 $sg && same $d $((6 * o + 8)) 1 block" # no zeros: written
  tool $GOOD '^$' "sg_write_same -S -U -i /dev/zero -x $bs -l $((4 * o)) -n $o $sg && zeros $d $((4 * o)) $o"
  tool $GOOD '^$' "sg_write_same -S -N -l $((6 * o)) -n 8 $sg && zeros $d $((6 * o)) 8 && same $d $((6 * o + 8)) 1 block"
  tool $GOOD '^$' "sg_write_same -S -N -U -l $((6 * o)) -n $o $sg && zeros $d $((6 * o)) $o"
  tool $ILLEGAL "$MEANS_CDB" "sg_write_same -v -i block -l 0 -n 0 $sg"
  tool $ILLEGAL "$MEANS_CDB" "sg_write_same -v -S -U -a -i block -l 0 -n 1 $sg"
  tool $RANGE 'LBA out of range' "sg_write_same -i block -l $((n - 1)) -n 2 $sg"

  if ((bs == 512)); then
    tool $GOOD '^$' "cat block last >pair && sg_compare_and_write -i pair -l 0 $sg && same $d 0 1 last"
    tool $MISCOMPARE 'Miscompare at byte offset: 0 ' "sg_compare_and_write -i pair -l 0 $sg"
    tool $GOOD '^$' "cp last bent1 && printf x | dd of=bent1 bs=1 seek=300 conv=notrunc status=none; ! cmp -s bent1 last; cat bent1 block >pair"
    tool $MISCOMPARE 'Sense key: Miscompare.*Info fld=0x12c .*Miscompare at byte offset: 300 ' "sg_compare_and_write -v -i pair -l 0 $sg"
    tool $GOOD '^$' "same $d 0 1 last && same $d 1 100 r 1"
    tool $ILLEGAL "$MEANS_CDB" "cat two two >four; sg_compare_and_write -v -i four -n 2 -l 0 $sg" # MAXIMUM COMPARE AND WRITE LENGTH is 1
    tool $RANGE 'LBA out of range' "sg_compare_and_write -i pair -l $n $sg"
    tool $GOOD '^$' "dd if=r of=second bs=8192 skip=1 count=1 status=none && fill ${d% *} r && sg_write_x --or --in=second --lba=0 --num=$k $sg && same $d 0 $k or"
  else
    tool $OPCODE 'not supported|Invalid opcode' "cat block last >pair; sg_compare_and_write -i pair -l 0 $sg"
    tool $OPCODE 'not supported|[Ii]nvalid opcode' "sg_write_x --or --in=block --lba=0 --num=1 $sg"
    tool $GOOD '^$' "same $d 0 100 r"
  fi
  tool $GOOD '^$' "head -c 16384 r >a16 && sg_write_x --atomic=0 --in=a16 --lba=$((7 * o)) --num=$((16384 / bs)) $sg && same $d $((7 * o)) $((16384 / bs)) r"
  tool $ILLEGAL "$MEANS_CDB" "sg_write_x -v --atomic=0 --in=a16 --lba=$((7 * o + 1)) --num=$((16384 / bs)) $sg"
  # Half in one object, half in the next
  tool $ILLEGAL "$MEANS_CDB" "head -c 32768 r >a32; sg_write_x -v --atomic=0 --in=a32 --lba=$((9 * o - 16384 / bs)) --num=$((32768 / bs)) $sg"
  tool $GOOD '^$' "zeros $d $((9 * o - 16384 / bs)) $((32768 / bs)) && same $d $((7 * o)) $((16384 / bs)) r"

  # The first 64 KiB that are not at the start of an object; then an object; then what the limits forbid.
  tool $GOOD '^$' "fill ${d% *} r && sg_unmap -f -l $((65536 / bs)),$((2 * o)) -n 3,$o $sg && zeros $d $((65536 / bs)) 3 && zeros $d $((2 * o)) $o"
  tool $GOOD '^$' "same $d 0 $((65536 / bs)) r && same $d $((65536 / bs + 3)) $((o - 65536 / bs)) r $((65536 / bs + 3)) && same $d $((2 * o - 1)) 1 r $((2 * o - 1))"
  tool $GOOD "^0x0*$(printf %x $((2 * o)))  0x[0-9a-f]+  1  0" "sg_get_lba_status -b -l $((2 * o)) $sg | tail -n 1"
  tool $ILLEGAL "$MEANS_LIST" "sg_unmap -v -f -l 0,1,2,3,4 -n 1,1,1,1,1 $sg"
  tool $ILLEGAL "$MEANS_LIST" "sg_unmap -v -f -l 0 -n $((4 * o + 1)) $sg"
  tool $ILLEGAL "$MEANS_CDB" "sg_unmap -v -f -a -l 0 -n 1 $sg"
  tool $RANGE 'LBA out of range' "sg_unmap -f -l $((n - 1)) -n 2 $sg"
  tool $GOOD '^$' "same $d 0 $((65536 / bs)) r"
done
tools gateway
for lun in b512 b4096; do at_most "rbd du: MiB of rbd/$lun, all but the objects 0, 1 and 7 given back" 12 "$(used $lun)"; done

# Copies.
for bs in 512 4096; do
  n=$((67108864 / bs)) o=$((4194304 / bs)) d="$(sd b$bs) $bs" sg=$(sg b$bs) m=$((1048576 / bs))
  tool $GOOD '^$' "fill ${d% *} r"
  tool $GOOD "sg_xcopy: $((2 * m)) blocks" "sg_xcopy if=$sg of=$sg bs=$bs skip=3 seek=$((8 * o)) count=$((2 * m))"
  tool $GOOD '^$' "same $d $((8 * o)) $((2 * m)) r 3 && zeros $d $((8 * o + 2 * m)) 1 && zeros $d $((8 * o - 1)) 1"
  # Overlapping, up and down: the source as it was before
  tool $GOOD "$((2 * m)) blocks" "sg_xcopy if=$sg of=$sg bs=$bs skip=$((8 * o)) seek=$((8 * o + 100)) count=$((2 * m))"
  tool $GOOD '^$' "same $d $((8 * o)) 100 r 3 && same $d $((8 * o + 100)) $((2 * m)) r 3"
  tool $GOOD "$m blocks" "sg_xcopy if=$sg of=$sg bs=$bs skip=100 seek=1 count=$m"
  tool $GOOD '^$' "same $d 0 1 r && same $d 1 $m r 100 && same $d $((m + 1)) $((2 * m)) r $((m + 1))"
  tool $GOOD '[1-9][0-9]* xcopy command' "ddpt --xcopy if=$sg of=$sg bs=$bs skip=$o seek=$((9 * o)) count=$o"
  tool $GOOD '^$' "same $d $((9 * o)) $o r $o"
  tool $ABORTED 'Sense key: Copy Aborted' "sg_xcopy -vvv if=$sg of=$sg bs=$bs skip=0 seek=$((n - 1)) count=2"
  tool $ABORTED 'Copy aborted' "ddpt --xcopy if=$sg of=$sg bs=$bs skip=$((n - 1)) seek=0 count=2"
  tool $GOOD '^$' "zeros $d $((n - 1)) 1 && same $d 0 1 r"
done
one=$(sg b512) two=$(sg second)
for way in "if=$one of=$two" "if=$two of=$one" "if=$one of=$two --on_src" "if=$one of=$two --on_dst" "if=$one of=$(sg b4096)"; do
  tool $ABORTED 'Copy Aborted.*Copy target device not reachable' "sg_xcopy -vvv $way count=16"
done
tool $ABORTED 'Copy Aborted.*Copy target device not reachable' "ddpt -vvv --xcopy if=$one of=$two bs=512 count=16"
tool $GOOD '^$' "zeros $(sd second) 512 0 128 && same $(sd b512) 512 0 1 r"
tools gateway
is "quietly: WARN and ERROR in the log" "" "$(gw <<<"tail -n +$((lines_before + 1)) /var/log/tcmu-runner.log | grep -E '\[(WARN|ERROR)'")"

# The group's state as the kernel has it. After each change the kernel tells of it once.
states=("active/optimized" "active/non optimized" standby unavailable)
# shellcheck disable=SC2016
lun=$(gw <<<'ls -d "$TARGET"/loopback/*/tpgt_1/lun/lun_0/second')
sg=$(sg second)
tool $GOOD '^$' "echo ag >${lun%/second}/alua_tg_pt_gp; sg_turs $sg >/dev/null 2>&1; true"
for state in 1 2 3 0; do
  tool $GOOD '^$' "echo $((state & 1)) >\$(lun_path second)/alua/ag/preferred; echo $state >\$(lun_path second)/alua/ag/alua_access_state; sg_rtpg $sg >/dev/null 2>&1; true"
  tool $GOOD "$(lines 'target port group id : 0x10 , Pref='$((state & 1)) "state : 0x0$state \(${states[state]}\)" 'O_SUP : 1, LBD_SUP : 0, U_SUP : 1, S_SUP : 1, AN_SUP : 1, AO_SUP : 1' 'target port count : 01' '0x01')" "sg_rtpg -d $sg"
  tool $GOOD "Implicit transition time: .*0x10 .*state : 0x0$state " "sg_rtpg -e -d $sg"
done
tool $GOOD 'TPGS=1' "sg_inq $sg"
tool $GOOD "0x$(naa second).*Relative target port: 0x1.*Target port group: 0x10" "sg_vpd -p di $sg"
tools gateway
is "sg_opcodes, with a target port group" "$(expected '' 'a3 a 12')" "$(opcodes "$sg")"

# SANITIZE. Ceph stands still while it runs: whatever is asked meanwhile is answered without it.
tool $GOOD '^$' "fill $(sd second) r"
tool $ILLEGAL "$MEANS_CDB" "sg_sanitize -vv --crypto --quick --early $sg"
tool $ILLEGAL "$MEANS_CDB" "sg_sanitize -vv --block -Z --quick --early $sg"
tool $GOOD '' "sg_sanitize --fail --quick --early $sg"
tool $GOOD '^$' "same $(sd second) 512 0 24576 r"
tool $GOOD '' "sg_sanitize --overwrite --pattern=p37 --count=31 --quick --early $sg"
tools gateway
progress() { gw <<<"sg_requests -p $sg" | sed -n 's/Progress indication: \(.*\)% done/\1/p'; }
ok "Ceph's OSD is stopped" "$LAB" ceph-pause
before=$(progress)
matches "sg_requests -p: progress" '^[0-9.]+$' "$before"
in_progress='Not Ready.*sanitize in progress'
tool $GOOD "$(lines 'Sense key: Not Ready' 'sanitize in progress' 'Progress indication: [0-9.]+%')" "sg_requests $sg"
tool $GOOD "Descriptor format.*$in_progress" "sg_requests -d $sg"
tool $GOOD 'Progress indication: [0-9.]+% done' "sg_requests -d -p $sg"
tool $NOT_READY 'sanitize in progress' "sg_requests -s $sg"
tool $NOT_READY "$in_progress" "sg_turs -v $sg"
for command in "sg_verify -v -c 1" "sg_unmap -v -f -l 0 -n 1" "sg_get_lba_status -v" "sg_sanitize -vv --block --quick --early" "sg_format -v --format --quick --early"; do
  tool $NOT_READY "$in_progress" "$command $sg"
done
tool $GOOD 'LIO-ORG' "sg_inq $sg"
tool $GOOD 'Number of logical blocks=131072' "sg_readcap $sg"
tool $GOOD 'lbpme=1' "sg_readcap --16 $sg"
tool $GOOD '08 12' "sg_modes -p 8 $sg"
tool $GOOD 'Command is supported' "sg_opcodes -o 0 $sg"
tool $GOOD 'Abort task' "sg_opcodes --tmf $sg"
tool $GOOD 'list length = 8' "sg_luns $sg"
tools gateway
between "it stands still too" "$before" "$(awk -v b="$before" 'BEGIN { print b + 3.3 }')" "$(progress)"
ok "Ceph's OSD goes on" "$LAB" ceph-resume
found=$(gw 150 <<<"end=\$((SECONDS + 120)); while ((SECONDS < end)); do p=\$(sg_requests -p $sg); [[ -n \$p ]] || break; echo \$p; done" | grep -o '[0-9.]*%')
is "progress only grows" "$(sort -n <<<"$found")" "$found"
between "from where it stood" "$(awk -v b="$before" 'BEGIN { print b + 0.01 }')" 100 "$(tail -n 1 <<<"${found//%/}")"
tool $GOOD '^$' "sg_turs $sg && cmp p512 <(dd if=$(sd second) bs=1M count=4 iflag=direct status=none) && cmp p512 <(dd if=$(sd second) bs=1M skip=60 iflag=direct status=none)"
tool $GOOD '' "sg_sanitize --block --quick --wait $sg"
tool $GOOD '' "zeros $(sd second) 512 0 131072 && sg_get_lba_status $sg | grep -E 'blocks: +131072  deallocated'"
tool $GOOD '' "fill $(sd second) r && sg_sanitize --overwrite -zz --quick --wait $sg && same $(sd second) 512 131056 16 ff && same $(sd second) 512 0 16 ff"
tool $GOOD '' "sg_format --format --quick --wait $sg && zeros $(sd second) 512 0 131072"

# FORMAT UNIT, of a disk whose 8192 objects take their time though none exists.
tool $ILLEGAL "$MEANS_CDB" "sg_format -v --format --quick --early --fmtpinfo=2 $(sg sparse)"
tool $ILLEGAL "$MEANS_LIST" "sg_format -v --format --quick --early --pfu=1 $(sg sparse)"
tool $GOOD '' "fill $(sd sparse) r && sg_format --format --quick --early $(sg sparse)"
tool $GOOD 'Not Ready.*format in progress.*Progress indication: [0-9.]+%' "sg_requests $(sg sparse)"
tool $NOT_READY 'Not Ready.*format in progress' "sg_turs -v $(sg sparse)"
tool $NOT_READY 'Not Ready.*format in progress' "sg_verify -v -c 1 $(sg sparse)"
tool $GOOD 'LIO-ORG' "sg_inq $(sg sparse)"
tool $GOOD '^$' "end_of $(sg sparse) && sg_turs $(sg sparse) && zeros $(sd sparse) 512 0 24576"
tools gateway
is "rbd du after FORMAT UNIT" 0 "$(used second)"

# Over iSCSI, the same LUN: the same name, data, and errors.
gw <<'END' >/dev/null
iscsi_export "$IQN" b512 && iscsi_allow "$IQN" "$CLIENT"
END
# shellcheck disable=SC2016
disk=$(ini <<<'iscsi_login "$IQN" gateway && iscsi_disk "$IQN" 0')
matches "a disk over iSCSI" '^/dev/sd' "$disk"
tool $GOOD 'LIO-ORG.*TCMU device' "sg_inq $disk"
tool $GOOD "0x$(naa b512)" "sg_vpd -p di $disk"
tool $GOOD 'Number of logical blocks=131072' "sg_readcap $disk"
tool $GOOD '^$' "head -c 1024 /dev/urandom >pair && head -c 512 pair >a && tail -c 512 pair >b && sg_write_same -i a -l 16 -n 8 $disk && sg_compare_and_write -i pair -l 17 $disk && same $disk 512 16 1 a && same $disk 512 17 1 b"
tool $GOOD '^$' "printf '\\0\\1\\2\\3\\4\\5\\6\\7' | dd of=pair bs=1 seek=500 conv=notrunc status=none"
tool $MISCOMPARE 'Info fld=0x1f4 .*byte offset: 500 ' "sg_compare_and_write -v -i pair -l 18 $disk"
tool $GOOD '8 blocks' "sg_xcopy if=$disk of=$disk skip=16 seek=24 count=8"
tool $GOOD '^$' "same $disk 512 24 1 a && same $disk 512 25 1 b"
tool $MISCOMPARE 'Info fld=0x19 ' "sg_verify -v -S -E 3 -n 512 -i a -l 24 -c 8 $disk"
tool $GOOD '^$' "sg_unmap -f -l 16 -n 16 $disk && zeros $disk 512 16 16"
tool $RANGE 'LBA out of range' "sg_unmap -f -l 131072 -n 1 $disk"
tools initiator
# shellcheck disable=SC2016
ok "iSCSI session closed" ini <<<'iscsi_logout "$IQN"'

ceph rbd export rbd/b512 - 2>/dev/null | cmp -s - <("$LAB" exec gateway "dd if=$(sd b512) bs=1M iflag=direct status=none")
is "rbd export of rbd/b512 and the disk are equal" "0 0" "${PIPESTATUS[*]}"
# shellcheck disable=SC2016
ok "the group is gone" gw <<<'loop_unexport second && rmdir "$(lun_path second)/alua/ag"'
silent "no task waits in the kernel" <<<d_tasks
ok "LUNs deleted, daemon stopped" gw 60 <<<clean
for lun in b512 b4096 second sparse; do no_watcher $lun; done
finish

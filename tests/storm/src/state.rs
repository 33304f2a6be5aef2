//! What every block may hold after a run, for a look by another way (the image itself, another path, after a restart).
//! One line a block: `LBA SEQUENCE:HOME...`, or `LBA bits N...`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::load::{DATA, LOCKS, Load};
use crate::stamp::{BLOCK, Value};

pub(crate) fn store(load: &Load, path: &Path) -> io::Result<()> {
    let mut text = format!("run {} blocks {}\n", load.options.run, load.registers.blocks());
    for lba in 0..load.registers.blocks() {
        let _ = write!(text, "{lba}");
        if (LOCKS..DATA).contains(&lba) {
            let mut bits: Vec<_> =
                load.bits[usize::try_from(lba - LOCKS).expect("small")].known().into_iter().collect();
            bits.sort_unstable();
            text.push_str(" bits");
            for bit in bits {
                let _ = write!(text, " {bit}");
            }
        } else {
            for value in load.registers.possible(lba) {
                let _ = write!(text, " {}:{}", value.sequence, value.home);
            }
        }
        text.push('\n');
    }
    fs::write(path, text)
}

/// Compares a file or a block device with a state: (blocks, what is wrong).
pub(crate) fn verify(disk: &Path, state: &Path) -> io::Result<(u64, Vec<String>)> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "not a state file");
    let mut disk = BufReader::with_capacity(1 << 20, File::open(disk)?);
    let mut lines = BufReader::new(File::open(state)?).lines();
    let head = lines.next().ok_or_else(bad)??;
    let run: u64 = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(bad)?;
    let (mut blocks, mut wrong, mut block) = (0, Vec::new(), [0; BLOCK]);
    for line in lines {
        let line = line?;
        let mut words = line.split(' ');
        let lba = words.next().ok_or_else(bad)?;
        disk.read_exact(&mut block)?;
        blocks += 1;
        let rest: Vec<&str> = words.collect();
        if let ["bits", bits @ ..] = rest.as_slice() {
            for bit in bits {
                let n: usize = bit.parse().map_err(|_| bad())?;
                if block[n / 8] & (1 << (n % 8)) == 0 {
                    wrong.push(format!("block {lba}: bit {n} is lost"));
                }
            }
            continue;
        }
        match Value::of(&block, run) {
            Err(why) => wrong.push(format!("block {lba}: {why}")),
            Ok(value) => {
                if !rest.contains(&format!("{}:{}", value.sequence, value.home).as_str()) {
                    wrong.push(format!("block {lba} holds {value}, possible: {}", rest.join(" ")));
                }
            }
        }
    }
    Ok((blocks, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_state_is_noticed() {
        let dir = std::env::temp_dir().join(format!("storm-state-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let (disk, state) = (dir.join("disk"), dir.join("state"));
        fs::write(&state, "run 5 blocks 3\n0 7:0 8:0\n1 bits 0 9\n2 0:0\n").expect("written");
        let mut content = Value::write(8, 0).bytes(5).to_vec();
        content.extend([0; 2 * BLOCK]);
        (content[BLOCK], content[BLOCK + 1]) = (1, 2);
        let check = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut content = content.clone();
            change(&mut content);
            fs::write(&disk, &content).expect("written");
            verify(&disk, &state).expect("readable")
        };
        let old = |bytes: &mut Vec<u8>| bytes[..BLOCK].copy_from_slice(&Value::write(6, 0).bytes(5));
        assert_eq!(check(&|_| ()), (3, Vec::new()));
        assert_eq!(check(&old).1.len(), 1);
        assert_eq!(check(&|bytes| bytes[BLOCK] = 0).1, ["block 1: bit 0 is lost"]);
        assert_eq!(check(&|bytes| bytes[3 * BLOCK - 1] = 1).1.len(), 1);
        fs::remove_dir_all(&dir).expect("removed");
    }
}

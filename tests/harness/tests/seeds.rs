//! The seeds do what they are meant to; on request they are written to files for the fuzzers:
//! `WRITE_CORPUS=DIRECTORY cargo test -p fuzz-harness --test seeds`.

use fuzz_harness::seeds::{all, became};
use handler_rbd::scsi::opcode::described;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the targets are declared.
const FUZZERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz");

#[test]
fn each_seed_becomes_what_it_is_meant_to() {
    for seed in all() {
        assert_eq!(became(seed.target, &seed.bytes), seed.want, "{}/{}", seed.target, seed.name);
    }
}

#[test]
fn every_command_has_a_seed() {
    // The CDB begins at byte 8 of the input.
    let cdbs: Vec<_> = all().into_iter().filter(|seed| seed.target == "command").collect();
    for row in described() {
        let is_of_row = |input: &[u8]| {
            // Of 32 bytes: in bytes 8 and 9.
            let action = || match row.usage.len() {
                32 => u16::from_be_bytes([input[16], input[17]]),
                _ => (input[9] & 0x1f).into(),
            };
            input[8] == row.opcode && row.service_action.is_none_or(|of_row| action() == of_row)
        };
        assert!(cdbs.iter().any(|seed| is_of_row(&seed.bytes)), "{} has no seed", row.name);
    }
}

#[test]
fn every_fuzzer_has_seeds_and_every_seed_a_fuzzer() {
    let file_stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let fuzzers: BTreeSet<_> = fs::read_dir(Path::new(FUZZERS).join("fuzz_targets"))
        .unwrap()
        .map(|entry| file_stem(entry.unwrap().path()))
        .collect();
    let targets: BTreeSet<_> = all().iter().map(|seed| seed.target.to_owned()).collect();
    assert_eq!(fuzzers, targets);
    let manifest = fs::read_to_string(Path::new(FUZZERS).join("Cargo.toml")).unwrap();
    for fuzzer in fuzzers {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{fuzzer}.rs\"")),
            "{fuzzer} is not declared"
        );
    }
}

#[test]
fn seeds_are_written_to_files() {
    let temporary = tempfile::tempdir().unwrap();
    let corpus = std::env::var_os("WRITE_CORPUS").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    for seed in all() {
        let directory = corpus.join(seed.target);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(&seed.name), &seed.bytes).unwrap();
    }
    for seed in all() {
        // Under its own name: no two have the same.
        assert_eq!(fs::read(corpus.join(seed.target).join(&seed.name)).unwrap(), seed.bytes, "{}", seed.name);
    }
}

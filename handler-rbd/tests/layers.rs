//! The levels of docs/ARCHITECTURE.md: a module uses only what stands below it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module, and the modules of this crate that it may name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("scsi", &[]),
    ("block", &[]),
    ("cfgstring", &[]),
    ("log", &[]),
    ("clock", &[]),
    ("records", &["clock"]),
    ("lock_file", &[]),
    ("kernel", &[]),
    ("lun", &["scsi", "block"]),
    ("rbd", &["block", "clock"]),
    ("service", &["cfgstring"]),
    ("device", &["block", "clock", "lun", "scsi"]),
    ("daemon", &["block", "cfgstring", "clock", "device", "kernel", "log", "lun", "rbd", "scsi", "records"]),
    ("cli", &["lock_file", "records"]),
    ("serve", &["cli", "daemon", "kernel", "lock_file", "log", "records", "service"]),
];

/// Words that would betray knowledge a module must not have, outside its tests.
const MUST_NOT_NAME: &[(&str, &[&str])] = &[
    ("scsi", &["uio_ring", "ceph", "tcmu_sys", "nix::"]),
    ("lun", &["uio_ring", "ceph", "tcmu_sys", "nix::"]),
    ("block", &["ceph", "tcmu_sys", "scsi"]),
    ("device", &["rbd::", "configfs::", "netlink"]),
    ("rbd", &["scsi", "tcmu_sys", "Ring::"]),
    ("kernel", &["uio_ring", "ceph::", "scsi::"]),
];

fn sources(module: &str) -> Vec<(PathBuf, String)> {
    fn collect(path: &Path, to: &mut Vec<PathBuf>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                collect(&entry.unwrap().path(), to);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            to.push(path.to_owned());
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    for path in [root.join(module), root.join(format!("{module}.rs"))] {
        if path.exists() {
            collect(&path, &mut paths);
        }
    }
    assert!(!paths.is_empty(), "module {module} is not there");
    let is_test = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_string_lossy().contains("test");
    paths.retain(|path| !is_test(path));
    assert!(!paths.is_empty(), "module {module} has no code");
    paths.into_iter().map(|path| (path.clone(), code_of(&fs::read_to_string(path).unwrap()))).collect()
}

/// The text without comments and without what follows `#[cfg(test)]`.
fn code_of(text: &str) -> String {
    let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
    shipped.lines().filter_map(|line| line.split("//").next()).collect::<Vec<_>>().join("\n")
}

#[test]
fn imports_only_point_down() {
    for (module, allowed) in MAY_USE {
        for (path, code) in sources(module) {
            for used in code.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                assert!(
                    used == *module || allowed.contains(&used.as_str()),
                    "{} uses crate::{used}, which is not below {module}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_module_has_a_level() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let declared: BTreeSet<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let listed: BTreeSet<_> = MAY_USE.iter().map(|(module, _)| *module).collect();
    assert_eq!(declared, listed);
}

#[test]
fn nobody_knows_what_it_must_not() {
    for (module, words) in MUST_NOT_NAME {
        for (path, code) in sources(module) {
            for word in *words {
                assert!(!code.contains(word), "{} names {word}", path.display());
            }
        }
    }
}

//! Scripts refuse what they do not understand before they do anything. Each is called with words that must end it at once;
//! where it ends differently, it may begin its work.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

/// Status, standard output and standard error.
fn run(line: &str) -> (Option<i32>, String, String) {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    let mut words = line.split(' ');
    let mut command = Command::new(scripts.join(words.next().unwrap()));
    let output = command.args(words).env("DAEMON", "/nonexist").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_is_the_header() {
    for script in ["bench", "bindgen", "demo", "install", "lab-selftest"] {
        let (status, help, errors) = run(&format!("{script} --help"));
        assert_eq!((status, &*errors), (Some(0), ""), "{script}");
        assert!(help.starts_with(&format!("{script} ")) && help.lines().count() > 2, "{script}: {help}");
        assert!(!help.contains("set -e"), "{script}: {help}");
    }
}

#[test]
fn what_is_not_understood_is_refused_with_a_sentence() {
    for (line, code, sentence) in [
        ("bench --bogus", 2, "bench: unknown option --bogus; see bench --help"),
        ("bench --rounds x", 2, "bench: --rounds needs a number from 1 to 9999, not 'x'; see bench --help"),
        ("bench --rounds", 2, "bench: --rounds needs a number from 1 to 9999, not ''; see bench --help"),
        ("bench", 1, "bench: DAEMON=/nonexist is no program; without DAEMON one is built"),
        ("bindgen --bogus", 2, "bindgen: unknown option --bogus; see bindgen --help"),
        ("demo --keep --bogus", 2, "demo: unknown option --bogus; see demo --help"),
        ("demo --keep", 1, "demo: DAEMON=/nonexist is no program; without DAEMON one is built"),
        ("install --bogus", 2, "install: unknown option --bogus; see install --help"),
        ("lab-selftest --bogus", 2, "lab-selftest: unknown option --bogus; see lab-selftest --help"),
        ("lab-selftest a b", 2, "lab-selftest: one PROGRAM, not a b; see lab-selftest --help"),
        ("lab-selftest /nonexist", 1, "lab-selftest: /nonexist is no program"),
    ] {
        let (status, _, errors) = run(line);
        assert_eq!((status, errors.trim_end()), (Some(code), sentence), "{line}");
    }
}

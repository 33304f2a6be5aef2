//! The program as it is called: what it says, where, and what it ends with.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// Status, standard output and standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tcmu-rbd")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_warns_and_still_says_valid() {
    let valid = |errors: &str| (Some(0), "valid\n".to_owned(), errors.to_owned());
    assert_eq!(run(&["check", "rbd/img;osd_op_timeout=30"]), valid(""));
    let unknown = "is not known; known are osd_op_timeout, conf, id and tcmur_cmd_time_out\n";
    let warning = format!("tcmu-rbd: warning: ignored: the option \"foo=1\" {unknown}");
    assert_eq!(run(&["check", "rbd/img;foo=1"]), valid(&warning));
    let (status, said, errors) = run(&["check", "rbd/a@s;conf;osd_op_timeout=5"]);
    assert_eq!((status, &*said, errors.lines().count()), (Some(0), "valid\n", 3));
    let (status, said, errors) = run(&["check", "rbd"]);
    assert_eq!((status, &*said), (Some(1), ""));
    assert_eq!(errors, "tcmu-rbd: the image is missing after \"rbd\"; write POOL/IMAGE\n");
}

#[test]
fn a_cause_is_told_once() {
    let (status, _, errors) =
        run(&["serve", "--log-dir", "/nowhere/at/all", "--lock-file", "/nowhere/at/all"]);
    assert_eq!(status, Some(1));
    let last = errors.lines().last().unwrap();
    assert_eq!(last, "tcmu-rbd: cannot lock /nowhere/at/all: No such file or directory (os error 2)");
}

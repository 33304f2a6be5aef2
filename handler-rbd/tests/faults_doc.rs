//! docs/faults.md names tests that exist, and has a row for each fault.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Faults are numbered from 1 to this.
const FAULTS: u32 = 32;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The words in backticks of a row's last column.
fn quoted(row: &str) -> Vec<&str> {
    let tests = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap();
    tests.split('`').skip(1).step_by(2).collect()
}

fn is_file(word: &str) -> bool {
    word.contains('/')
}

/// What is wrong with one row's tests.
fn wrong(row: &str) -> Vec<String> {
    let words = quoted(row);
    let mut wrong = Vec::new();
    if words.is_empty() {
        wrong.push("no test is named".to_owned());
    }
    let mut text: Option<(&str, String)> = None;
    for (n, word) in words.iter().enumerate() {
        if is_file(word) {
            match fs::read_to_string(top().join(word)) {
                Ok(found) => text = Some((word, found)),
                Err(error) => {
                    text = None;
                    wrong.push(format!("{word}: {error}"));
                }
            }
            let names_function = words.get(n + 1).is_some_and(|next| !is_file(next));
            if word.ends_with(".rs") && !names_function {
                wrong.push(format!("{word} is named without a test of it"));
            }
        } else if let Some((file, text)) = &text
            && !has_test(text, word)
        {
            wrong.push(format!("{file} has no test {word}"));
        }
    }
    wrong
}

/// Whether there is `fn name(`, and `test` among what stands right before it (attributes, or proptest's macro).
fn has_test(text: &str, name: &str) -> bool {
    let Some(at) = text.find(&format!("fn {name}(")) else { return false };
    let before: Vec<_> = text[..at].lines().rev().take(6).collect();
    before.iter().any(|line| line.contains("test"))
}

#[test]
fn every_test_of_the_table_exists() {
    let doc = fs::read_to_string(top().join("docs/faults.md")).unwrap();
    let rows: Vec<_> = doc.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert!(rows.len() > FAULTS as usize);
    let wrong: Vec<_> = rows.iter().flat_map(|row| wrong(row)).collect();
    assert_eq!(wrong, Vec::<String>::new());
    let numbers =
        doc.lines().filter_map(|row| row.strip_prefix("| ")?.split(' ').next()?.parse::<u32>().ok());
    let mut seen = BTreeSet::new();
    for number in numbers {
        assert!(seen.insert(number), "{number} stands there twice");
    }
    assert_eq!(seen, (1..=FAULTS).collect());
}

#[test]
fn what_does_not_exist_is_found() {
    let row = |tests: &str| wrong(&format!("| 1 | a | b `not/a/test` | {tests} |"));
    assert_eq!(row("`handler-rbd/tests/faults_doc.rs` `what_does_not_exist_is_found`"), Vec::<String>::new());
    for bad in [
        "none",
        "`handler-rbd/tests/faults_doc.rs` `is_not_there`",
        "`handler-rbd/tests/faults_doc.rs` `quoted`", // a function, not a test
        "`handler-rbd/tests/faults_doc.rs`",
        "`tests/lab/99-none.sh`",
    ] {
        assert_eq!(row(bad).len(), 1, "{bad}");
    }
}

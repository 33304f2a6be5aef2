//! What `tcmu-rbd status` prints, made of copies of the devices' states.

use super::state::{Lun, State};
use std::fmt::Write;
use std::time::{Duration, SystemTime};

/// A table for people.
pub fn table(luns: &[Lun]) -> String {
    let ready = luns.iter().filter(|lun| matches!(lun.state, State::Ready { .. })).count();
    let mut text = format!("tcmu-rbd {}, {} LUNs, {ready} ready\n", env!("CARGO_PKG_VERSION"), luns.len());
    let name = |lun: &Lun| match lun.state.epoch() {
        0 => lun.state.name().to_owned(),
        epoch => format!("{}({epoch})", lun.state.name()),
    };
    let width = |of: &dyn Fn(&Lun) -> usize| luns.iter().map(of).max().unwrap_or(0);
    let (device, config) = (width(&|lun| lun.device.len()), width(&|lun| lun.config.len()));
    for lun in luns {
        let (state, age) = (name(lun), age(lun.since));
        let _ = writeln!(
            text,
            "{:device$}  {:config$}  {state:13}  {age:>8}  {}",
            lun.device, lun.config, lun.reason
        );
    }
    text
}

/// The same for programs. Fields may be added; none is taken away or changes its meaning.
pub fn json(luns: &[Lun]) -> String {
    let one = |lun: &Lun| {
        let since = lun.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        format!(
            r#"{{"device":{},"config":{},"minor":{},"state":"{}","epoch":{},"since":{since},"size":{},"reason":{}}}"#,
            quoted(&lun.device),
            quoted(&lun.config),
            lun.minor,
            lun.state.name(),
            lun.state.epoch(),
            lun.size,
            quoted(&lun.reason)
        )
    };
    let luns: Vec<_> = luns.iter().map(one).collect();
    format!(
        "{{\"version\":{},\"pid\":{},\"luns\":[{}]}}\n",
        quoted(env!("CARGO_PKG_VERSION")),
        std::process::id(),
        luns.join(",")
    )
}

/// For how long, in the largest unit of which there are two.
fn age(since: SystemTime) -> String {
    let seconds = since.elapsed().unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// A JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted() {
        assert_eq!(quoted("a\"b\\c\nd\u{e9}"), "\"a\\\"b\\\\c\\u000ad\u{e9}\"");
    }

    #[test]
    fn an_age_has_two_of_its_unit() {
        let ago = |seconds| age(SystemTime::now() - Duration::from_secs(seconds));
        assert_eq!([ago(0), ago(150), ago(8000)], ["0 s", "2 min", "2 h"]);
        assert_eq!(ago(3 * 86400), "3 d");
    }

    #[test]
    fn without_luns_there_is_still_an_answer() {
        assert!(table(&[]).starts_with("tcmu-rbd "));
        assert!(json(&[]).ends_with("\"luns\":[]}\n"));
    }
}

//! What the fuzzers start from: small inputs that get past the first checks, and what each must become.
//!
//! `scripts/fuzz` has them written to files by `tests/seeds.rs`, which also runs them in every ordinary test run:
//! a harness that no longer gets anywhere is noticed there.

mod commands;
mod events;
mod lists;
mod rings;

use crate::command::is_refusal;
use crate::{End, cfgstring, command, malformed_ring, netlink, parameter_list, ring};
use handler_rbd::lun::Outcome;

/// An input.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The target it is for.
    pub target: &'static str,
    /// Its file's name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it must become.
    pub want: Became,
}

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It was carried out, or taken.
    Good,
    /// It was answered with data.
    Reply,
    /// It was refused: the input is wrong.
    Refused,
    /// It failed: what it asked for could not be done.
    Failed,
    /// It was passed over.
    Nothing,
}

/// All seeds.
pub fn all() -> Vec<Seed> {
    let texts = TEXTS.iter().enumerate().map(|(index, &(text, want))| Seed {
        target: "cfgstring",
        name: format!("text_{index}"),
        bytes: text.into(),
        want,
    });
    let mut seeds: Vec<Seed> = texts.collect();
    seeds.extend(commands::seeds());
    seeds.extend(lists::seeds());
    seeds.extend(events::seeds());
    seeds.extend(rings::seeds());
    seeds
}

/// Runs an input.
pub fn became(target: &str, bytes: &[u8]) -> Became {
    match target {
        "command" => of_command(&command::run(bytes)),
        "parameter_list" => of_command(&parameter_list::run(bytes)),
        "cfgstring" => match cfgstring::run(bytes) {
            cfgstring::End { checked: Ok(()), .. } => Became::Good,
            // Good enough for a device there is.
            cfgstring::End { parsed: Ok(_), .. } => Became::Reply,
            cfgstring::End { .. } => Became::Refused,
        },
        "netlink" => match netlink::run(bytes).as_slice() {
            [] => Became::Nothing,
            events if events.iter().all(Result::is_ok) => Became::Good,
            _ => Became::Refused,
        },
        "ring" => {
            let calls = ring::run(bytes);
            if calls > 0 { Became::Good } else { Became::Nothing }
        }
        "malformed_ring" => match malformed_ring::run(bytes) {
            malformed_ring::End { error: Some(_), .. } => Became::Refused,
            malformed_ring::End { commands: 0, notifications: 0, .. } => Became::Nothing,
            malformed_ring::End { .. } => Became::Good,
        },
        other => panic!("no target {other}"),
    }
}

fn of_command(end: &End) -> Became {
    match end {
        End { outcome: Outcome::Good, reply: Some(_), .. } => Became::Reply,
        End { outcome: Outcome::Good, .. } => Became::Good,
        end if is_refusal(end) => Became::Refused,
        End { .. } => Became::Failed,
    }
}

const TEXTS: &[(&str, Became)] = &[
    ("rbd/rbd/disk_1", Became::Good),
    ("rbd/rbd/disk_1;osd_op_timeout=30;conf=/etc/ceph/a.conf;id=iscsi.x", Became::Good),
    ("rbd/;tcmur_cmd_time_out=5;rbd/img", Became::Good),
    ("rbd//rbd/disk_1;;osd_op_timeout=0.5;", Became::Good),
    ("rbd/rbd/img;future=1", Became::Good),
    ("rbd/rbd/ns/img", Became::Reply),
    ("rbd/rbd/img;osd_op_timeout=1e3s", Became::Reply),
    ("rbd/rbd/a,b:c d", Became::Reply),
    ("rbd/rbd/img;id=", Became::Refused),
    ("rbd/img", Became::Refused),
    ("rb/rbd/img", Became::Refused),
];

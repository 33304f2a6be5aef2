//! `sgtest`: SCSI checks against a live LUN, and a data checker; run inside lab guests by `tests/lab`.

mod checker;
mod data;
mod foreign;
mod identity;
mod lengths;
mod opcodes;

use std::path::Path;
use std::time::Duration;
use std::{env, process};

use sgtest::report::Report;
use sgtest::sg::Sg;

const USAGE: &str = "\
usage: sgtest opcodes /dev/sgN          every one of the 256 operation codes is answered within 2 s, the LUN lives on
       sgtest foreign-bytes /dev/sgN    no reply carries a byte of another command's data
       sgtest identity /dev/sgN --serial UUID --config CFGSTRING [--max-sectors N]
       sgtest lengths /dev/sgN          lengths that disagree, zero lengths, address edges
       sgtest data /dev/sgN [--seed N]  every data command against a model of the disk
       sgtest fill DEV --state FILE     stamp every 4 KiB block
       sgtest check DEV --state FILE --seconds N [--allow-errors] [--seed N]
                                        random stamped writes and verified reads; goes on after I/O errors
       sgtest verify DEV --state FILE   every block is what was last acknowledged
Destroys the data of the LUN. One line per check, then `N passed, M failed`; status 1 if any failed, 2 for a bad call.
Every command has --limit SECONDS (default 100): past it, the check that hangs is named and counted as failed.";

/// The words of the command line: positional ones, and `--name value`.
pub(crate) struct Args {
    words: Vec<String>,
}

impl Args {
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.words.iter().position(|word| word == name)?;
        self.words.remove(at);
        if at < self.words.len() { Some(self.words.remove(at)) } else { None }
    }

    fn flag(&mut self, name: &str) -> bool {
        let at = self.words.iter().position(|word| word == name);
        at.map(|at| self.words.remove(at)).is_some()
    }

    fn required(&mut self, name: &str) -> String {
        self.take(name).unwrap_or_else(|| usage(&format!("{name} VALUE is missing")))
    }

    fn number(&mut self, name: &str, default: u64) -> u64 {
        self.take(name).map_or(default, |word| {
            word.parse().unwrap_or_else(|_| usage(&format!("{name} needs a number, not '{word}'")))
        })
    }

    fn end(self) {
        if let Some(word) = self.words.first() {
            usage(&format!("unexpected '{word}'"));
        }
    }
}

fn usage(why: &str) -> ! {
    eprintln!("sgtest: {why}\n{USAGE}");
    process::exit(2);
}

fn open(path: &Path) -> Sg {
    Sg::open(path).unwrap_or_else(|error| {
        eprintln!("sgtest: {}: {error}", path.display());
        process::exit(2);
    })
}

fn main() {
    let mut args = Args { words: env::args().skip(1).collect() };
    if args.words.is_empty() || args.flag("--help") {
        usage("what shall be checked?");
    }
    let limit = Duration::from_secs(args.number("--limit", 100));
    if args.words.len() < 2 {
        usage("a command and a device, please");
    }
    let (command, device) = (args.words.remove(0), args.words.remove(0));
    let device = Path::new(&device);
    let report = Report::with_limit(limit);
    match command.as_str() {
        "opcodes" => {
            args.end();
            opcodes::run(&report, device);
        }
        "foreign-bytes" => {
            args.end();
            foreign::run(&report, device);
        }
        "identity" => {
            let (serial, config) = (args.required("--serial"), args.required("--config"));
            let max_sectors = args.number("--max-sectors", 1024);
            args.end();
            identity::run(&report, &open(device), &serial, &config, max_sectors);
        }
        "lengths" => {
            args.end();
            lengths::run(&report, &open(device));
        }
        "data" => {
            let seed = args.number("--seed", 1);
            args.end();
            data::run(&report, device, seed);
        }
        "fill" | "check" | "verify" => {
            let state = args.required("--state");
            let seconds = args.number("--seconds", 0);
            let seed = args.number("--seed", 1);
            let allow_errors = args.flag("--allow-errors");
            args.end();
            let state = Path::new(&state);
            match command.as_str() {
                "fill" => checker::fill(&report, device, state),
                "verify" => checker::verify(&report, device, state),
                _ => checker::check(
                    &report,
                    device,
                    state,
                    &checker::Plan { time: Duration::from_secs(seconds), seed, allow_errors },
                ),
            }
        }
        other => usage(&format!("no command '{other}'")),
    }
    process::exit(report.finish());
}

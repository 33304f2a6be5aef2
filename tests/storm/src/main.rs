//! `storm`: a verified load for crash tests; run by `tests/lab` in the lab's network.

mod director;
mod iscsi;
mod load;
mod locks;
mod ops;
mod register;
mod stamp;
mod state;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, io, process};

use director::{Director, Plan};
use iscsi::{Answer, Command, Session};
use load::{Load, Options};
use sgtest::initiator::{be, inquiry, read_capacity16, status, test_unit_ready};

const USAGE: &str = "\
usage: storm run --portal IP:PORT --target IQN [options]     loads LUN 0 over iSCSI and judges every answer
       storm verify FILE --state STATE                      compares an image (rbd export, block device) with a state
  --initiator IQN (iqn.2026-01.io.tcmu-rbd:initiator)  --lun N (0)  --seed N (1)  --depth N (32)
  --seconds N          how long to load, without strikes       --while FILE      as long as FILE exists
  --patience N (60)    seconds a command may take
  --mix KIND=N,...     weights of read write same zero unmap verify sync lock or copy (those not named: their default)
  --state STATE        leave there what each block may hold
  --strikes N          end the daemon N times; needs --agent IP:PORT, where storm-agent connects to
  --signal S,...       what the agent does, in turn: KILL, TERM, or AWAIT:SECONDS (for a daemon that ends by itself)
  --programs P,...     what it starts, in turn                 --environment E,...  NAME=VALUE for the started, in turn
  --early PERCENT (25) strikes that do not wait for service    --service LEAST,MOST (200,1500)  else ms of service before
  --before SH, --after SH   commands on this machine before a strike, after the next start
The LUN must be new (zeros), at least 64 MiB with blocks of 512 bytes. Last line: what was counted. Status 1 if anything was
wrong, lost, late or in error, or the daemon ended otherwise than told; BUSY and COPY ABORTED are counted and no error.";

struct Args(Vec<String>);

impl Args {
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|word| word == name)?;
        self.0.remove(at);
        if at < self.0.len() { Some(self.0.remove(at)) } else { usage(&format!("{name} needs a value")) }
    }
    fn number(&mut self, name: &str) -> Option<u64> {
        self.take(name)
            .map(|word| word.parse().unwrap_or_else(|_| usage(&format!("{name} {word}: no number"))))
    }
    fn list(&mut self, name: &str, default: &str) -> Vec<String> {
        self.take(name).unwrap_or(default.to_owned()).split(',').map(str::to_owned).collect()
    }
}

fn usage(why: &str) -> ! {
    eprintln!("storm: {why}\n{USAGE}");
    process::exit(2);
}

fn main() {
    let mut args = Args(env::args().skip(1).collect());
    if args.0.is_empty() {
        usage("what shall be done?");
    }
    let result = match args.0.remove(0).as_str() {
        "run" => run(args),
        "verify" => verify(args),
        other => usage(&format!("no command '{other}'")),
    };
    match result {
        Ok(true) => (),
        Ok(false) => process::exit(1),
        Err(error) => {
            eprintln!("storm: {error}");
            process::exit(1);
        }
    }
}

fn verify(mut args: Args) -> io::Result<bool> {
    let state = args.take("--state").unwrap_or_else(|| usage("--state is missing"));
    let [disk] = args.0.as_slice() else { usage("one FILE, please") };
    let (blocks, wrong) = state::verify(Path::new(disk), Path::new(&state))?;
    for what in wrong.iter().take(20) {
        println!("WRONG {what}");
    }
    println!("verify: blocks={blocks} wrong={}", wrong.len());
    Ok(wrong.is_empty() && blocks > 0)
}

/// One command alone; BUSY and UNIT ATTENTION are repeated, for half a minute.
fn ask(session: &mut Session, cdb: Vec<u8>, expect: usize) -> io::Result<Vec<u8>> {
    let command = Command { cdb, out: Vec::new(), expect };
    for _ in 0..300 {
        session.submit(&command)?;
        let answers = loop {
            let answers = session.receive()?;
            if !answers.is_empty() {
                break answers;
            }
        };
        match answers.into_iter().next() {
            Some(Answer { status: status::GOOD, data, .. }) => return Ok(data),
            Some(Answer { status: status::CHECK_CONDITION, sense, .. })
                if sense.is_none_or(|sense| sense.code.0 != 6) =>
            {
                return Err(io::Error::other(format!("{:02X}h: {sense:02X?}", command.cdb[0])));
            }
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    Err(io::Error::other(format!("{:02X}h: BUSY for too long", command.cdb[0])))
}

/// The NAA designator of page 83h.
fn naa_of(page: &[u8]) -> Option<[u8; 16]> {
    let mut rest = page.get(4..)?;
    while let [_, kind, _, length, tail @ ..] = rest {
        let length = usize::from(*length);
        if kind & 0x3F == 3 && length == 16 {
            return tail.get(..16)?.try_into().ok();
        }
        rest = tail.get(length..)?;
    }
    None
}

fn plan(args: &mut Args) -> Option<(String, Plan)> {
    let strikes = args.number("--strikes")?;
    let address = args.take("--agent").unwrap_or_else(|| usage("--agent is missing"));
    let signals = args.list("--signal", "KILL");
    let programs = args.list("--programs", "-");
    let environment = args.list("--environment", "-");
    let strikes = (0..usize::try_from(strikes).unwrap_or(0))
        .map(|n| {
            let turn = |words: &[String]| words[n % words.len()].clone();
            format!("{} {} {}", turn(&signals), turn(&programs), turn(&environment))
        })
        .collect();
    let service: Vec<u64> = args
        .list("--service", "200,1500")
        .iter()
        .map(|word| word.parse().unwrap_or_else(|_| usage("--service needs LEAST,MOST")))
        .collect();
    let [least, most] = service[..] else { usage("--service needs LEAST,MOST") };
    let plan = Plan {
        strikes,
        early: args.number("--early").unwrap_or(25),
        service: (least, most.max(least)),
        before: args.take("--before"),
        after: args.take("--after"),
    };
    Some((address, plan))
}

fn run(mut args: Args) -> io::Result<bool> {
    let portal = args.take("--portal").unwrap_or_else(|| usage("--portal is missing"));
    let target = args.take("--target").unwrap_or_else(|| usage("--target is missing"));
    let initiator = args.take("--initiator").unwrap_or("iqn.2026-01.io.tcmu-rbd:initiator".to_owned());
    let lun = u8::try_from(args.number("--lun").unwrap_or(0)).unwrap_or_else(|_| usage("--lun: 0 to 255"));
    let seed = args.number("--seed").unwrap_or(1);
    let depth = args.number("--depth").unwrap_or(32);
    let patience = Duration::from_secs(args.number("--patience").unwrap_or(60));
    let mut mix: Vec<(String, u64)> = ops::MIX.map(|(name, n)| (name.to_owned(), n)).into();
    for word in args.take("--mix").iter().flat_map(|list| list.split(',')) {
        let (name, n) = word.split_once('=').unwrap_or_else(|| usage(&format!("--mix: {word}")));
        let entry = mix.iter_mut().find(|(known, _)| known == name);
        let entry = entry.unwrap_or_else(|| usage(&format!("--mix: no kind '{name}'")));
        entry.1 = n.parse().unwrap_or_else(|_| usage(&format!("--mix: {word}")));
    }
    let state = args.take("--state");
    let plan = plan(&mut args);
    let time = args.number("--seconds").map(Duration::from_secs);
    let while_there = args.take("--while").map(PathBuf::from);
    if let Some(word) = args.0.first() {
        usage(&format!("unexpected '{word}'"));
    }
    if time.is_none() && plan.is_none() && while_there.is_none() {
        usage("--seconds, --while or --strikes, please");
    }
    println!("storm: seed {seed}");
    let mut session = Session::login(&portal, &target, &initiator, lun)?;
    ask(&mut session, test_unit_ready(), 0)?;
    let capacity = ask(&mut session, read_capacity16(32), 32)?;
    let blocks = be(&capacity[..8]) + 1;
    if be(&capacity[8..12]) != stamp::BLOCK as u64 || blocks < 131_072 {
        return Err(io::Error::other(format!("{blocks} blocks of {} bytes", be(&capacity[8..12]))));
    }
    let naa = naa_of(&ask(&mut session, inquiry(Some(0x83), 255), 255)?);
    let run = seed << 16 | u64::from(process::id() & 0xFFFF);
    let depth = usize::try_from(depth).unwrap_or(32);
    let mut load =
        Load::new(session, naa, blocks, Options { seed, run, depth, time, while_there, patience, mix });
    let mut director = plan.map(|(address, plan)| Director::listen(&address, plan, seed)).transpose()?;
    let result = load.run(director.as_mut());
    load.stalls.close();
    if let Some(path) = state {
        state::store(&load, Path::new(&path))?;
    }
    let good = summary(&load, director.as_ref(), &result);
    result?;
    load.session.logout()?;
    Ok(good)
}

fn summary(load: &Load, director: Option<&Director>, result: &io::Result<()>) -> bool {
    let tally = &load.tally;
    let mut kinds: Vec<_> = tally.by_kind.iter().collect();
    kinds.sort_unstable();
    let kinds: Vec<_> = kinds.iter().map(|(name, n)| format!("{name}={n}")).collect();
    println!("storm: {}", kinds.join(" "));
    let (strange, missed) = director.map_or((&[][..], &[][..]), |d| (&d.strange[..], &d.missed[..]));
    for what in strange {
        println!("STRANGE {what}");
    }
    for what in missed {
        println!("MISSED {what}");
    }
    let (median, longest) = load.stalls.summary();
    println!(
        "storm: seed={} end={} commands={} errors={} wrong={} busy={} busy_locks={} aborted={} full={} attention={} locks={} unsure={} \
         strikes={} stalls={} strange={} missed={} stall_median_ms={median} stall_max_ms={longest} slowest_ms={}",
        load.options.seed,
        if result.is_ok() { "ok" } else { "broken" },
        tally.commands,
        tally.errors,
        tally.wrong,
        tally.busy,
        tally.busy_locks,
        tally.aborted,
        tally.full,
        tally.attention,
        tally.locks,
        tally.unsure,
        director.map_or(0, |d| d.ordered),
        load.stalls.all.len(),
        strange.len(),
        missed.len(),
        tally.slowest.as_millis(),
    );
    result.is_ok() && tally.errors == 0 && tally.wrong == 0 && strange.is_empty() && tally.commands > 0
}

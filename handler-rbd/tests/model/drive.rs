//! Sends commands, takes answers, asks the oracle, and says what was wrong.

use crate::command::{Command, Kind, Span};
use crate::content::Rng;
use crate::disk::Shape;
use crate::exact::Exact;
use crate::make::{Areas, Maker};
use crate::mutants::Mutant;
use crate::oracle::{Checked, End, Flight, Oracle, Wrong};
use crate::rig::{PATIENCE, Rig, Said};
use crate::sets::{Layout, Sets};
use crate::verdict::Verdict;
use std::collections::{BTreeMap, VecDeque};
use uio_ring::mock::{Delivered, Direction, Ticket};

/// Commands that the device does not have yet. It must say so; one that it has must leave this list.
pub(crate) const NOT_YET: &[&str] = &[];

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) commands: u64,
    pub(crate) depth: usize,
    pub(crate) block: u64,
    /// Storage fails now and then.
    pub(crate) faults: bool,
    pub(crate) mutant: Option<Mutant>,
}

/// What was seen, by name: answers that were GOOD, and others.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) good: BTreeMap<&'static str, u64>,
    pub(crate) ends: BTreeMap<&'static str, u64>,
    /// The most commands in flight at once, and how many there were on average.
    pub(crate) depth: (usize, u64),
    pub(crate) answers: u64,
}

const DISK: u64 = 512;
const MOST: u32 = 256;
/// Blocks of an object.
const OBJECT: u64 = 32;

/// How many copies the device makes at a time, and refuses more.
const COPIES: usize = 8;

/// How many commands go between those for the whole disk.
const WHOLE: u64 = 600;

/// How many answered commands are remembered for the report of a failure.
const MEMORY: usize = 5000;

struct Past {
    flight: Flight,
    answered: u64,
    verdict: Verdict,
}

struct Driver {
    plan: Plan,
    rig: Rig,
    maker: Maker,
    /// For what depends on timing: the commands are to be the same each time.
    chance: Rng,
    oracle: Box<dyn Oracle>,
    now: u64,
    number: u64,
    flights: Vec<(Ticket, Flight, Direction)>,
    past: VecDeque<Past>,
    tally: Tally,
}

/// Carries out a plan. The error is a report for a person.
pub(crate) fn run(plan: Plan) -> Result<Tally, String> {
    let shape = Shape {
        block: plan.block,
        blocks: DISK,
        object: OBJECT * plan.block,
        compare: if plan.seed.is_multiple_of(2) { plan.block } else { 4 * plan.block },
        hold: if plan.depth == 1 { 1 } else { plan.depth as u64 / 2 },
        seed: plan.seed,
        mutant: plan.mutant,
    };
    let rig = Rig::new(shape, MOST);
    let said = Said::hear(&rig)?;
    let block = usize::try_from(plan.block).unwrap();
    let alone = plan.depth == 1;
    let (counters, words, general) = (Span::new(0, 16), Span::new(16, 16), Span::new(32, DISK - 32));
    let disk = Span::new(0, DISK);
    let areas = if alone {
        Areas { general: disk, words: disk, counters }
    } else {
        Areas { general, words, counters }
    };
    let oracle: Box<dyn Oracle> = if alone {
        Box::new(Exact::new(block, DISK))
    } else {
        Box::new(Sets::new(Layout { block, object: OBJECT, counters, words, general }))
    };
    let maker = Maker::new(plan.seed, said, block, areas, alone);
    let (flights, past) = (vec![], VecDeque::new());
    let chance = Rng(plan.seed);
    let tally = Tally::default();
    let mut driver = Driver { plan, rig, maker, chance, oracle, now: 1, number: 0, flights, past, tally };
    match driver.go() {
        Ok(()) => Ok(driver.tally),
        Err(wrong) => Err(driver.report(&wrong)),
    }
}

impl Driver {
    fn go(&mut self) -> Checked {
        self.rig.disk.faults(self.plan.faults);
        let mut whole = WHOLE;
        while self.number < self.plan.commands {
            if self.number > whole {
                self.whole()?;
                whole = self.number + WHOLE;
            }
            let command = self.maker.any(&*self.oracle);
            self.one_more(command)?;
        }
        self.read_all()?;
        self.rig.disk.faults(false);
        self.rig.stop()?;
        if self.rig.kernel.outstanding() != 0 {
            return Err(Wrong::new("commands without an answer"));
        }
        self.rig.kernel.verify().map_err(|fault| Wrong::new(format!("{fault:?}")))?;
        self.clean()
    }

    fn clean(&self) -> Checked {
        let faults = self.rig.kernel.faults();
        if !faults.is_empty() {
            return Err(Wrong::new(format!("the kernel found {faults:?}")));
        }
        let misuse = self.rig.disk.misuse();
        if misuse.is_empty() { Ok(()) } else { Err(Wrong::new(format!("storage was asked for {misuse:?}"))) }
    }

    /// Sends a command as soon as there is room for it.
    fn one_more(&mut self, command: Command) -> Checked {
        // Not always to the brim: now and then everything ends before something new begins.
        let depth = self.plan.depth;
        let room =
            if depth > 1 && self.maker.rng.once_in(64) { self.maker.rng.index(depth) } else { depth - 1 };
        while self.flights.len() > room {
            self.take_answers()?;
        }
        self.send(command);
        if depth == 1 {
            self.drain()?;
            self.settle_doubts()?;
        }
        Ok(())
    }

    fn send(&mut self, mut command: Command) {
        self.tick();
        self.number += 1;
        let carried = match &command.direction {
            Direction::Out(_) => Direction::Out(vec![]),
            other => other.clone(),
        };
        let direction = std::mem::replace(&mut command.direction, carried.clone());
        let length = match &direction {
            Direction::Out(bytes) => bytes.len(),
            Direction::In(length) => *length,
            _ => 0,
        };
        let flight = Flight { number: self.number, sent: self.now, length, command };
        self.oracle.sent(&flight);
        let ticket = self.rig.send(&flight.command.cdb, direction);
        self.flights.push((ticket, flight, carried));
        self.tally.depth.0 = self.tally.depth.0.max(self.flights.len());
        self.tally.depth.1 += self.flights.len() as u64;
    }

    fn tick(&mut self) {
        self.now += 1;
        self.rig.disk.tell(self.now);
    }

    /// Takes all answers there are; waits for one if there are none.
    fn take_answers(&mut self) -> Checked {
        let mut any = false;
        for at in (0..self.flights.len()).rev() {
            if let Some(answer) = self.rig.kernel.take_result(self.flights[at].0) {
                any = true;
                self.answered(at, &answer)?;
            }
        }
        if !any && !self.flights.is_empty() {
            let at = self.chance.index(self.flights.len());
            let ticket = self.flights[at].0;
            if self.rig.kernel.wait(ticket, PATIENCE).is_none() {
                self.clean()?;
                return Err(Wrong::new(format!("no answer to #{}", self.flights[at].1.number)));
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> Checked {
        while !self.flights.is_empty() {
            self.take_answers()?;
        }
        Ok(())
    }

    fn answered(&mut self, at: usize, answer: &Delivered) -> Checked {
        self.tick();
        let (_, flight, carried) = self.flights.swap_remove(at);
        let horizon = self.flights.iter().map(|(_, flight, _)| flight.sent).min().unwrap_or(self.now);
        let verdict =
            Verdict::of(answer).unwrap_or(Verdict { status: 0xff, sense: (0, 0, 0), information: None });
        let checked = Verdict::of(answer).map_err(Wrong::from).and_then(|verdict| {
            let end = self.end(&flight, verdict)?;
            self.data_in(&flight, &carried, answer, verdict)?;
            self.count(&flight, end);
            let data = answer.data.as_deref().unwrap_or(&[]);
            self.oracle.answered(&flight, self.now, horizon.min(flight.sent), end, verdict, data)
        });
        let checked = checked.map_err(|wrong| {
            let why = format!("#{} {}: answered {verdict}: {}", flight.number, flight.command, wrong.why);
            let disk = self.maker.disk;
            Wrong { span: wrong.span.or(flight.command.spans(disk).first().copied()), why }
        });
        self.rig.disk.injected().retain(|failure| failure.at >= horizon);
        if self.past.len() == MEMORY {
            self.past.pop_front();
        }
        self.past.push_back(Past { flight, answered: self.now, verdict });
        checked
    }

    /// What the answer makes of the command, if the command may be answered like that.
    fn end(&self, flight: &Flight, verdict: Verdict) -> Result<End, Wrong> {
        let command = &flight.command;
        if NOT_YET.contains(&command.name) {
            let service_action = command.name.starts_with("GET LBA");
            return if verdict.unknown_opcode() || service_action && verdict.invalid_field() {
                Ok(End::Refused)
            } else {
                Err(Wrong::new("the device has it: take it off NOT_YET"))
            };
        }
        // Others that were in flight at the same time.
        let meanwhile = |kind: fn(&Kind) -> bool| {
            let past = self.past.iter().rev().take_while(|past| past.answered > flight.sent);
            let all = past.map(|past| &past.flight).chain(self.flights.iter().map(|(_, flight, _)| flight));
            all.filter(|other| kind(&other.command.kind)).count()
        };
        if verdict.formatting() && meanwhile(|kind| matches!(kind, Kind::Whole(_))) > 0 {
            return Ok(End::Refused);
        }
        if let Kind::Illegal(allowed) = &command.kind {
            return if allowed.contains(&verdict.sense) {
                Ok(End::Refused)
            } else {
                Err(Wrong::new(format!("illegal, to be refused with one of {allowed:02x?}")))
            };
        }
        if verdict.good() || verdict.condition_met() && command.name.starts_with("PRE-FETCH") {
            // Alone, a failure is this command's: GOOD would hide it.
            let hidden = self.plan.depth == 1 && self.rig.disk.injected().iter().any(|f| f.at >= flight.sent);
            return if hidden { Err(Wrong::new("storage failed")) } else { Ok(End::Good) };
        }
        let compares = match command.kind {
            Kind::Compare { .. } | Kind::CompareAndWrite { .. } => true,
            Kind::Write { verify, .. } => verify,
            _ => false,
        };
        if verdict.miscompare() && compares {
            return Ok(End::Miscompare);
        }
        let copy: fn(&Kind) -> bool = |kind| matches!(kind, Kind::Copy(_));
        if verdict.task_set_full() && copy(&command.kind) && meanwhile(copy) >= COPIES {
            return Ok(End::Refused);
        }
        if self.excused(flight, verdict) { Ok(End::Failed) } else { Err(Wrong::new("no reason for that")) }
    }

    /// Whether storage failed for this command, and in this way.
    fn excused(&self, flight: &Flight, verdict: Verdict) -> bool {
        let spans = flight.command.spans(self.maker.disk);
        let copy = matches!(flight.command.kind, Kind::Copy(_));
        self.rig.disk.injected().iter().any(|failure| {
            let here = failure.span.is_none_or(|there| spans.iter().any(|span| span.meets(there)));
            failure.at >= flight.sent && here && (verdict.tells(failure) || copy && verdict.copy_aborted())
        })
    }

    /// As many bytes as expected, or fewer and said so; and none that are not the command's.
    fn data_in(&self, flight: &Flight, carried: &Direction, answer: &Delivered, verdict: Verdict) -> Checked {
        let data = answer.data.as_deref().unwrap_or(&[]);
        let Direction::In(expected) = *carried else {
            return if answer.data.is_none() {
                Ok(())
            } else {
                Err(Wrong::new("data that nobody asked for"))
            };
        };
        if !verdict.good() {
            let zeros = data.iter().all(|&byte| byte == 0);
            return if zeros { Ok(()) } else { Err(Wrong::new("a failed command shows bytes")) };
        }
        let length = data.len() + usize::try_from(answer.resid).unwrap();
        if length != expected {
            return Err(Wrong::new(format!("{length} bytes accounted for of {expected}")));
        }
        let own = flight.command.data_in(self.maker.block).min(expected);
        if matches!(flight.command.kind, Kind::Read(_)) && data.len() < own {
            return Err(Wrong::new(format!("{} bytes of {own}", data.len())));
        }
        match data.iter().skip(own).position(|&byte| byte != 0) {
            Some(at) => Err(Wrong::new(format!("a foreign byte at {}", own + at))),
            None => Ok(()),
        }
    }

    fn count(&mut self, flight: &Flight, end: End) {
        self.tally.answers += 1;
        let name = match (end, &flight.command.kind) {
            (End::Good, _) => {
                *self.tally.good.entry(flight.command.name).or_default() += 1;
                "good"
            }
            (End::Refused, Kind::Illegal(_)) => "illegal",
            (End::Refused, _) => "refused",
            (End::Failed, _) => "failed",
            (End::Miscompare, Kind::CompareAndWrite { .. }) => "lost the exchange",
            (End::Miscompare, _) => "miscompare",
        };
        *self.tally.ends.entry(name).or_default() += 1;
    }

    /// Reads what a failure has left unknown.
    fn settle_doubts(&mut self) -> Checked {
        if let Some(mut span) = self.oracle.doubts() {
            self.rig.disk.faults(false);
            loop {
                span.blocks = span.blocks.min(64);
                let read = self.maker.plain_read(span);
                self.send(read);
                self.drain()?;
                match self.oracle.doubts() {
                    Some(next) => span = next,
                    None => break,
                }
            }
            self.rig.disk.faults(self.plan.faults);
        }
        Ok(())
    }

    /// FORMAT UNIT or SANITIZE, amid others but without those whose blocks have a special service.
    fn whole(&mut self) -> Checked {
        self.read_all()?;
        self.rig.disk.faults(false);
        let command = self.maker.whole();
        self.send(command);
        if self.plan.depth > 1 {
            for _ in 0..2 * self.plan.depth {
                while self.flights.len() == self.plan.depth {
                    self.take_answers()?;
                }
                let command = self.maker.general(&*self.oracle);
                self.send(command);
            }
        }
        self.drain()?;
        self.rig.disk.faults(self.plan.faults);
        Ok(())
    }

    /// With nothing in flight: the whole disk, and what the oracle makes of it.
    fn read_all(&mut self) -> Checked {
        self.drain()?;
        self.rig.disk.faults(false);
        for lba in (0..self.maker.disk).step_by(64) {
            let read = self.maker.plain_read(Span::new(lba, 64.min(self.maker.disk - lba)));
            self.send(read);
            self.drain()?;
        }
        self.rig.disk.faults(self.plan.faults);
        self.oracle.finish()?;
        let failed = self.tally.ends.get("failed").copied().unwrap_or(0);
        if failed > self.rig.disk.failures() {
            return Err(Wrong::new(format!("{failed} failures, more than storage had")));
        }
        self.clean()
    }

    fn report(&self, wrong: &Wrong) -> String {
        let mut lines = vec![format!("{}", wrong.why), format!("{:?}", self.plan)];
        if let Err(more) = self.clean() {
            lines.push(more.why);
        }
        let disk = self.maker.disk;
        let touches = |command: &Command| match wrong.span {
            Some(span) => command.spans(disk).iter().any(|other| other.meets(span)),
            None => true,
        };
        let past = self.past.iter().rev().filter(|past| touches(&past.flight.command)).take(25);
        let mut history: Vec<_> = past.map(|p| line(&p.flight, Some((p.answered, p.verdict)))).collect();
        history.reverse();
        lines.push(format!("the last commands to touch {:?}, and what is in flight:", wrong.span));
        lines.extend(history);
        let flights = self.flights.iter().filter(|(_, flight, _)| touches(&flight.command));
        lines.extend(flights.take(25).map(|(_, flight, _)| line(flight, None)));
        let Plan { seed, commands, .. } = self.plan;
        lines.push(format!("again: MODEL_SEED={seed} MODEL_COMMANDS={commands} and the same test"));
        lines.join("\n")
    }
}

fn line(flight: &Flight, answer: Option<(u64, Verdict)>) -> String {
    let end = answer.map_or("in flight".into(), |(at, verdict)| format!("{at:#x} {verdict}"));
    format!("#{} {:#x}..{end}: {} bytes, {}", flight.number, flight.sent, flight.length, flight.command)
}

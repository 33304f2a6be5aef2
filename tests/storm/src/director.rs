//! When the daemon is struck, and what came of it. An agent in the gateway (tests/lab/storm-agent) is connected; a line
//! `SIGNAL PROGRAM ENVIRONMENT` makes it end the daemon and start PROGRAM at once; it says `struck STATUS`, then
//! `started PID`.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use sgtest::random::Random;

/// What shall be done to the daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Lines for the agent, in turn.
    pub(crate) strikes: Vec<String>,
    /// Of a hundred strikes, how many come right after a start, whether it serves already or not.
    pub(crate) early: u64,
    /// Milliseconds of service before a strike, least and most.
    pub(crate) service: (u64, u64),
    /// Shell commands on this machine before a strike and after the next start.
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The agent is at it.
    Asked,
    /// The daemon was started then.
    Started(Instant),
    /// It serves, the strike comes then.
    Due(Instant),
}

/// Carries out a plan.
#[derive(Debug)]
pub(crate) struct Director {
    agent: TcpStream,
    input: Vec<u8>,
    plan: Plan,
    state: State,
    random: Random,
    /// Strikes ordered so far.
    pub(crate) ordered: usize,
    /// How the daemon ended if it was not as it was told to.
    pub(crate) strange: Vec<String>,
    /// Points that were not reached in time.
    pub(crate) missed: Vec<String>,
    before: Option<Child>,
    after: Option<Child>,
}

impl Director {
    /// Waits for the agent.
    pub(crate) fn listen(address: &str, plan: Plan, seed: u64) -> io::Result<Self> {
        let (agent, _) = TcpListener::bind(address)?.accept()?;
        agent.set_nodelay(true)?;
        Ok(Self {
            agent,
            input: Vec::new(),
            plan,
            state: State::Asked,
            random: Random::new(seed ^ 0x7374_726B),
            ordered: 0,
            strange: Vec::new(),
            missed: Vec::new(),
            before: None,
            after: None,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.agent.as_fd()
    }

    /// All strikes are done and the daemon served after the last.
    pub(crate) fn is_done(&self, served: Instant) -> bool {
        let started = matches!(self.state, State::Started(at) | State::Due(at) if served > at);
        self.ordered == self.plan.strikes.len() && started && self.after.is_none()
    }

    /// Reads what the agent says.
    pub(crate) fn hear(&mut self) -> io::Result<()> {
        let mut part = [0; 512];
        let n = self.agent.read(&mut part)?;
        if n == 0 {
            return Err(io::Error::other("the agent in the gateway went away"));
        }
        self.input.extend_from_slice(&part[..n]);
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
            self.input.drain(..=end);
            self.line(&line)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        let last = self.ordered.checked_sub(1).map_or("", |n| self.plan.strikes[n].as_str());
        match line.split_once(' ') {
            Some(("struck", status)) => {
                let wanted = if last.starts_with("TERM") { "0" } else { "137" };
                if status == "missed" {
                    // What it was armed with is in the strike before; see `Load::strikes`.
                    let armed = self.ordered.checked_sub(2).map_or("?", |n| self.plan.strikes[n].as_str());
                    self.missed.push(armed.to_owned());
                } else if status != wanted && status != "gone" {
                    self.strange.push(format!("strike {} ({last}): status {status}", self.ordered));
                }
            }
            Some(("started", _)) => {
                if let (Some(command), true) = (&self.plan.after, self.ordered > 0) {
                    self.after = Some(Command::new("sh").arg("-c").arg(command).spawn()?);
                }
                self.state = State::Started(Instant::now());
            }
            _ => return Err(io::Error::other(format!("the agent says: {line}"))),
        }
        Ok(())
    }

    /// Strikes if it is time to; true if it did. `served` is when the last command was answered.
    pub(crate) fn step(&mut self, now: Instant, served: Instant) -> io::Result<bool> {
        if let Some(child) = &mut self.after {
            if child.try_wait()?.is_none() {
                return Ok(false);
            }
            self.after = None;
        }
        if self.ordered == self.plan.strikes.len() {
            return Ok(false);
        }
        match self.state {
            State::Asked => Ok(false),
            State::Started(at) => {
                let early = self.random.clone().below(100) < self.plan.early;
                if early || served > at {
                    self.random.next_u64();
                    let (least, most) = if early { (0, 400) } else { self.plan.service };
                    let wait = least + self.random.below(most - least + 1);
                    self.state = State::Due(now + Duration::from_millis(wait));
                }
                Ok(false)
            }
            State::Due(at) if now < at => Ok(false),
            State::Due(_) => {
                // The load goes on meanwhile: what is under way when the strike comes is the point.
                if let Some(command) = self.plan.before.as_ref().filter(|_| self.before.is_none()) {
                    self.before = Some(Command::new("sh").arg("-c").arg(command).spawn()?);
                }
                if let Some(child) = &mut self.before {
                    match child.try_wait()? {
                        None => return Ok(false),
                        Some(status) if status.success() => self.before = None,
                        Some(status) => {
                            return Err(io::Error::other(format!("--before ended with {status}")));
                        }
                    }
                }
                let line = format!("{}\n", self.plan.strikes[self.ordered]);
                self.agent.write_all(line.as_bytes())?;
                self.ordered += 1;
                self.state = State::Asked;
                Ok(true)
            }
        }
    }
}

/// The pauses in service.
#[derive(Debug)]
pub(crate) struct Stalls {
    served: Instant,
    struck: bool,
    longest: Duration,
    /// One for each time that service came back.
    pub(crate) all: Vec<Duration>,
}

impl Stalls {
    pub(crate) fn new() -> Self {
        Self { served: Instant::now(), struck: false, longest: Duration::ZERO, all: Vec::new() }
    }

    /// A strike is ordered: the pause before it belongs to the strike before.
    pub(crate) fn strike(&mut self) {
        self.close();
        self.struck = true;
    }

    /// A command is answered.
    pub(crate) fn served(&mut self, now: Instant) {
        if self.struck {
            self.longest = self.longest.max(now - self.served);
        }
        self.served = now;
    }

    pub(crate) fn last(&self) -> Instant {
        self.served
    }

    /// Ends the last one. A strike without service after it is one with the next.
    pub(crate) fn close(&mut self) {
        if self.struck && self.longest > Duration::ZERO {
            self.all.push(self.longest);
        }
        self.longest = Duration::ZERO;
    }

    /// Median and longest in milliseconds.
    pub(crate) fn summary(&self) -> (u128, u128) {
        let mut all: Vec<u128> = self.all.iter().map(Duration::as_millis).collect();
        all.sort_unstable();
        (all.get(all.len() / 2).copied().unwrap_or(0), all.last().copied().unwrap_or(0))
    }
}

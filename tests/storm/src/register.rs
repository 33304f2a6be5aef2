//! The oracle for blocks: every block is an atomic register (each command that writes it takes effect at one moment between
//! its issue and its answer). Several commands may be under way at once; what is right is decided as for linearizable
//! registers with unique values (Gibbons and Korach, 1997): a value's zone lies between the first answer that proves it
//! written and the last question that still got it; two values' zones must not contradict each other. Times are a counter
//! of the events as the initiator sees them.

use crate::stamp::Value;

/// Later than everything: not answered.
const NEVER: u64 = u64::MAX;

/// A value that a block may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Cluster {
    value: Value,
    /// Issue of the write.
    start: u64,
    /// First answer of the write or of a read that returned the value.
    finish: u64,
    /// Last issue of the write or of a read that returned the value.
    last: u64,
    /// It need not have been written at all (UNMAP may leave a block alone) and was not seen yet.
    optional: bool,
    /// A read has returned it.
    seen: bool,
}

impl Cluster {
    /// Whether `self` and `other` cannot both be true.
    fn contradicts(&self, other: &Self) -> bool {
        if self.optional || other.optional {
            return false;
        }
        match (self.finish < self.last, other.finish < other.last) {
            (true, true) => self.finish.max(other.finish) < self.last.min(other.last),
            (true, false) => self.finish < other.last && other.finish < self.last,
            (false, true) => other.finish < self.last && self.finish < other.last,
            (false, false) => false,
        }
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// GOOD.
    Done,
    /// Whether it took effect, and when it will, is not known.
    Unknown,
    /// It said that it wrote nothing, and may have done so at an earlier try which was answered BUSY.
    Unsure,
    /// It said that it wrote nothing.
    Refused,
}

#[derive(Clone, Debug, Default)]
struct Register {
    clusters: Vec<Cluster>,
    /// What it held lately and must not hold again.
    past: Vec<Value>,
    busy: u32,
}

/// The blocks of a LUN.
#[derive(Debug)]
pub(crate) struct Registers(Vec<Register>);

impl Registers {
    /// All zeros.
    pub(crate) fn new(blocks: u64) -> Self {
        let first =
            Cluster { value: Value::ZERO, start: 0, finish: 0, last: 0, optional: false, seen: false };
        let register = Register { clusters: vec![first], past: Vec::new(), busy: 0 };
        Self(vec![register; usize::try_from(blocks).expect("fits in memory")])
    }

    fn at(&mut self, lba: u64) -> &mut Register {
        &mut self.0[usize::try_from(lba).expect("fits in memory")]
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.0.len() as u64
    }

    /// A write of `value` is issued; with `optional` it may as well do nothing.
    pub(crate) fn write_begin(&mut self, lba: u64, value: Value, now: u64, optional: bool) {
        let register = self.at(lba);
        register.busy += 1;
        register.clusters.push(Cluster {
            value,
            start: now,
            finish: NEVER,
            last: now,
            optional,
            seen: false,
        });
    }

    /// The write that began at `start` has ended.
    pub(crate) fn write_end(
        &mut self,
        lba: u64,
        value: Value,
        start: u64,
        now: u64,
        end: End,
    ) -> Result<(), String> {
        let register = self.at(lba);
        register.busy -= 1;
        let at = register
            .clusters
            .iter()
            .position(|c| c.value == value && c.start == start)
            .ok_or_else(|| format!("block {lba}: {value} ended, but was not under way"))?;
        let cluster = &mut register.clusters[at];
        let mut result = Ok(());
        match end {
            End::Done => cluster.finish = cluster.finish.min(now),
            End::Unknown => cluster.optional = !cluster.seen,
            End::Unsure => {
                cluster.optional = !cluster.seen;
                cluster.finish = cluster.finish.min(now);
            }
            End::Refused => {
                if cluster.seen {
                    result = Err(format!("block {lba}: {value} was refused, but had been seen there"));
                }
                let gone = register.clusters.remove(at);
                register.past.push(gone.value);
            }
        }
        register.settle();
        result
    }

    /// A read is issued.
    pub(crate) fn read_begin(&mut self, lba: u64) {
        self.at(lba).busy += 1;
    }

    /// A read that was issued at `start` is answered with `found`, `None` if it brought nothing.
    pub(crate) fn read_end(
        &mut self,
        lba: u64,
        found: Option<Value>,
        start: u64,
        now: u64,
    ) -> Result<(), String> {
        let register = self.at(lba);
        register.busy -= 1;
        let result = found.map_or(Ok(()), |value| register.read(value, start, now));
        register.settle();
        result.map_err(|why| format!("block {lba}: {why}"))
    }

    /// The content of a block if it is certain.
    pub(crate) fn certain(&self, lba: u64) -> Option<Value> {
        match self.0[usize::try_from(lba).ok()?].clusters.as_slice() {
            [only] if only.finish != NEVER && !only.optional => Some(only.value),
            _ => None,
        }
    }

    /// Everything a block may hold now.
    pub(crate) fn possible(&self, lba: u64) -> Vec<Value> {
        let mut all: Vec<Value> = self.0[usize::try_from(lba).expect("fits in memory")]
            .clusters
            .iter()
            .map(|cluster| cluster.value)
            .collect();
        all.dedup();
        all
    }
}

impl Register {
    fn read(&mut self, value: Value, start: u64, now: u64) -> Result<(), String> {
        let mut fitting = Vec::new();
        let mut against = None;
        for (n, cluster) in self.clusters.iter().enumerate() {
            if cluster.value != value {
                continue;
            }
            let with = Cluster {
                finish: cluster.finish.min(now),
                last: cluster.last.max(start),
                optional: false,
                seen: true,
                ..*cluster
            };
            let others = || self.clusters.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, other)| other);
            match others().find(|other| with.contradicts(other)) {
                None => fitting.push((n, with)),
                Some(other) => against = Some(*other),
            }
        }
        match fitting.as_slice() {
            // Of several (zeros of zeros) it is not known which was seen.
            [(n, with)] => self.clusters[*n] = *with,
            [] => return Err(self.complaint(value, start, against)),
            _ => (),
        }
        Ok(())
    }

    fn complaint(&self, value: Value, start: u64, against: Option<Cluster>) -> String {
        let why = if let Some(other) = against {
            format!("stale or reverted: {} was there before the read", other.value)
        } else if self.past.contains(&value) {
            "reverted: superseded or refused before the read".to_owned()
        } else {
            "never written there, or lost long ago".to_owned()
        };
        let wanted: Vec<_> = self
            .clusters
            .iter()
            .map(|c| {
                let end = if c.finish == NEVER {
                    "unanswered".to_owned()
                } else {
                    format!("answered {}", c.finish)
                };
                format!(
                    "{} (issued {}, {end}{})",
                    c.value,
                    c.start,
                    if c.optional { ", optional" } else { "" }
                )
            })
            .collect();
        format!("holds {value}: {why}; read issued at {start}; possible: {}", wanted.join(", "))
    }

    /// With nothing under way, a value that another has certainly replaced can never be seen again.
    fn settle(&mut self) {
        if self.busy > 0 || self.clusters.len() < 2 {
            return;
        }
        // The two latest, so that a value is not judged by itself.
        let mut latest = [(0, usize::MAX); 2];
        for (n, cluster) in self.clusters.iter().enumerate().filter(|(_, c)| !c.optional && c.finish != NEVER)
        {
            if cluster.last >= latest[0].0 {
                latest = [(cluster.last, n), latest[0]];
            } else if cluster.last >= latest[1].0 {
                latest[1] = (cluster.last, n);
            }
        }
        let old = std::mem::take(&mut self.clusters);
        for (n, cluster) in old.into_iter().enumerate() {
            let other = if latest[0].1 == n { latest[1].0 } else { latest[0].0 };
            if other > cluster.finish {
                self.past.push(cluster.value);
            } else {
                self.clusters.push(cluster);
            }
        }
        // A block of the hot spot changes some ten times a second.
        if self.past.len() > 256 {
            self.past.drain(..128);
        }
    }
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;

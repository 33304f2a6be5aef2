//! Commands that wait for what only configfs knows: the unit serial number and the target port.
//!
//! The serial is written after the device was enabled, ports and their groups change at any time, so they
//! are read for every INQUIRY that shows them. Reading may block for as long as configfs likes; the ring
//! thread must not. So a thread is started per fetch, at most one at a time, and answers by message.

use super::Message;
use crate::scsi::Command;
use crate::scsi::identity::Identity;
use std::time::{Duration, Instant};
use uio_ring::Token;

/// How long a command waits for configfs before it is answered BUSY, which the initiator retries.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A command that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) command: Command,
    pub(super) token: Token,
    since: Instant,
}

/// The commands that wait, and the fetch they wait for.
///
/// Each gets what was read after it came: what it depends on (a reservation, say) may have changed since a fetch that
/// was under way then began.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// For the fetch that is under way.
    parked: Vec<Parked>,
    /// For the one after that.
    next: Vec<Parked>,
    fetching: bool,
}

impl Waiting {
    /// Lets a command wait; `fetch` is started unless one is under way.
    pub(super) fn park(&mut self, command: Command, token: Token, fetch: impl FnOnce()) {
        let parked = Parked { command, token, since: Instant::now() };
        if self.fetching {
            self.next.push(parked);
            return;
        }
        self.parked.push(parked);
        self.fetching = true;
        fetch();
    }

    /// The fetch is over: what waited for it, to be carried out now. `fetch` is started again for what came meanwhile.
    pub(super) fn fetched(&mut self, fetch: impl FnOnce()) -> Vec<Parked> {
        let done = std::mem::replace(&mut self.parked, std::mem::take(&mut self.next));
        self.fetching = !self.parked.is_empty();
        if self.fetching {
            fetch();
        }
        done
    }

    /// Everything that waits and fulfils a condition.
    pub(super) fn take(&mut self, mut condition: impl FnMut(&Parked) -> bool) -> Vec<Parked> {
        let mut taken = Vec::new();
        for list in [&mut self.parked, &mut self.next] {
            let (out, left) = std::mem::take(list).into_iter().partition(&mut condition);
            *list = left;
            taken.extend::<Vec<_>>(out);
        }
        taken
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.parked.len() + self.next.len()
    }

    /// Commands that have waited too long.
    pub(super) fn overdue(&mut self) -> Vec<Parked> {
        self.take(|parked| parked.since.elapsed() >= PATIENCE)
    }

    /// How long the loop may sleep without missing that.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let oldest = self.parked.iter().chain(&self.next).map(|p| p.since).min()?;
        Some(PATIENCE.saturating_sub(oldest.elapsed()))
    }
}

/// Starts a fetch on a thread of its own. `answer` is called once, whatever becomes of it.
pub(super) fn fetch(
    source: std::sync::Arc<dyn Fn() -> Result<Identity, String> + Send + Sync>,
    answer: impl FnOnce(Message) + Send + 'static,
) {
    let answer = Answer(Some(answer));
    let run = move || answer.give(source());
    if let Err(error) = std::thread::Builder::new().name("identity".into()).spawn(run) {
        tracing::warn!(%error, "cannot start a thread to read the identity");
    }
}

/// The duty to answer. Dropped, because the thread could not be started or its work panicked, it answers too:
/// else no fetch would ever be started again.
struct Answer<F: FnOnce(Message)>(Option<F>);

impl<F: FnOnce(Message)> Answer<F> {
    fn give(mut self, identity: Result<Identity, String>) {
        if let Some(answer) = self.0.take() {
            answer(Message::Identity(identity));
        }
    }
}

impl<F: FnOnce(Message)> Drop for Answer<F> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Message::Identity(Err("the attempt came to nothing".to_owned())));
        }
    }
}

//! The exclusive lock of an image, taken over from clients that are dead.
//!
//! librbd takes the lock with the first write and gives it up when another client asks. So whoever holds it has held it
//! since that write: a client that still has it when it dies was the only writer from there on. A successor that takes
//! it over without a gap may carry out what the dead client had accepted; after a gap, in which somebody else may have
//! written, it may not ([`Lock::take_over`], docs/recovery.md).

use super::cluster::{Cluster, endpoints};
use super::error::backend_error;
use super::ffi::{Errno, IoCtx, RawImage, c_string};
use crate::block::BackendError;
use std::fmt;
use std::time::Duration;

/// The exclusive lock of an open image.
pub struct Lock<'a> {
    pub(super) image: &'a RawImage,
    pub(super) cluster: &'a Cluster,
    /// Where the image is.
    pub(super) pool: &'a str,
    /// The image's id.
    pub(super) id: &'a str,
    /// This client's addresses.
    pub(super) owner: &'a str,
}

/// Who holds it.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    Nobody,
    /// One of the clients that were asked about; its addresses as librbd has them.
    Predecessor(String),
    /// Somebody else.
    Other,
}

/// The lock was taken.
#[derive(Debug)]
pub struct Taken {
    /// [`Lock::tenure`] of then.
    pub mark: String,
    /// Whether nobody else can have held it in between.
    pub alone: bool,
}

/// What a healthy cluster needs for a few operations on a header. In longer than that another gateway could have been asked for
/// the lock and have written, as the initiators of two paths do.
const PROMPTLY: Duration = Duration::from_millis(500);
/// Whoever serves an image has it open for longer than this.
const BRIEFLY: Duration = Duration::from_secs(10);

/// Whether nobody can have had the lock between two looks that found it free, or ours, so long after each other; `alone` if at
/// both nobody else had the image open.
pub fn is_prompt(between: Duration, alone: bool) -> bool {
    between <= if alone { BRIEFLY } else { PROMPTLY }
}

impl Lock<'_> {
    /// Whether one of the clients of these addresses ([`Cluster::addresses`](super::Cluster::addresses)) holds it.
    pub fn owner(&self, predecessors: &[String]) -> Result<Owner, BackendError> {
        let owners = self.image.lock_owners().map_err(backend_error)?;
        Ok(match owners.into_iter().next() {
            None => Owner::Nobody,
            Some(owner) if is_one_of(&owner, predecessors) => Owner::Predecessor(owner),
            Some(_) => Owner::Other,
        })
    }

    /// Gives it up if this client has it. Whether it had.
    pub fn release(&self) -> Result<bool, BackendError> {
        let had_it = self.image.owns_lock().map_err(backend_error)?;
        if had_it {
            self.image.release_lock().map_err(backend_error)?;
        }
        Ok(had_it)
    }

    /// If nobody holds it: a mark of this image that is another one once somebody has taken it. `None` if somebody
    /// does.
    ///
    /// The lock is an attribute of the image's header object, so that has another version then.
    pub fn mark(&self) -> Result<Option<String>, BackendError> {
        self.mark_if(|owner| owner.is_none())
    }

    /// If this client holds it, or nobody: a mark that is another one once it has changed hands.
    pub fn tenure(&self) -> Result<Option<String>, BackendError> {
        self.mark_if(|owner| owner.is_none_or(|owner| self.is_ours(owner)))
    }

    fn mark_if(&self, right: impl FnOnce(Option<&String>) -> bool) -> Result<Option<String>, BackendError> {
        let before = self.version().map_err(backend_error)?;
        let owners = self.image.lock_owners().map_err(backend_error)?;
        let after = self.version().map_err(backend_error)?;
        Ok((right(owners.first()) && before == after).then(|| format!("{} {after}", self.id)))
    }

    fn is_ours(&self, client: &str) -> bool {
        is_one_of(client, &[self.owner.to_owned()])
    }

    fn version(&self) -> Result<u64, Errno> {
        let header = c_string(&format!("rbd_header.{}", self.id))?;
        IoCtx::open(self.cluster.rados(), &c_string(self.pool)?)?.version(&header)
    }

    /// Breaks it if this owner, as [`Lock::owner`] has named it, still holds it. The owner must have been fenced: nobody
    /// waits for its watch to time out then.
    pub fn break_of(&self, owner: &str) -> Result<(), BackendError> {
        let owner = c_string(owner).map_err(backend_error)?;
        match self.image.break_lock(&owner) {
            Ok(()) | Err(Errno(libc::ENOENT)) => Ok(()),
            Err(errno) => Err(backend_error(errno)),
        }
    }

    /// Takes the lock, which nobody held a moment ago. `None` if somebody else has it by now.
    ///
    /// Only who has the image open holds its lock, and a gateway has it open for as long as it serves it. So nobody
    /// else may have it open before and after.
    pub fn take_over(&self, predecessors: &[String]) -> Result<Option<Taken>, BackendError> {
        let before = self.is_alone(predecessors)?;
        self.image.flush().map_err(backend_error)?;
        let mark = self.mark_if(|owner| owner.is_some_and(|owner| self.is_ours(owner)))?;
        let alone = before && self.is_alone(predecessors)?;
        Ok(mark.map(|mark| Taken { mark, alone }))
    }

    /// Whether nobody has the image open but this client and those.
    pub fn is_alone(&self, predecessors: &[String]) -> Result<bool, BackendError> {
        let watchers = self.image.watchers().map_err(backend_error)?;
        let known = |watcher: &String| self.is_ours(watcher) || is_one_of(watcher, predecessors);
        Ok(watchers.iter().all(known))
    }
}

fn is_one_of(client: &str, clients: &[String]) -> bool {
    let client = endpoints(client);
    clients.iter().any(|one| endpoints(one).iter().any(|endpoint| client.contains(endpoint)))
}

impl fmt::Debug for Lock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("owner", &self.owner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_not_trusted_and_less_so_while_others_have_the_image_open() {
        for (millis, alone, prompt) in [
            (400, false, true),
            (600, false, false),
            (600, true, true),
            (9_000, true, true),
            (11_000, true, false),
        ] {
            assert_eq!(
                is_prompt(Duration::from_millis(millis), alone),
                prompt,
                "{millis} ms, alone: {alone}"
            );
        }
    }
}

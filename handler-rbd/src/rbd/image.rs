//! An open image: opened, verified, and closed when nothing is out.

use super::aio::Flights;
use super::cluster::Cluster;
use super::errands::Errands;
use super::error::{OpenError, backend_error};
use super::ffi::{Errno, ImageOption, IoCtx, OptionSource, RawImage, Watch, c_string};
use super::lock::{Lock, is_prompt};
use super::media;
use crate::block::{Backend, BackendError, ErrorKind, Limits, Op, Request};
use crate::clock::since_boot;
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// librbd 16 refuses to compare and write more than what lies in one sector of this many bytes
/// (`ImageCompareAndWriteRequest`).
const COMPARE_AND_WRITE: u64 = 512;

/// librbd's default, for a library that does not tell.
const DISCARD_GRANULARITY: u64 = 64 << 10;

/// An open RBD image, as a [`Backend`].
///
/// Opening and closing block and belong on a control thread. Closing with requests out would hand librbd's
/// memory and ours to two owners, so then nothing is closed, and the client stays connected.
pub struct Image {
    /// Besides [`Errands`], which ends first, the only reference, except when the image must stay open for
    /// ever.
    raw: Arc<RawImage>,
    flights: Flights,
    errands: Errands,
    watch: Mutex<Option<Watch>>,
    cluster: Arc<Cluster>,
    pool: String,
    name: String,
    id: String,
    /// Whether it has the exclusive-lock feature.
    has_lock: bool,
    size: AtomicU64,
    layout: Layout,
    discard_granularity: u64,
    solid_state: bool,
    /// Dropped after all the others.
    until_closed: Option<Box<dyn Any + Send + Sync>>,
}

impl Image {
    /// Opens an image for reading and writing, without taking its lock: librbd takes it with the first
    /// write. Refuses an image whose writes would be acknowledged before they are durable.
    pub fn open(cluster: Arc<Cluster>, pool: &str, image: &str) -> Result<Self, OpenError> {
        let failed = |step| Failed { cluster: &cluster, pool, image, step };
        let opening = failed("opening");
        let c_pool = c_string(pool).map_err(|errno| opening.because(errno))?;
        let c_name = c_string(image).map_err(|errno| opening.because(errno))?;
        let ioctx = IoCtx::open(cluster.rados(), &c_pool).map_err(|errno| match errno {
            Errno(libc::ENOENT) => OpenError::NoPool { pool: pool.into() },
            errno => opening.because(errno),
        })?;
        let raw = RawImage::open(ioctx, &c_name).map_err(|errno| match errno {
            Errno(libc::ENOENT) => OpenError::NoImage { pool: pool.into(), image: image.into() },
            errno => opening.because(errno),
        })?;
        let options = raw.options().map_err(|errno| failed("reading the options").because(errno))?;
        refuse_unsafe(&options, cluster.zero_copy_writes, pool, image)?;
        let (size, object_size) = raw.stat().map_err(|errno| failed("reading the size").because(errno))?;
        let striping = raw.striping().map_err(|errno| failed("reading the striping").because(errno))?;
        let layout = Layout::new(object_size, striping);
        let id = raw.id().map_err(|errno| failed("reading the id").because(errno))?;
        let has_lock = raw.has_exclusive_lock_feature();
        let has_lock = has_lock.map_err(|errno| failed("reading the features").because(errno))?;
        if !has_lock {
            tracing::warn!(
                "{pool}/{image} lacks the exclusive-lock feature: two gateways that serve it can corrupt it; \
                 run 'rbd feature enable {pool}/{image} exclusive-lock'"
            );
        }
        let raw = Arc::new(raw);
        // Without addresses a note is nobody's, and nobody goes on with it.
        let owner = cluster.addresses().unwrap_or_else(|_| "-".into());
        Ok(Self {
            flights: Flights::new(),
            errands: Errands::new(&raw, &id, &owner),
            watch: Mutex::new(None),
            pool: pool.into(),
            name: image.into(),
            id,
            has_lock,
            size: AtomicU64::new(size),
            discard_granularity: discard_granularity(&options, layout),
            layout,
            solid_state: media::is_solid_state(&cluster, &raw),
            raw,
            cluster,
            until_closed: None,
        })
    }

    /// Has something dropped once the image is closed, by whomever; never, if it cannot be closed.
    pub fn keep(&mut self, until_closed: impl Any + Send + Sync) {
        self.until_closed = Some(Box::new(until_closed));
    }

    /// The image's id, which renaming does not change.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The note that is kept with the image, and the addresses of the client that stored it; both empty if there is none.
    pub fn note_and_owner(&self) -> Result<(String, Vec<u8>), BackendError> {
        self.errands.note()
    }

    /// The client that serves the image.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// What is needed to take over the exclusive lock; `None` for an image that has none.
    pub fn lock(&self) -> Option<Lock<'_>> {
        let (image, owner) = (&self.raw, self.errands.owner());
        self.has_lock.then_some(Lock { image, cluster: &self.cluster, pool: &self.pool, id: &self.id, owner })
    }
}

impl Backend for Image {
    fn refresh(&self) -> Result<u64, BackendError> {
        let size = self.raw.size().map_err(backend_error)?;
        self.size.store(size, Ordering::Relaxed);
        Ok(size)
    }

    fn watch(&self, changed: Box<dyn Fn() + Send + Sync>) -> Result<(), BackendError> {
        let watch = Watch::begin(&self.raw, changed).map_err(backend_error)?;
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        Ok(())
    }

    fn tenure(&self) -> Option<String> {
        self.lock()?.tenure().unwrap_or_else(|error| {
            tracing::warn!("{}/{}: cannot tell who has the lock: {error}", self.pool, self.name);
            None
        })
    }

    fn leave(&self, since: &str) -> Option<String> {
        let (lock, start) = (self.lock()?, since_boot());
        let leave = || {
            let (alone, tenure) = (lock.is_alone(&[])?, since_boot());
            if lock.tenure()?.as_deref() != Some(since) {
                return Ok(None);
            }
            let had_it = lock.release()?;
            uio_ring::crash_point!("left-free");
            let mark = lock.mark()?;
            let same = had_it || mark.as_deref() == Some(since);
            let took = since_boot() - tenure;
            let alone = alone && lock.is_alone(&[])?;
            // In longer than that somebody else may have had it and given it up.
            let prompt = is_prompt(took, false) || (alone && is_prompt(since_boot() - start, true));
            Ok(mark.filter(|_| same && prompt))
        };
        leave().unwrap_or_else(|error: BackendError| {
            tracing::warn!("{}/{} is left without a mark: {error}", self.pool, self.name);
            None
        })
    }

    fn shut_out(&self) -> Result<(), BackendError> {
        let failed = |errno| backend_error(Errno(errno));
        let addresses = self.cluster.addresses().map_err(|error| failed(error.errno))?;
        self.cluster.blocklist(&addresses).map_err(|error| failed(error.errno))
    }

    fn hold_on(&self) -> Result<(), BackendError> {
        if !self.has_lock || !self.raw.owns_lock().map_err(backend_error)? {
            return Ok(());
        }
        self.raw.hold_lock().map_err(backend_error)
    }

    fn note(&self) -> Result<Vec<u8>, BackendError> {
        self.note_and_owner().map(|(_, note)| note)
    }

    fn has_note(&self) -> bool {
        self.errands.has_note()
    }

    fn submit(&self, request: Box<Request>) {
        // librbd writes only what of a range is within the image, and calls that a success.
        let size = self.size.load(Ordering::Relaxed);
        if request.op.range().is_some_and(|range| range.offset.saturating_add(range.len) > size) {
            return request.finish(Err(BackendError::new(ErrorKind::PastEnd)));
        }
        match request.op {
            Op::Extents(_) | Op::SetNote => self.errands.take(request),
            _ => self.flights.start(&self.raw, request),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            size: self.size.load(Ordering::Relaxed),
            object_size: self.layout.contiguous,
            compare_and_write: COMPARE_AND_WRITE,
            discard_granularity: self.discard_granularity,
            solid_state: self.solid_state,
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Waits for a callback under way.
        drop(self.watch.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        self.errands.close();
        let out = self.flights.out();
        if out > 0 {
            tracing::error!(
                "{}/{} is dropped with {out} requests out: it is not closed",
                self.pool,
                self.name
            );
            std::mem::forget(self.raw.clone());
            std::mem::forget(self.until_closed.take());
        }
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("pool", &self.pool).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is needed to tell why opening failed.
struct Failed<'a> {
    cluster: &'a Cluster,
    pool: &'a str,
    image: &'a str,
    step: &'static str,
}

impl Failed<'_> {
    fn because(&self, Errno(errno): Errno) -> OpenError {
        let (pool, image) = (self.pool.to_owned(), self.image.to_owned());
        match errno {
            libc::EACCES | libc::EPERM => {
                OpenError::Denied { id: self.cluster.id().into(), pool, image, errno }
            }
            libc::ETIMEDOUT => OpenError::TimedOut { pool, image },
            libc::ESHUTDOWN => OpenError::Fenced { pool, image },
            errno => OpenError::Io { step: self.step, pool, image, errno },
        }
    }
}

fn value_of<'a>(options: &'a [ImageOption], name: &str) -> Option<&'a ImageOption> {
    options.iter().find(|option| option.name == name)
}

/// Refuses an image whose options make librbd unsafe to use. The client's own configuration is right, but
/// pool and image overrides are applied on top of it at open.
fn refuse_unsafe(
    options: &[ImageOption],
    zero_copy_writes: bool,
    pool: &str,
    image: &str,
) -> Result<(), OpenError> {
    let other_than = |name, right| value_of(options, name).filter(|option| option.value != right);
    let place = |option: &ImageOption| match option.source {
        OptionSource::Image => ("image", format!("{pool}/{image}")),
        OptionSource::Pool => ("pool", pool.to_owned()),
        OptionSource::Client => ("global", "client".to_owned()),
    };
    // Acknowledged must mean durable.
    for (name, off) in [("rbd_cache", "false"), ("rbd_persistent_cache_mode", "disabled")] {
        if let Some(option) = other_than(name, off) {
            let (level, of) = place(option);
            let (option, value) = (name.to_owned(), option.value.clone());
            return Err(OpenError::CacheForced { option, value, level, of });
        }
    }
    // Every command must be answered; `ClusterConfig::zero_copy_writes` says why some would not be.
    if let Some(option) = other_than("rbd_disable_zero_copy_writes", "true").filter(|_| !zero_copy_writes) {
        let (level, of) = place(option);
        return Err(OpenError::ZeroCopyForced { value: option.value.clone(), level, of });
    }
    Ok(())
}

/// How the bytes of the image lie in objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    object_size: u64,
    /// Longest range that is in one object and begins at a multiple of its length: what one RADOS operation
    /// covers.
    contiguous: u64,
    /// Objects that consecutive ranges of this length are spread over.
    stripe_count: u64,
}

impl Layout {
    /// With a stripe over one object, its units lie behind each other.
    fn new(object_size: u64, (stripe_unit, stripe_count): (u64, u64)) -> Self {
        let striped = stripe_count > 1 && (1..object_size).contains(&stripe_unit);
        let (contiguous, stripe_count) = if striped { (stripe_unit, stripe_count) } else { (object_size, 1) };
        Self { object_size, contiguous, stripe_count }
    }
}

/// librbd discards nothing in an object that is smaller than its granularity, and nothing is larger than an
/// object. In the image, what is longer than a stripe unit comes with the stripe's other units in between.
fn discard_granularity(options: &[ImageOption], layout: Layout) -> u64 {
    let configured = value_of(options, "rbd_discard_granularity_bytes").and_then(|o| o.value.parse().ok());
    let in_object =
        configured.filter(|bytes| *bytes > 0).unwrap_or(DISCARD_GRANULARITY).min(layout.object_size);
    if in_object > layout.contiguous { in_object.saturating_mul(layout.stripe_count) } else { in_object }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, value: &str, source: OptionSource) -> ImageOption {
        ImageOption { name: name.into(), value: value.into(), source }
    }

    #[test]
    fn unsafe_options_are_refused_at_every_level() {
        let refused =
            |options: &[ImageOption]| refuse_unsafe(options, false, "p", "i").unwrap_err().to_string();
        let on_image = [option("rbd_cache", "true", OptionSource::Image)];
        assert!(refused(&on_image).contains("'rbd config image rm p/i rbd_cache'"));
        let on_pool = [option("rbd_cache", "true", OptionSource::Pool)];
        assert!(refused(&on_pool).contains("'rbd config pool rm p rbd_cache'"));
        let persistent = [option("rbd_persistent_cache_mode", "ssd", OptionSource::Client)];
        assert!(refused(&persistent).contains("'rbd config global rm client rbd_persistent_cache_mode'"));
        let zero_copy = [option("rbd_disable_zero_copy_writes", "false", OptionSource::Image)];
        assert!(refused(&zero_copy).contains("'rbd config image rm p/i rbd_disable_zero_copy_writes'"));
        assert_eq!(refuse_unsafe(&zero_copy, true, "p", "i"), Ok(()));
        let off = [
            option("rbd_cache", "false", OptionSource::Image),
            option("rbd_persistent_cache_mode", "disabled", OptionSource::Pool),
            option("rbd_disable_zero_copy_writes", "true", OptionSource::Pool),
        ];
        assert_eq!(refuse_unsafe(&off, false, "p", "i"), Ok(()));
    }

    #[test]
    fn discard_granularity_is_the_effective_one() {
        let set = |value| [option("rbd_discard_granularity_bytes", value, OptionSource::Pool)];
        let plain = Layout::new(4 << 20, (4 << 20, 1));
        assert_eq!(discard_granularity(&set("131072"), plain), 131_072);
        assert_eq!(discard_granularity(&set("33554432"), plain), 4 << 20);
        assert_eq!(discard_granularity(&set("0"), plain), 65536);
        assert_eq!(discard_granularity(&[], plain), 65536);
        let striped = |unit| Layout::new(4 << 20, (unit, 8));
        assert_eq!(discard_granularity(&[], striped(65536)), 65536);
        assert_eq!(discard_granularity(&[], striped(16384)), 8 * 65536);
        assert_eq!(discard_granularity(&set("33554432"), striped(65536)), 32 << 20);
    }

    #[test]
    fn what_is_contiguous_is_a_stripe_unit_or_an_object() {
        let contiguous = |striping| Layout::new(4 << 20, striping).contiguous;
        assert_eq!(contiguous((4 << 20, 1)), 4 << 20);
        assert_eq!(contiguous((65536, 16)), 65536);
        assert_eq!(contiguous((65536, 1)), 4 << 20, "units behind each other");
        assert_eq!(contiguous((4 << 20, 16)), 4 << 20);
        assert_eq!(contiguous((0, 0)), 4 << 20, "not told");
    }
}

//! The owner of an open image, and the calls on it that block. Part of the fence of [`super`].

use super::super::bindings as b;
use super::{Errno, IoCtx, check};
use crate::block::ByteRange;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// One option of an image as librbd sees it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::rbd) struct ImageOption {
    pub(in crate::rbd) name: String,
    pub(in crate::rbd) value: String,
    pub(in crate::rbd) source: OptionSource,
}

/// Which level gave an option its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rbd) enum OptionSource {
    /// Configuration file, monitors, or us.
    Client,
    /// `rbd config pool set`.
    Pool,
    /// `rbd config image set`.
    Image,
}

/// An open image. Closed on drop, which blocks, and which is only right while no I/O is out.
pub(in crate::rbd) struct RawImage {
    handle: b::rbd_image_t,
    _ioctx: IoCtx,
}

// SAFETY: librbd documents images as usable from several threads; it locks for itself.
unsafe impl Send for RawImage {}
// SAFETY: as above, also for concurrent calls through shared references.
unsafe impl Sync for RawImage {}

impl RawImage {
    /// Opens an image for writing. Takes no lock.
    pub(in crate::rbd) fn open(ioctx: IoCtx, name: &CStr) -> Result<Self, Errno> {
        let mut handle = b::rbd_image_t(ptr::null_mut());
        // SAFETY: the context is live and moves into the value that owns the new handle; a null snapshot
        // name means the image's head.
        check(unsafe { b::rbd_open(ioctx.handle, name.as_ptr(), &raw mut handle, ptr::null()) })?;
        Ok(Self { handle, _ioctx: ioctx })
    }

    /// For `aio`, the only other user of the handle.
    pub(in crate::rbd) fn handle(&self) -> b::rbd_image_t {
        self.handle
    }

    /// Size of the image and of its objects.
    pub(in crate::rbd) fn stat(&self) -> Result<(u64, u64), Errno> {
        let mut info = MaybeUninit::<b::rbd_image_info_t>::zeroed();
        // SAFETY: `info` has the size that is passed; the image is open until drop.
        check(unsafe { b::rbd_stat(self.handle, info.as_mut_ptr(), size_of::<b::rbd_image_info_t>()) })?;
        // SAFETY: zeroes are a valid value of this struct of integers, and the call only filled it.
        let info = unsafe { info.assume_init() };
        Ok((info.size, info.obj_size))
    }

    pub(in crate::rbd) fn size(&self) -> Result<u64, Errno> {
        let mut size = 0;
        // SAFETY: stores one u64; the image is open until drop.
        check(unsafe { b::rbd_get_size(self.handle, &raw mut size) })?;
        Ok(size)
    }

    pub(in crate::rbd) fn has_exclusive_lock_feature(&self) -> Result<bool, Errno> {
        Ok(self.features()? & u64::from(b::RBD_FEATURE_EXCLUSIVE_LOCK) != 0)
    }

    fn features(&self) -> Result<u64, Errno> {
        let mut features = 0;
        // SAFETY: stores one u64; the image is open until drop.
        check(unsafe { b::rbd_get_features(self.handle, &raw mut features) })?;
        Ok(features)
    }

    /// Whether the image has a map of its objects that tells which of them exist, and it is right.
    pub(in crate::rbd) fn has_valid_map(&self) -> Result<bool, Errno> {
        // The feature fast-diff cannot be without object-map.
        if self.features()? & u64::from(b::RBD_FEATURE_FAST_DIFF) == 0 {
            return Ok(false);
        }
        let mut flags = 0;
        // SAFETY: stores one u64; the image is open until drop.
        check(unsafe { b::rbd_get_flags(self.handle, &raw mut flags) })?;
        Ok(flags & u64::from(b::RBD_FLAG_OBJECT_MAP_INVALID | b::RBD_FLAG_FAST_DIFF_INVALID) == 0)
    }

    /// Whether data that the image does not have may be its parent's.
    pub(in crate::rbd) fn overlaps_parent(&self) -> Result<bool, Errno> {
        let mut overlap = 0;
        // SAFETY: stores one u64; the image is open until drop.
        check(unsafe { b::rbd_get_overlap(self.handle, &raw mut overlap) })?;
        Ok(overlap > 0)
    }

    /// Stripe unit and stripe count.
    pub(in crate::rbd) fn striping(&self) -> Result<(u64, u64), Errno> {
        let (mut unit, mut count) = (0, 0);
        // SAFETY: stores one u64; the image is open until drop.
        check(unsafe { b::rbd_get_stripe_unit(self.handle, &raw mut unit) })?;
        // SAFETY: as above.
        check(unsafe { b::rbd_get_stripe_count(self.handle, &raw mut count) })?;
        Ok((unit, count))
    }

    /// Id of the pool that holds the image's data.
    pub(in crate::rbd) fn data_pool(&self) -> Result<i64, Errno> {
        // SAFETY: the image is open until drop.
        let id = unsafe { b::rbd_get_data_pool_id(self.handle) };
        if id < 0 { Err(Errno(i32::try_from(id.saturating_neg()).unwrap_or(libc::EIO))) } else { Ok(id) }
    }

    /// What of a range there is data for here or in a parent, as librbd tells it: neither in order nor
    /// joined. In whole objects if so wished. Blocks.
    pub(in crate::rbd) fn extents(&self, range: ByteRange, objects: bool) -> Result<Vec<ByteRange>, Errno> {
        let found = Mutex::new(Vec::new());
        let arg = (&raw const found).cast_mut().cast();
        // SAFETY: a null snapshot is the beginning of time; `collect` has the callback's type and takes
        // this argument, of which it makes a shared reference only. librbd calls it before this call ends
        // and never after; `found` lives longer.
        check(unsafe {
            let (offset, len) = (range.offset, range.len);
            b::rbd_diff_iterate2(self.handle, ptr::null(), offset, len, 1, objects.into(), Some(collect), arg)
        })?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value that the image's metadata has for a key. Blocks.
    pub(in crate::rbd) fn metadata(&self, key: &CStr) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0u8; 4096];
        loop {
            let mut len = value.len();
            // SAFETY: the function writes a NUL-terminated string into `len` bytes, or nothing and fails
            // with ERANGE and the length that it needs; the key is NUL-terminated and only read.
            let ret = check(unsafe {
                b::rbd_metadata_get(self.handle, key.as_ptr(), value.as_mut_ptr().cast(), &raw mut len)
            });
            match ret {
                Err(Errno(libc::ERANGE)) if len > value.len() => value.resize(len, 0),
                Err(errno) => return Err(errno),
                Ok(_) => {
                    value.truncate(value.iter().position(|byte| *byte == 0).unwrap_or(value.len()));
                    return Ok(value);
                }
            }
        }
    }

    /// Sets the value of a key in the image's metadata. Blocks.
    pub(in crate::rbd) fn set_metadata(&self, key: &CStr, value: &CStr) -> Result<(), Errno> {
        // SAFETY: the image is open until drop; both strings are NUL-terminated and only read.
        check(unsafe { b::rbd_metadata_set(self.handle, key.as_ptr(), value.as_ptr()) }).map(drop)
    }

    /// Removes a key from the image's metadata. Blocks.
    pub(in crate::rbd) fn remove_metadata(&self, key: &CStr) -> Result<(), Errno> {
        // SAFETY: the image is open until drop; the string is NUL-terminated and only read.
        check(unsafe { b::rbd_metadata_remove(self.handle, key.as_ptr()) }).map(drop)
    }

    pub(in crate::rbd) fn id(&self) -> Result<String, Errno> {
        let mut id = [0u8; 256];
        // SAFETY: the function writes a NUL-terminated string into the length it is told, or fails.
        check(unsafe { b::rbd_get_id(self.handle, id.as_mut_ptr().cast(), id.len()) })?;
        let id = CStr::from_bytes_until_nul(&id).map_err(|_| Errno(libc::EINVAL))?;
        Ok(id.to_string_lossy().into_owned())
    }

    /// Every librbd option, with pool and image overrides applied.
    pub(in crate::rbd) fn options(&self) -> Result<Vec<ImageOption>, Errno> {
        let mut room: c_int = 256;
        loop {
            let empty = b::rbd_config_option_t { name: ptr::null_mut(), value: ptr::null_mut(), source: 0 };
            let mut list = vec![empty; usize::try_from(room).unwrap_or(0)];
            let mut count = room;
            // SAFETY: `list` has `count` elements; the function fills at most that many and stores how
            // many it filled, or ERANGE and how many it needs.
            match check(unsafe { b::rbd_config_image_list(self.handle, list.as_mut_ptr(), &raw mut count) }) {
                Err(Errno(libc::ERANGE)) if count > room => room = count,
                Err(errno) => return Err(errno),
                Ok(_) => {
                    let filled = usize::try_from(count).unwrap_or(0).min(list.len());
                    let options = list[..filled].iter().map(image_option).collect();
                    // SAFETY: frees the strings of the `count` elements it filled; `options` has copies.
                    unsafe { b::rbd_config_image_list_cleanup(list.as_mut_ptr(), count) };
                    return Ok(options);
                }
            }
        }
    }

    /// Whether this client has the exclusive lock.
    pub(in crate::rbd) fn owns_lock(&self) -> Result<bool, Errno> {
        let mut owns = 0;
        // SAFETY: stores one int; the image is open until drop.
        check(unsafe { b::rbd_is_exclusive_lock_owner(self.handle, &raw mut owns) })?;
        Ok(owns != 0)
    }

    /// Takes the exclusive lock, and from then on refuses it to clients that ask for it. Blocks.
    pub(in crate::rbd) fn hold_lock(&self) -> Result<(), Errno> {
        // SAFETY: the image is open until drop.
        check(unsafe { b::rbd_lock_acquire(self.handle, b::RBD_LOCK_MODE_EXCLUSIVE) }).map(drop)
    }

    /// Gives the exclusive lock up, which this client has. Blocks.
    pub(in crate::rbd) fn release_lock(&self) -> Result<(), Errno> {
        // SAFETY: the image is open until drop.
        check(unsafe { b::rbd_lock_release(self.handle) }).map(drop)
    }

    /// Addresses of the clients that hold the managed lock; none if it is free.
    pub(in crate::rbd) fn lock_owners(&self) -> Result<Vec<String>, Errno> {
        let mut mode = b::RBD_LOCK_MODE_EXCLUSIVE;
        let mut owners = [ptr::null_mut::<c_char>(); 8];
        let mut count = owners.len();
        // SAFETY: `owners` has `count` elements; the function fills at most that many with strings that
        // it allocates, and stores how many.
        let ret = check(unsafe {
            b::rbd_lock_get_owners(self.handle, &raw mut mode, owners.as_mut_ptr(), &raw mut count)
        });
        match ret {
            Err(Errno(libc::ENOENT)) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        let count = count.min(owners.len());
        let names = owners[..count].iter().filter_map(|owner| text(*owner)).collect();
        // SAFETY: frees the `count` strings that the call above allocated; `names` has copies.
        unsafe { b::rbd_lock_get_owners_cleanup(owners.as_mut_ptr(), count) };
        Ok(names)
    }

    /// Addresses of the clients that have the image open for writing, this one among them. Who holds the lock does.
    pub(in crate::rbd) fn watchers(&self) -> Result<Vec<String>, Errno> {
        let empty = b::rbd_image_watcher_t { addr: ptr::null_mut(), id: 0, cookie: 0 };
        let mut room = 16;
        loop {
            let mut list = vec![empty; room];
            let mut count = list.len();
            // SAFETY: `list` has `count` elements; the function fills at most that many with strings that it allocates
            // and stores how many, or ERANGE and how many it needs.
            match check(unsafe { b::rbd_watchers_list(self.handle, list.as_mut_ptr(), &raw mut count) }) {
                Err(Errno(libc::ERANGE)) if count > room => room = count,
                Err(errno) => return Err(errno),
                Ok(_) => {
                    let count = count.min(list.len());
                    let found = list[..count].iter().filter_map(|watcher| text(watcher.addr)).collect();
                    // SAFETY: frees the strings of the `count` elements it filled; `found` has copies.
                    unsafe { b::rbd_watchers_list_cleanup(list.as_mut_ptr(), count) };
                    return Ok(found);
                }
            }
        }
    }

    /// Flushes, for which librbd takes the exclusive lock. Blocks.
    pub(in crate::rbd) fn flush(&self) -> Result<(), Errno> {
        // SAFETY: the image is open until drop.
        check(unsafe { b::rbd_flush(self.handle) }).map(drop)
    }

    /// Breaks the exclusive lock if `owner` holds it.
    pub(in crate::rbd) fn break_lock(&self, owner: &CStr) -> Result<(), Errno> {
        // SAFETY: the image is open until drop; the string is NUL-terminated and only read.
        check(unsafe { b::rbd_lock_break(self.handle, b::RBD_LOCK_MODE_EXCLUSIVE, owner.as_ptr()) }).map(drop)
    }
}

/// What [`RawImage::extents`] is called back with. Nothing in it unwinds: it only pushes, into room that it
/// has asked for; should it panic all the same, the process aborts at this frame.
///
/// # Safety
/// `found` is what [`RawImage::extents`] passes, while it runs.
unsafe extern "C" fn collect(offset: u64, len: usize, exists: c_int, found: *mut c_void) -> c_int {
    // SAFETY: the caller's promise: it points to this type, which lives during the call and to which there
    // are shared references only.
    let found = unsafe { &*found.cast_const().cast::<Mutex<Vec<ByteRange>>>() };
    if exists == 0 {
        return 0; // a hole
    }
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    if found.try_reserve(1).is_err() {
        return -libc::ENOMEM;
    }
    found.push(ByteRange { offset, len: len as u64 });
    0
}

/// Copies a string that a librbd list function stored.
fn text(string: *const c_char) -> Option<String> {
    // SAFETY: only called on what such a function just stored, before its cleanup function: null or a
    // NUL-terminated string.
    (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned())
}

fn image_option(raw: &b::rbd_config_option_t) -> ImageOption {
    ImageOption {
        name: text(raw.name).unwrap_or_default(),
        value: text(raw.value).unwrap_or_default(),
        source: match raw.source {
            b::RBD_CONFIG_SOURCE_IMAGE => OptionSource::Image,
            b::RBD_CONFIG_SOURCE_POOL => OptionSource::Pool,
            _ => OptionSource::Client,
        },
    }
}

impl Drop for RawImage {
    fn drop(&mut self) {
        // SAFETY: the handle is not used again, and no I/O is out: `Image` forgets this value otherwise.
        if let Err(errno) = check(unsafe { b::rbd_close(self.handle) }) {
            tracing::warn!("closing an image: {errno}");
        }
    }
}

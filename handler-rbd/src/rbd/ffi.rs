//! Owners of the librados and librbd handles, and the thin calls on them. Unsafe code is allowed here.
//!
//! Every call returns the library's errno, positive, as [`Errno`]; meaning is given to it elsewhere. Each
//! owner keeps alive what its handle depends on ([`RawImage`] -> [`IoCtx`] -> [`Rados`]), so handles can
//! only be closed in the right order. What librados functions the `ceph` crate declares are called through
//! it; the rest, and librbd, through our bindings (docs/dependencies.md).
#![allow(unsafe_code)]

mod image;
mod watch;

use super::bindings as b;
use ceph::rados;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::Arc;
use std::{fmt, io, ptr};

pub(super) use image::{ImageOption, OptionSource, RawImage};
pub(super) use watch::Watch;

/// A positive errno of librados or librbd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// The libraries' convention: negative is an errno, anything else a success.
fn check(ret: c_int) -> Result<c_int, Errno> {
    if ret < 0 { Err(Errno(ret.saturating_neg())) } else { Ok(ret) }
}

/// A C string; one with a NUL inside is refused as the libraries refuse bad arguments.
pub(super) fn c_string(text: &str) -> Result<CString, Errno> {
    CString::new(text).map_err(|_| Errno(libc::EINVAL))
}

/// Buffers of librados, as bytes. Freed on drop.
struct RadosBuffer {
    start: *mut c_char,
    len: usize,
}

impl RadosBuffer {
    const fn empty() -> Self {
        Self { start: ptr::null_mut(), len: 0 }
    }

    fn to_vec(&self) -> Vec<u8> {
        if self.start.is_null() {
            return Vec::new();
        }
        // SAFETY: `rados_mon_command` stored `len` initialised bytes at `start`; this value frees them and
        // is borrowed here.
        unsafe { std::slice::from_raw_parts(self.start.cast::<u8>(), self.len) }.to_vec()
    }
}

impl Drop for RadosBuffer {
    fn drop(&mut self) {
        if !self.start.is_null() {
            // SAFETY: librados allocated it for its caller to free so, and nobody else has the address.
            unsafe { rados::rados_buffer_free(self.start) };
        }
    }
}

/// One RADOS client. Shut down on drop.
pub(super) struct Rados(b::rados_t);

// SAFETY: librados documents a `rados_t` as usable from several threads; no call made here keeps
// thread-local state.
unsafe impl Send for Rados {}
// SAFETY: as above: the library locks for itself, so shared references may call concurrently.
unsafe impl Sync for Rados {}

impl Rados {
    /// A client that is not connected; `id` is what follows "client.".
    pub(super) fn create(id: Option<&CStr>) -> Result<Self, Errno> {
        let mut handle: rados::rados_t = ptr::null_mut();
        // SAFETY: `handle` is where the function stores the new handle; `id` is NUL-terminated or null,
        // which librados defines as the default user.
        check(unsafe { rados::rados_create(&raw mut handle, id.map_or(ptr::null(), CStr::as_ptr)) })?;
        Ok(Self(b::rados_t(handle)))
    }

    /// Reads a configuration file; without a path the ones of the library's search list.
    pub(super) fn read_conf(&self, path: Option<&CStr>) -> Result<(), Errno> {
        let path = path.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: the handle lives until drop; `path` is NUL-terminated, or null for the search list.
        check(unsafe { rados::rados_conf_read_file(self.0.0, path) }).map(drop)
    }

    /// Sets one option.
    pub(super) fn set(&self, option: &CStr, value: &CStr) -> Result<(), Errno> {
        // SAFETY: the handle lives until drop and both strings are NUL-terminated and only read.
        check(unsafe { rados::rados_conf_set(self.0.0, option.as_ptr(), value.as_ptr()) }).map(drop)
    }

    /// The value of one option.
    pub(super) fn get(&self, option: &CStr) -> Result<String, Errno> {
        let mut value = [0u8; 4096];
        let room = value.len();
        // SAFETY: `value` has `room` bytes, within which the function writes a NUL-terminated string or
        // fails with ENAMETOOLONG.
        check(unsafe { rados::rados_conf_get(self.0.0, option.as_ptr(), value.as_mut_ptr().cast(), room) })?;
        let text = CStr::from_bytes_until_nul(&value).map_err(|_| Errno(libc::EINVAL))?;
        Ok(text.to_string_lossy().into_owned())
    }

    /// Connects; blocks up to the configured time-outs.
    pub(super) fn connect(&self) -> Result<(), Errno> {
        // SAFETY: the handle is live; `Cluster::connect`, the only caller, calls this once.
        check(unsafe { rados::rados_connect(self.0.0) }).map(drop)
    }

    /// The name of a pool, from the map that this client has: nobody is asked.
    pub(super) fn pool_name(&self, id: i64) -> Result<String, Errno> {
        let mut name = [0u8; 1024];
        let room = name.len();
        // SAFETY: the handle is connected (`Cluster` exists only then); within `room` bytes the function
        // writes a NUL-terminated string or fails with ERANGE.
        check(unsafe { rados::rados_pool_reverse_lookup(self.0.0, id, name.as_mut_ptr().cast(), room) })?;
        let name = CStr::from_bytes_until_nul(&name).map_err(|_| Errno(libc::EINVAL))?;
        Ok(name.to_string_lossy().into_owned())
    }

    /// The client's addresses in the form that blocklisting takes.
    pub(super) fn addresses(&self) -> Result<String, Errno> {
        let mut text: *mut c_char = ptr::null_mut();
        // SAFETY: the handle is connected (`Cluster` exists only then); `text` is where the function
        // stores a string it allocates.
        check(unsafe { b::rados_getaddrs(self.0, &raw mut text) })?;
        if text.is_null() {
            return Err(Errno(libc::EINVAL));
        }
        // SAFETY: on success librados stored a NUL-terminated string there, ours until freed below.
        let owned = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        // SAFETY: librados allocated it with `strdup`'s allocator for the caller; not used after this.
        unsafe { rados::rados_buffer_free(text) };
        Ok(owned)
    }

    /// Shuts a client out, and waits until this client knows the map that says so.
    pub(super) fn blocklist(&self, address: &CStr, seconds: u32) -> Result<(), Errno> {
        // SAFETY: the prototype lacks a const: librados only reads the NUL-terminated string.
        check(unsafe { b::rados_blocklist_add(self.0, address.as_ptr().cast_mut(), seconds) }).map(drop)
    }

    /// Enters the service map; `metadata` is what [`super::cluster`] calls a dictionary.
    pub(super) fn service_register(
        &self,
        service: &CStr,
        daemon: &CStr,
        metadata: &Dict,
    ) -> Result<(), Errno> {
        let metadata = metadata.as_ptr();
        // SAFETY: `Dict` ends with the empty key that the library stops at; all three are only read.
        check(unsafe { b::rados_service_register(self.0, service.as_ptr(), daemon.as_ptr(), metadata) })
            .map(drop)
    }

    /// Replaces the status in the service map.
    pub(super) fn service_status(&self, status: &Dict) -> Result<(), Errno> {
        // SAFETY: `Dict` ends with the empty key that the library stops at, and is only read.
        check(unsafe { b::rados_service_update_status(self.0, status.as_ptr()) }).map(drop)
    }

    /// Sends a command to a monitor; the reply's data, or the errno and the monitor's words.
    pub(super) fn mon_command(&self, json: &CStr) -> Result<Vec<u8>, (Errno, Vec<u8>)> {
        let mut command = json.as_ptr();
        let (mut data, mut words) = (RadosBuffer::empty(), RadosBuffer::empty());
        // SAFETY: one NUL-terminated command, no input; the four out-pointers take two buffers that the
        // library allocates, also when it fails, and that `RadosBuffer` frees.
        let ret = unsafe {
            rados::rados_mon_command(
                self.0.0,
                &raw mut command,
                1,
                ptr::null(),
                0,
                &raw mut data.start,
                &raw mut data.len,
                &raw mut words.start,
                &raw mut words.len,
            )
        };
        check(ret).map(|_| data.to_vec()).map_err(|errno| (errno, words.to_vec()))
    }
}

impl Drop for Rados {
    fn drop(&mut self) {
        // SAFETY: the last owner is gone, so no I/O context or image of this client is open (they hold an
        // `Arc` of it), and the handle is not used again.
        unsafe { rados::rados_shutdown(self.0.0) };
    }
}

/// Key-value pairs as librados takes them: NUL-terminated strings, the last one an empty key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dict(Vec<u8>);

impl Dict {
    /// A pair with an empty key would end the dictionary early, and a NUL would shift all pairs after it:
    /// such keys are left out, and of such values what follows the NUL.
    pub(super) fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in pairs.into_iter().filter(|(key, _)| !key.is_empty() && !key.contains('\0')) {
            bytes.extend_from_slice(key.as_bytes());
            bytes.push(0);
            bytes.extend(value.bytes().take_while(|byte| *byte != 0));
            bytes.push(0);
        }
        bytes.push(0);
        Self(bytes)
    }

    fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }
}

/// An open pool. Destroyed on drop.
pub(super) struct IoCtx {
    handle: b::rados_ioctx_t,
    _rados: Arc<Rados>,
}

// SAFETY: librados locks a context for itself; this type offers no call that changes its state.
unsafe impl Send for IoCtx {}
// SAFETY: as above.
unsafe impl Sync for IoCtx {}

impl IoCtx {
    pub(super) fn open(rados: &Arc<Rados>, pool: &CStr) -> Result<Self, Errno> {
        let mut handle: rados::rados_ioctx_t = ptr::null_mut();
        // SAFETY: the client is connected and kept alive by the `Arc` stored beside the new handle.
        check(unsafe { rados::rados_ioctx_create(rados.0.0, pool.as_ptr(), &raw mut handle) })?;
        let handle = b::rados_ioctx_t(handle);
        // On a full pool what needs no space (overwriting, discarding) is done then, and what does fails at once;
        // else a write hangs until its time-out and nobody knows why. librbd goes by this for the images it opens.
        // SAFETY: the context is live; the call sets a flag in it, and nobody else has it yet.
        unsafe { b::rados_set_pool_full_try(handle) };
        Ok(Self { handle, _rados: rados.clone() })
    }

    /// The version of an object, which changes with its content and attributes, and not with who watches it. Blocks.
    /// Nobody else may use the context meanwhile.
    pub(super) fn version(&mut self, object: &CStr) -> Result<u64, Errno> {
        let (mut size, mut mtime) = (0, 0);
        // SAFETY: the context is live, the name NUL-terminated; the function stores one integer in each.
        check(unsafe { rados::rados_stat(self.handle.0, object.as_ptr(), &raw mut size, &raw mut mtime) })?;
        // SAFETY: the context is live; what the call above has read is its last.
        Ok(unsafe { rados::rados_get_last_version(self.handle.0) })
    }
}

impl Drop for IoCtx {
    fn drop(&mut self) {
        // SAFETY: an image opened with this context owns it, so none is open; not used again.
        unsafe { rados::rados_ioctx_destroy(self.handle.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionary_is_nul_separated_and_ends_with_an_empty_key() {
        let dict = Dict::new([("pool_name", "rbd"), ("image_name", ""), ("image_id", "12ab")]);
        assert_eq!(dict.0, b"pool_name\0rbd\0image_name\0\0image_id\x0012ab\0\0");
        assert_eq!(Dict::new([]).0, b"\0");
    }

    #[test]
    fn dictionary_cannot_be_cut_short_or_shifted_from_outside() {
        let dict = Dict::new([("", "x"), ("a\0b", "x"), ("k", "v\0w"), ("l", "m")]);
        assert_eq!(dict.0, b"k\0v\0l\0m\0\0");
    }

    #[test]
    fn errno_comes_from_negative_returns_only() {
        assert_eq!(check(-108), Err(Errno(108)));
        assert_eq!(check(7), Ok(7));
        assert_eq!(c_string("a\0b"), Err(Errno(libc::EINVAL)));
    }
}

//! Being told that an image has changed.

use super::{Errno, RawImage, b, check};
use std::ffi::c_void;
use std::sync::Arc;

type Changed = Box<dyn Fn() + Send + Sync>;

/// A callback that librbd has for an image: for `rbd resize`, by this client or another. It survives that the
/// cluster loses the watch on the image's header: librbd renews it and calls back then. Ends on drop, which waits
/// for a callback under way.
pub(in crate::rbd) struct Watch {
    image: Arc<RawImage>,
    handle: u64,
    /// From `Box::into_raw`; librbd's argument until the watch has ended.
    changed: *mut Changed,
}

// SAFETY: the image may be used from several threads (`RawImage`); `changed` is an owned box in disguise that is
// only called through shared references, and its content is `Send + Sync`.
unsafe impl Send for Watch {}

impl Watch {
    pub(in crate::rbd) fn begin(image: &Arc<RawImage>, changed: Changed) -> Result<Self, Errno> {
        let changed = Box::into_raw(Box::new(changed));
        let mut handle = 0;
        // SAFETY: `on_change` has the callback's type and takes this argument, which lives until librbd has ended
        // the watch; the image is open as long as the value that is made here holds it.
        let ret = check(unsafe {
            b::rbd_update_watch(image.handle(), &raw mut handle, Some(on_change), changed.cast())
        });
        if let Err(errno) = ret {
            // SAFETY: from `Box::into_raw` above; librbd refused it and has it no more.
            drop(unsafe { Box::from_raw(changed) });
            return Err(errno);
        }
        Ok(Self { image: image.clone(), handle, changed })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: the handle is of this image, which is open; it is not used again.
        if let Err(errno) = check(unsafe { b::rbd_update_unwatch(self.image.handle(), self.handle) }) {
            // The box is left to librbd, which may still call.
            tracing::warn!("ending the watch on an image: {errno}");
            return;
        }
        // SAFETY: from `Box::into_raw` in `begin`; librbd has waited for its last callback and forgotten it.
        drop(unsafe { Box::from_raw(self.changed) });
    }
}

/// librbd's callback. Should anything in it panic, the process aborts at this frame: `extern "C"`.
///
/// # Safety
/// Called by librbd only, with the argument of a watch that has not ended.
unsafe extern "C" fn on_change(changed: *mut c_void) {
    // SAFETY: the caller's promise: the box of a live watch, to which there are shared references only.
    let changed = unsafe { &*changed.cast_const().cast::<Changed>() };
    changed();
}

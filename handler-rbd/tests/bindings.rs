//! The checked-in librbd bindings equal what bindgen makes of the installed headers.
//!
//! `scripts/bindgen` runs this with `OVERWRITE_BINDINGS=1` to regenerate the file. Everything that we call
//! exists since Ceph 16 (Pacific), so a newer header must not change a byte of it.

use bindgen::Builder;
use std::path::Path;

/// What `rbd::ffi` and `rbd::aio` call of librbd, and of librados what the `ceph` crate lacks.
const FUNCTIONS: &str = "rados_(service_register|service_update_status|getaddrs|blocklist_add|set_pool_full_try)\
    |rbd_(open|close|stat|get_size|get_features|get_flags|get_id|get_overlap|get_data_pool_id)\
    |rbd_get_stripe_(unit|count)\
    |rbd_update_(watch|unwatch)\
    |rbd_diff_iterate2\
    |rbd_metadata_(get|set|remove)\
    |rbd_lock_(acquire|release|get_owners|get_owners_cleanup|break)\
    |rbd_is_exclusive_lock_owner\
    |rbd_watchers_(list|list_cleanup)|rbd_flush\
    |rbd_config_image_list|rbd_config_image_list_cleanup\
    |rbd_aio_(create_completion|release|get_return_value)\
    |rbd_aio_(read|readv|write|writev|flush|discard|write_zeroes|writesame|compare_and_write)";

/// Distinct types, so that the compiler does not take a completion for an image.
const HANDLES: &str = "rados_t|rados_ioctx_t|rbd_image_t|rbd_completion_t";

#[test]
fn checked_in_bindings_match_the_installed_headers() {
    let generated = Builder::default()
        .header_contents("rbd.h", "#include <rbd/librbd.h>\n")
        .allowlist_function(FUNCTIONS)
        .allowlist_var("RBD_FEATURE_(EXCLUSIVE_LOCK|FAST_DIFF)|RBD_FLAG_(OBJECT_MAP|FAST_DIFF)_INVALID")
        .new_type_alias(HANDLES)
        .blocklist_type("iovec|__uint.*_t|__u?int.*_t|__ssize_t|ssize_t")
        .raw_line("use libc::iovec;")
        .use_core()
        .ctypes_prefix("::core::ffi")
        .prepend_enum_name(false)
        .wrap_unsafe_ops(true)
        .generate_comments(false)
        .formatter(bindgen::Formatter::Prettyplease)
        .generate()
        .expect("bindgen reads the installed rbd/librbd.h")
        .to_string();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rbd/bindings.rs");
    if std::env::var_os("OVERWRITE_BINDINGS").is_some() {
        std::fs::write(&path, &generated).expect("src/rbd/bindings.rs can be written");
    }
    let checked_in = std::fs::read_to_string(&path).expect("src/rbd/bindings.rs exists");
    assert!(
        generated == checked_in,
        "src/rbd/bindings.rs is stale: run scripts/bindgen, read the difference"
    );
}

//! The checked-in bindings equal what bindgen makes of the installed header.
//!
//! `scripts/bindgen` runs this with `OVERWRITE_BINDINGS=1` to regenerate the file.

use bindgen::{Builder, NonCopyUnionStyle};
use std::path::Path;

/// Empties the header's `packed` attribute for the TCMU structs only: with it, bindgen puts
/// `cmd_tail` at 16 instead of 64 and its own layout assertions cannot be met. gcc's offsets
/// without the attribute are the same, because every field is naturally aligned already.
const HEADER: &str = "#include <linux/types.h>\n\
                      #include <linux/uio.h>\n\
                      #define packed\n\
                      #include <linux/target_core_user.h>\n\
                      #undef packed\n";

#[test]
fn checked_in_bindings_match_the_installed_header() {
    let generated = Builder::default()
        .header_contents("tcmu.h", HEADER)
        .allowlist_item("tcmu_.*|TCMU_.*|__TCMU.*|ALIGN_SIZE")
        .blocklist_type("iovec")
        .raw_line("use libc::iovec;")
        .default_non_copy_union_style(NonCopyUnionStyle::ManuallyDrop)
        .use_core()
        .ctypes_prefix("::core::ffi")
        .prepend_enum_name(false)
        .wrap_unsafe_ops(true)
        .formatter(bindgen::Formatter::Prettyplease)
        .generate()
        .expect("bindgen reads the installed linux/target_core_user.h")
        .to_string();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bindings.rs");
    if std::env::var_os("OVERWRITE_BINDINGS").is_some() {
        std::fs::write(&path, &generated).expect("src/bindings.rs can be written");
    }
    let checked_in = std::fs::read_to_string(&path).expect("src/bindings.rs exists");
    assert!(generated == checked_in, "src/bindings.rs is stale: run scripts/bindgen and read the difference");
}

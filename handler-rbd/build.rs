//! Links librbd. librados comes with the `ceph` crate's declarations.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-lib=dylib=rbd");
    println!("cargo::rustc-link-lib=dylib=rados");
}

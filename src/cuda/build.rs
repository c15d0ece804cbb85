//! Packs the PTX of the kernels, which most processes never need.
#![allow(
    clippy::expect_used,
    reason = "a build may end where its own files cannot be read"
)]

use std::path::Path;

fn main() {
    const PTX: &str = "../../kernels/graphpatch.ptx";
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={PTX}");
    let text = std::fs::read(PTX).expect("the kernels' PTX");
    let packed = miniz_oxide::deflate::compress_to_vec(&text, 10);
    let out = std::env::var_os("OUT_DIR").expect("set by cargo");
    std::fs::write(Path::new(&out).join("ptx.deflate"), packed).expect("a build folder");
}

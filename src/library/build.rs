//! Gives the library its SONAME.
#![allow(
    clippy::expect_used,
    reason = "a build may end where cargo breaks its word"
)]

use std::path::Path;

/// The C ABI's number: rises when a program made against an older header would not run, and then only.
const ABI: u32 = 0;

/// Programs that are linked with the library ask for it by its SONAME. `cargo build` makes `libgraphpatch.so` alone, so a
/// link beside it lets programs run that were linked straight from the build folder.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=GRAPHPATCH_ABI={ABI}");
    let of = |name: &str| std::env::var(name).expect("set by cargo");
    if of("CARGO_CFG_TARGET_OS") != "linux" {
        return;
    }
    let soname = format!("libgraphpatch.so.{ABI}");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    // OUT_DIR is PROFILE/build/PACKAGE/out. Nothing but such programs needs the link: no reason to fail a build.
    let out = of("OUT_DIR");
    let Some(profile) = Path::new(&out).ancestors().nth(3) else {
        return;
    };
    for folder in [profile.to_path_buf(), profile.join("deps")] {
        let link = folder.join(&soname);
        if link.symlink_metadata().is_err()
            && let Err(why) = std::os::unix::fs::symlink("libgraphpatch.so", &link)
        {
            println!("cargo:warning={}: {why}", link.display());
        }
    }
}

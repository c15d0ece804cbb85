//! Gives the library its SONAME.
#![allow(
    clippy::expect_used,
    reason = "a build may end where cargo breaks its word"
)]

use std::path::Path;

/// The number of the C ABI. It rises only when a program that was built against an older header would no longer run.
const ABI: u32 = 0;

/// Programs that are linked with the library ask for it by its SONAME. `cargo build` makes only `libgraphpatch.so`. A
/// symbolic link beside it lets programs run that were linked with the library in the build folder.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=GRAPHPATCH_ABI={ABI}");
    let of = |name: &str| std::env::var(name).expect("set by cargo");
    if of("CARGO_CFG_TARGET_OS") != "linux" {
        return;
    }
    let soname = format!("libgraphpatch.so.{ABI}");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    // OUT_DIR is PROFILE/build/PACKAGE/out. Only such programs need the link, so a build does not fail without it.
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

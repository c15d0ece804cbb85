//! Gives the library its SONAME, and lists the Python package's files for `src/preload/python.rs`, which embeds them.

use std::fmt::Write as _;
use std::path::Path;

/// The C ABI's number: rises when a program made against an older header would not run, and then only.
const ABI: u32 = 0;

fn main() {
    name_the_library();
    list_the_python_package();
}

/// Programs that are linked with the library ask for it by its SONAME. `cargo build` makes `libgraphpatch.so` alone, so a
/// link beside it lets programs run that were linked straight from the build folder.
fn name_the_library() {
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

fn list_the_python_package() {
    let package = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("bindings/python/libgraphpatch");
    println!("cargo:rerun-if-changed={}", package.display());
    let mut names: Vec<String> = std::fs::read_dir(&package)
        .expect("the Python package")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".py"))
        .collect();
    names.sort();
    let mut list = String::from("&[\n");
    for name in names {
        let file = package.join(&name);
        writeln!(
            list,
            "    ({:?}, include_str!({file:?})),",
            format!("libgraphpatch/{name}")
        )
        .expect("text");
    }
    list += "]\n";
    let out = Path::new(&std::env::var("OUT_DIR").expect("set by cargo")).join("python_package.rs");
    std::fs::write(out, list).expect("OUT_DIR can be written");
}

//! Lists the Python package's files for `launch/python_package.rs`, which embeds them, and finds the ABI's number.
#![allow(
    clippy::expect_used,
    reason = "a build may end where cargo breaks its word"
)]

use std::fmt::Write as _;
use std::path::Path;

fn main() {
    list_the_python_package();
    number_the_abi();
    // Whoever builds a release names its commit. A build in a working checkout names none, as its files may differ from the
    // commit.
    println!("cargo:rerun-if-env-changed=GRAPHPATCH_COMMIT");
}

/// Reads the number of the library's C ABI, for `--version`.
fn number_the_abi() {
    let file = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("../library/build.rs");
    println!("cargo:rerun-if-changed={}", file.display());
    let text = std::fs::read_to_string(&file).expect("the library's build script");
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix("const ABI: u32 = ")?.strip_suffix(';'))
        .expect("the ABI's number");
    println!("cargo:rustc-env=GRAPHPATCH_ABI={number}");
}

fn list_the_python_package() {
    let package = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("../../bindings/python/libgraphpatch");
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

//! Links libgraphpatch, from GRAPHPATCH_LIB or from this repository's target/release, and has the program find it and
//! libtorch where they are now.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=GRAPHPATCH_LIB");
    let graphpatch = env::var_os("GRAPHPATCH_LIB").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/release"),
        PathBuf::from,
    );
    let graphpatch = graphpatch
        .canonicalize()
        .unwrap_or_else(|error| panic!("{}: {error}", graphpatch.display()));
    let libtorch = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch is");
    println!("cargo:rustc-link-search=native={}", graphpatch.display());
    println!("cargo:rustc-link-lib=dylib=graphpatch");
    for folder in [&graphpatch.display().to_string(), &libtorch] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}

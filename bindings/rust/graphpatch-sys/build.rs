//! Links libgraphpatch: the one in the folder GRAPHPATCH_LIB, or else the one that pkg-config finds (`make install`). Crates that
//! depend on this one get the folder as DEP_GRAPHPATCH_LIB, to have their programs find the library there.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=GRAPHPATCH_LIB");
    let Some(folder) = env::var_os("GRAPHPATCH_LIB") else {
        by_pkg_config();
        return;
    };
    let folder = Path::new(&folder);
    let folder = folder.canonicalize().unwrap_or_else(|why| {
        panic!("GRAPHPATCH_LIB={}: {why}", folder.display());
    });
    println!("cargo::rustc-link-search=native={}", folder.display());
    println!("cargo::rustc-link-lib=dylib=graphpatch");
    println!("cargo::metadata=lib={}", folder.display());
}

fn by_pkg_config() {
    let version = env!("CARGO_PKG_VERSION");
    let found = pkg_config::Config::new()
        .atleast_version(version)
        .probe("graphpatch");
    let found = found.unwrap_or_else(|why| {
        panic!(
            "libgraphpatch {version} is not found. Install it (`make install PREFIX=…`) and put PREFIX/lib/pkgconfig into \
             PKG_CONFIG_PATH, or name the folder of libgraphpatch.so in GRAPHPATCH_LIB. pkg-config says: {why}"
        )
    });
    // There is none where the library lies in a folder that programs are linked with and look into anyway.
    if let Some(folder) = found.link_paths.first() {
        println!("cargo::metadata=lib={}", folder.display());
    }
}

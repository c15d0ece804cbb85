//! Has the examples find libgraphpatch and libtorch where they are now. A program of your own needs the same lines, or
//! LD_LIBRARY_PATH: cargo passes arguments of the linker to no other crate.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for folder in ["DEP_GRAPHPATCH_LIB", "DEP_TCH_LIBTORCH_LIB"]
        .map(std::env::var)
        .into_iter()
        .flatten()
    {
        println!("cargo::rustc-link-arg-examples=-Wl,-rpath,{folder}");
    }
}

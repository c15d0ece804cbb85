//! Has the program find libgraphpatch and libtorch where they are now.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["DEP_GRAPHPATCH_LIB", "DEP_TCH_LIBTORCH_LIB"] {
        let folder = std::env::var(name).unwrap_or_else(|why| panic!("{name}: {why}"));
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}

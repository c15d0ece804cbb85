//! Packs the adapter's C++ source, which the library carries along for the first use on a machine.
#![allow(
    clippy::expect_used,
    reason = "a build may end where its own files cannot be read"
)]

use std::fmt::Write;
use std::hash::Hasher;
use std::path::Path;

use fnv::FnvHasher;

/// The adapter's files, and the headers that stand in front of two of libtorch's.
const FOLDERS: [&str; 2] = ["adapter", "adapter/ATen"];

/// Writes all files one after another, compressed, and beside them their names and lengths, the version of the seam, and a hash,
/// so that a changed source makes another adapter. FNV-1a gives the same number on every machine and in every version of this
/// library, which the standard library's hashers do not promise.
fn main() {
    let folder = Path::new("../torch");
    let mut names = vec!["seam.h".to_owned()];
    for below in FOLDERS {
        println!("cargo:rerun-if-changed={}", folder.join(below).display());
        for entry in std::fs::read_dir(folder.join(below)).expect("the adapter's folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a kind of file").is_file() {
                let name = entry.file_name();
                names.push(format!("{below}/{}", name.to_str().expect("plain names")));
            }
        }
    }
    names.sort();
    let mut all = String::new();
    let mut table = String::from("pub(super) const FILES: &[(&str, usize)] = &[\n");
    let mut hash = FnvHasher::default();
    for name in &names {
        let path = folder.join(name);
        println!("cargo:rerun-if-changed={}", path.display());
        let text = std::fs::read_to_string(&path).expect("a file of the adapter's");
        for part in [name, &text] {
            hash.write(&(part.len() as u64).to_le_bytes());
            hash.write(part.as_bytes());
        }
        writeln!(table, "    ({name:?}, {}),", text.len()).expect("memory");
        if name == "seam.h" {
            let version = text
                .lines()
                .find_map(|line| line.strip_prefix("#define GP_SEAM_VERSION"));
            let version = version.expect("seam.h defines GP_SEAM_VERSION").trim();
            let version = version.trim_end_matches(['u', 'U']);
            println!("cargo:rustc-env=GRAPHPATCH_SEAM={version}");
        }
        all += &text;
    }
    println!("cargo:rerun-if-changed=pack.rs");
    println!("cargo:rustc-env=GRAPHPATCH_SOURCES={:016x}", hash.finish());
    let out = std::env::var_os("OUT_DIR").expect("set by cargo");
    let packed = miniz_oxide::deflate::compress_to_vec(all.as_bytes(), 10);
    std::fs::write(Path::new(&out).join("sources.deflate"), packed).expect("a build folder");
    table += "];\n";
    std::fs::write(Path::new(&out).join("sources.rs"), table).expect("a build folder");
}

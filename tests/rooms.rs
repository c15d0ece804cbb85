//! The house's own rules: which room may be unsafe, which knows libtorch, which knows CUDA, and where files stand.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder of the repository, with its text.
fn files(below: &str, extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if extensions
                .iter()
                .any(|e| path.extension().is_some_and(|x| x == *e))
            {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{below} has no such files");
    found
}

/// Code lines: comments and the texts of docs do not count.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or("")))
}

fn offenders(files: &[(PathBuf, String)], words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    for (path, text) in files {
        if allowed.iter().any(|prefix| path.starts_with(prefix)) {
            continue;
        }
        for (line, code) in code(text) {
            for word in words {
                if code.contains(word) {
                    out.push(format!("{}:{line}: {word}", path.display()));
                }
            }
        }
    }
    out
}

#[test]
fn only_the_edge_rooms_are_unsafe() {
    let allowed = [
        "src/apply",
        "src/cuda",
        "src/torch",
        "src/ffi",
        "src/preload",
        "src/native",
    ];
    let found = offenders(
        &files("src", &["rs"]),
        &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"],
        &allowed,
    );
    assert!(found.is_empty(), "{found:#?}");
    for room in ["path", "graph", "tensor", "patch", "record", "session"] {
        let door = fs::read_to_string(root().join(format!("src/{room}/mod.rs"))).unwrap();
        assert!(
            door.contains("#![forbid(unsafe_code)]"),
            "src/{room} may be unsafe"
        );
    }
}

#[test]
fn only_the_torch_room_knows_libtorch() {
    let sources = files("src", &["rs", "h", "cpp"]);
    let found = offenders(
        &sources,
        &["ATen/", "<torch/", "c10::", "at::Tensor"],
        &["src/torch"],
    );
    assert!(found.is_empty(), "{found:#?}");
    let found = offenders(&sources, &["seam_generated", "GpCore"], &["src/torch"]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_the_cuda_room_knows_cuda() {
    let found = offenders(
        &files("src", &["rs"]),
        &["cudarc", "cuLaunch"],
        &["src/cuda"],
    );
    assert!(found.is_empty(), "{found:#?}");
}

/// Dependencies point one way: doors → session → record, patch, apply → graph, path.
#[test]
fn rooms_depend_one_way() {
    let below: &[(&str, &[&str])] = &[
        (
            "path",
            &[
                "graph", "patch", "record", "apply", "cuda", "session", "torch", "ffi", "preload",
            ],
        ),
        (
            "native",
            &[
                "path", "graph", "tensor", "patch", "record", "apply", "cuda", "session", "torch",
                "ffi", "preload",
            ],
        ),
        (
            "tensor",
            &[
                "path", "graph", "patch", "record", "apply", "cuda", "session", "torch", "ffi",
                "preload",
            ],
        ),
        (
            "graph",
            &[
                "patch", "record", "apply", "cuda", "session", "torch", "ffi", "preload",
            ],
        ),
        (
            "patch",
            &[
                "record", "apply", "cuda", "session", "torch", "ffi", "preload",
            ],
        ),
        (
            "record",
            &[
                "patch", "apply", "cuda", "session", "torch", "ffi", "preload",
            ],
        ),
        (
            "apply",
            &["record", "cuda", "session", "torch", "ffi", "preload"],
        ),
        ("cuda", &["record", "session", "torch", "ffi", "preload"]),
        ("session", &["torch", "ffi", "preload"]),
        ("torch", &["ffi", "preload"]),
        ("ffi", &["preload"]),
        ("preload", &["ffi"]),
    ];
    for (room, forbidden) in below {
        let words: Vec<String> = forbidden.iter().map(|r| format!("crate::{r}")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let found = offenders(&files(&format!("src/{room}"), &["rs"]), &words, &[]);
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// No address of the network, path of a machine, or name of a registry is written anywhere.
#[test]
fn nothing_names_a_machine() {
    // Put together here so that this file does not name them itself.
    let words = [
        ["htt", "p://"],
        ["htt", "ps://"],
        ["/ro", "ot/"],
        ["/wo", "rk/"],
        ["/ho", "me/"],
    ]
    .map(|w| w.concat());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut all = files("src", &["rs", "h", "cpp"]);
    all.extend(files("tests", &["rs", "py", "cpp", "c", "h", "sh", "txt"]));
    for (path, text) in all {
        for (line, text) in text.lines().enumerate() {
            for word in &words {
                assert!(
                    !text.contains(word),
                    "{}:{}: {word}",
                    path.display(),
                    line + 1
                );
            }
        }
    }
}

/// The built library needs neither libtorch nor CUDA to load.
#[test]
fn the_library_links_neither_libtorch_nor_cuda() {
    use object::read::elf::{Dyn, ElfFile64, FileHeader, SectionHeader};
    let library = Path::new(env!("CARGO_BIN_EXE_graphpatch")).with_file_name("libgraphpatch.so");
    let data = fs::read(&library).unwrap();
    let elf = ElfFile64::<object::Endianness>::parse(&*data).unwrap();
    let (endian, header) = (elf.endian(), elf.elf_header());
    let sections = header.sections(endian, &*data).unwrap();
    let mut needed = Vec::new();
    for section in sections.iter() {
        if let Some((entries, link)) = section.dynamic(endian, &*data).unwrap() {
            let strings = sections.strings(endian, &*data, link).unwrap();
            for entry in entries {
                if entry.d_tag(endian) == object::elf::DT_NEEDED {
                    let name = entry.string(endian, strings).unwrap();
                    needed.push(String::from_utf8_lossy(name).into_owned());
                }
            }
        }
    }
    assert!(
        needed.iter().any(|name| name.starts_with("libc.")),
        "{needed:?}"
    );
    for name in &needed {
        let foreign = ["torch", "c10", "cuda"]
            .iter()
            .any(|part| name.contains(part));
        assert!(!foreign, "libgraphpatch.so needs {name}");
    }
}

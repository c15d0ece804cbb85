//! Rules of this repository that the compiler cannot check. Which crates a crate may use is not among them: its `Cargo.toml`
//! says that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use object::read::elf::{Dyn, ElfFile64, FileHeader, SectionHeader};
use object::{Object, ObjectSymbol};
use sources::{code, files, offenders, root};

#[test]
fn safe_crates_say_so() {
    for name in ["core", "session", "protocol"] {
        let lib = fs::read_to_string(root().join(format!("src/{name}/lib.rs"))).unwrap();
        assert!(
            lib.contains("#![forbid(unsafe_code)]"),
            "src/{name} may be unsafe"
        );
    }
}

/// Each crate begins with a comment that tells a newcomer what it is responsible for.
#[test]
fn every_crate_says_what_it_owns() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("\"src/")?.strip_suffix("\","));
    for name in members {
        let lib = root().join(format!("src/{name}/lib.rs"));
        let file = if lib.is_file() {
            lib
        } else {
            root().join(format!("src/{name}/main.rs"))
        };
        let text = fs::read_to_string(&file).unwrap();
        let about = text.lines().take_while(|line| line.starts_with("//!"));
        assert!(
            about.count() >= 3,
            "src/{name} does not say what it owns, what comes in and what goes out"
        );
    }
}

#[test]
fn only_the_torch_crate_knows_libtorch() {
    let sources = files("src", &["rs", "h", "cpp"]);
    let found = offenders(
        &sources,
        &["ATen/", "<torch/", "c10::", "at::Tensor"],
        &["src/torch", "src/loader"],
    );
    assert!(found.is_empty(), "{found:#?}");
}

/// Only the library's crate exports symbols to the dynamic linker: the C ABI and the hooks.
#[test]
fn only_the_library_exports() {
    let found = offenders(
        &files("src", &["rs"]),
        &["no_mangle", "export_name"],
        &["src/library"],
    );
    assert!(found.is_empty(), "{found:#?}");
}

/// Sources and tests contain no network address and no path of a particular machine.
#[test]
fn nothing_names_a_machine() {
    // In two parts, so that this file does not contain them itself.
    let words = [
        ["htt", "p://"],
        ["htt", "ps://"],
        ["/ro", "ot/"],
        ["/wo", "rk/"],
        ["/ho", "me/"],
    ]
    .map(|w| w.concat());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let loopback = format!("{}127.0.0.1:", words[0]);
    let mut all = files("src", &["rs", "h", "cpp"]);
    all.extend(files("tests", &["rs", "py", "cpp", "c", "h", "sh", "txt"]));
    for (path, text) in all {
        for (line, text) in text.lines().enumerate() {
            // An address of whatever machine the program runs on names none.
            let text = text.replace(&loopback, "");
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

fn built(name: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_BIN_EXE_graphpatch")).with_file_name(name);
    fs::read(&file)
        .unwrap_or_else(|why| panic!("{}: {why}: run `make build` first", file.display()))
}

/// The built library needs neither libtorch nor CUDA to load.
#[test]
fn the_library_links_neither_libtorch_nor_cuda() {
    let data = built("libgraphpatch.so");
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

/// The symbols that one of the built files exports to the dynamic linker.
fn exported(name: &str) -> BTreeSet<String> {
    let data = built(name);
    let elf = ElfFile64::<object::Endianness>::parse(&*data).unwrap();
    let defined = elf
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition());
    defined
        .map(|symbol| symbol.name().unwrap().to_owned())
        .collect()
}

/// Only the library has functions that take the place of libc's. The command is an ordinary program without them.
#[test]
fn the_command_exports_no_hook() {
    let hooks = ["__libc_start_main", "dlopen", "dlsym", "execve", "_exit"];
    let library = exported("libgraphpatch.so");
    let command = exported("graphpatch");
    for hook in hooks {
        assert!(library.contains(hook), "the library lacks {hook}");
    }
    let both: Vec<_> = command.intersection(&library).collect();
    assert!(both.is_empty(), "the command exports {both:?}");
}

/// The library, which runs inside other people's programs, does not contain crates that only the command needs.
#[test]
fn the_library_needs_nothing_of_the_commands() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", "libgraphpatch"])
        .args(["--edges", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.contains("graphpatch-session"), "{tree}");
    for foreign in ["clap", "svg", "indicatif", "comfy-table", "csv", "regex"] {
        assert!(!names.contains(foreign), "the library needs {foreign}");
    }
}

/// The lines of a Rust file that are not its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// The name in a line that defines a Rust static or thread-local.
fn rust_static(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => line,
    };
    let name = line.strip_prefix("static ")?.split(':').next()?.trim();
    Some(name.strip_prefix("mut ").unwrap_or(name))
}

/// The same for a line of C++: a static or thread-local of a function or a file, or a variable of a namespace.
fn cpp_static(line: &str) -> Option<&str> {
    let stored = line.trim_start();
    let of_namespace = line.starts_with("std::atomic<") || line.starts_with("const GpCore* core =");
    if !stored.starts_with("static ") && !stored.starts_with("thread_local ") && !of_namespace {
        return None;
    }
    let end = stored.find(['=', ';', '{'])?;
    let declared = stored[..end].trim_end().trim_end_matches("[]");
    // A function has its parameters before its body.
    if declared.contains('(') {
        return None;
    }
    declared.rsplit([' ', '&', '*']).next()
}

/// docs/house/statics.md says of every static who sets it, when it ends, and what a fork does to it.
#[test]
fn every_static_is_in_the_index() {
    const INDEX: &str = "docs/house/statics.md";
    let mut found = BTreeSet::new();
    for (path, text) in files("src", &["rs", "cpp", "h"]) {
        let name = path.file_name().unwrap().to_string_lossy();
        if name.ends_with("tests.rs") {
            continue;
        }
        let of = match path.extension().is_some_and(|x| x == "rs") {
            true => rust_static as fn(&str) -> Option<&str>,
            false => cpp_static,
        };
        let names = without_tests(&text).lines().filter_map(of);
        found.extend(names.map(|name| (path.to_string_lossy().into_owned(), name.to_owned())));
    }
    let index = fs::read_to_string(root().join(INDEX)).unwrap();
    let listed: BTreeSet<(String, String)> = index
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let file = cells.next()?.trim_matches('`');
            let name = cells.next()?.trim().trim_matches('`');
            Some((format!("src/{file}"), name.to_owned()))
        })
        .collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(
        missing.is_empty(),
        "add a row to {INDEX} for each of these, with who sets it, when it dies, and what a fork does to it: {missing:#?}"
    );
    assert!(
        gone.is_empty(),
        "these are gone or elsewhere: remove or change their rows in {INDEX}: {gone:#?}"
    );
}

/// All locks inside a program are taken through `src/locks`, so that a fork can wait until every lock is free.
#[test]
fn every_lock_goes_through_the_gate() {
    let allowed = ["src/locks", "src/command"];
    let rust = files("src", &["rs"]);
    let mut found = offenders(&rust, &["parking_lot"], &allowed);
    for (path, text) in &rust {
        if allowed.iter().any(|prefix| path.starts_with(prefix)) {
            continue;
        }
        let of_std = [
            "Mutex", "RwLock", "OnceLock", "LazyLock", "Once", "Condvar", "Barrier",
        ];
        for (line, code) in code(without_tests(text)) {
            let Some((_, names)) = code.split_once("std::sync::") else {
                continue;
            };
            let mut words = names.split(|c: char| !c.is_alphanumeric());
            if words.any(|word| of_std.contains(&word)) {
                found.push(format!("{}:{line}: {}", path.display(), code.trim()));
            }
        }
    }
    assert!(found.is_empty(), "use graphpatch_locks: {found:#?}");
    let adapter: Vec<_> = files("src/torch/adapter", &["cpp", "h"]);
    let by_hand = [
        "std::lock_guard",
        "std::unique_lock",
        "std::scoped_lock",
        "std::call_once",
        ".lock();",
    ];
    let mut found = offenders(&adapter, &by_hand, &[]);
    // Allowed are the class `Lock` itself, and the `lock` of weak pointers, which locks nothing.
    found.retain(|line| !line.contains("adapter.h") && !line.ends_with(".lock();"));
    assert!(found.is_empty(), "use the adapter's Lock: {found:#?}");
}

/// The files and functions that docs/house.md names exist.
#[test]
fn the_page_about_the_house_is_true() {
    let page = fs::read_to_string(root().join("docs/house.md")).unwrap();
    let mut wrong = Vec::new();
    // Names that follow a file must occur in that file.
    let mut file: Option<(String, String)> = None;
    let mut parts = page.split('`');
    let mut before = parts.next().unwrap_or_default();
    while let (Some(word), after) = (parts.next(), parts.next()) {
        let is_path = ["src/", "bindings/", "kernels/", "tests/", "include/"]
            .iter()
            .any(|folder| word.starts_with(folder));
        let goes_on = matches!(before.trim(), ":" | "," | "and");
        if is_path {
            let path = root().join(word);
            if !path.exists() {
                wrong.push(format!("{word} does not exist"));
            }
            file = Some((
                word.to_owned(),
                fs::read_to_string(path).unwrap_or_default(),
            ));
        } else if let Some((path, text)) = file.as_ref().filter(|_| goes_on) {
            if !text.contains(word) {
                wrong.push(format!("{path} has no {word}"));
            }
        } else {
            file = None;
        }
        before = after.unwrap_or_default();
    }
    assert!(
        page.contains("src/session/run.rs") && wrong.is_empty(),
        "change docs/house.md: {wrong:#?}"
    );
}

/// The fuzz targets compile the library once more, in a workspace of their own, and CI does not build them.
#[test]
fn the_fuzz_targets_have_what_the_library_needs() {
    let names = |file: &str| -> BTreeSet<String> {
        let manifest = fs::read_to_string(root().join(file)).unwrap();
        // A table may hold on some machines only: `[target.'…'.dependencies]`.
        let tables = manifest.split("\n[").filter(|table| {
            let name = table.lines().next().unwrap_or_default();
            name == "dependencies]" || name.ends_with(".dependencies]")
        });
        tables
            .flat_map(|table| table.lines().skip(1))
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let missing: Vec<String> = names("src/library/Cargo.toml")
        .difference(&names("tests/fuzz/Cargo.toml"))
        .cloned()
        .collect();
    assert!(
        missing.is_empty(),
        "add these to the dependencies in tests/fuzz/Cargo.toml, and run `cargo update --workspace` there: {missing:?}"
    );
}

//! Imports form no cycles: neither those between the Rust modules of a crate nor those between the modules of the Python
//! package. Paths that are written out in Rust code count as imports, and so do imports for type checkers only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

mod rust_imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rust_imports::rust_imports;

/// For each module, the modules that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The groups of modules that import each other directly or by way of others.
fn circles(imports: &Imports) -> Vec<Vec<&str>> {
    let reached = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&str> = vec![from];
        while let Some(at) = next.pop() {
            for to in imports.get(at).into_iter().flatten() {
                if seen.insert(to.as_str()) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let all: BTreeMap<&str, BTreeSet<&str>> = imports
        .keys()
        .map(|name| (name.as_str(), reached(name)))
        .collect();
    let mut found = BTreeSet::new();
    for (name, reach) in &all {
        if reach.contains(name) {
            let back = |other: &&&str| all.get(**other).is_some_and(|of| of.contains(name));
            found.insert(reach.iter().filter(back).copied().collect::<Vec<&str>>());
        }
    }
    found.into_iter().collect()
}

#[test]
fn no_rust_module_imports_itself() {
    let mut all = 0;
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("src")).unwrap().flatten() {
        let imports = rust_imports(&entry.path());
        all += imports.len();
        let krate = entry.file_name().to_string_lossy().into_owned();
        let of_crate = circles(&imports).into_iter();
        found.extend(of_crate.map(|circle| format!("src/{krate}: {}", circle.join(", "))));
    }
    assert!(
        found.is_empty(),
        "move what both need into a module below: {found:#?}"
    );
    assert!(all > 200, "only {all} files with imports were read");
}

/// The modules of its own package that a line of Python imports.
fn python_import(line: &str, more: &str) -> Vec<String> {
    let Some(rest) = line.trim_start().strip_prefix("from .") else {
        return Vec::new();
    };
    let Some((module, names)) = rest.split_once("import") else {
        return Vec::new();
    };
    if !module.trim().is_empty() {
        return vec![module.trim().split('.').next().unwrap().to_owned()];
    }
    // Modules themselves, over several lines where they stand in brackets.
    let names = match names.trim().strip_prefix('(') {
        Some(first) => format!("{first}{}", more.split(')').next().unwrap()),
        None => names.to_owned(),
    };
    let names = names
        .split([',', '\n'])
        .map(|name| name.trim().trim_end_matches(')'));
    let name = |name: &str| name.split(' ').next().unwrap().to_owned();
    names.filter(|name| !name.is_empty()).map(name).collect()
}

#[test]
fn no_python_module_imports_itself() {
    let mut imports = Imports::new();
    let package = root().join("bindings/python/libgraphpatch");
    for (folder, below) in [(package.clone(), ""), (package.join("vllm"), "vllm.")] {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|x| x != "py") || path.ends_with("__init__.py") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let name = format!("{below}{}", path.file_stem().unwrap().to_string_lossy());
            let mut rest = &*text;
            while let Some((line, more)) = rest.split_once('\n') {
                let names = match line.trim_start().strip_prefix("from ..") {
                    Some(outer) => python_import(&format!("from .{outer}"), more),
                    None => python_import(line, more)
                        .iter()
                        .map(|name| format!("{below}{name}"))
                        .collect(),
                };
                imports.entry(name.clone()).or_default().extend(names);
                rest = more;
            }
        }
    }
    assert!(imports.len() > 30, "{imports:?}");
    let found = circles(&imports);
    assert!(
        found.is_empty(),
        "move what both need into a module below: {found:#?}"
    );
}

#[test]
fn imports_of_python_are_read() {
    assert_eq!(python_import("    from ._a import B", ""), ["_a"]);
    assert_eq!(
        python_import("from . import (", "    _a,\n    _b as c,\n)\n_d,"),
        ["_a", "_b"]
    );
}

#[test]
fn circles_are_found() {
    let imports: Imports = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]
        .map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])))
        .into();
    assert_eq!(circles(&imports), [["a", "b", "c"]]);
}

//! Imports form no cycles: neither those between the Rust modules of a crate nor those between the modules of the Python
//! package. Imports for type checkers only count as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

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

/// A Rust file without its unit tests, which stand at its end.
fn without_tests(text: &str) -> &str {
    let module = text.find("mod tests {").unwrap_or(text.len());
    let before = &text[..module];
    match before.rfind("#[cfg(test)]") {
        Some(at) if module < text.len() => &text[..at],
        _ => text,
    }
}

/// The Rust files below a crate's folder, without unit tests, by the path of their module. The path of `lib.rs` is empty.
fn modules(krate: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![krate.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "build.rs" {
                let below = path.strip_prefix(krate).unwrap().with_extension("");
                let mut parts: Vec<&str> =
                    below.iter().map(|part| part.to_str().unwrap()).collect();
                if matches!(parts.last(), Some(&"mod" | &"lib" | &"main")) {
                    parts.pop();
                }
                let text = fs::read_to_string(&path).unwrap();
                let code = without_tests(&text);
                found.insert(parts.join("::"), code.to_owned());
            }
        }
    }
    found
}

/// The paths that a tree of imports names: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expand(tree: &str, before: &str, out: &mut Vec<String>) {
    let (mut depth, mut from) = (0, 0);
    let mut parts = Vec::new();
    for (at, letter) in tree.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[from..]);
    for part in parts
        .iter()
        .map(|part| part.trim())
        .filter(|p| !p.is_empty())
    {
        match part.split_once('{') {
            Some((path, inner)) => {
                let inner = inner.strip_suffix('}').expect("a brace that closes");
                expand(inner, &format!("{before}{path}"), out);
            }
            None => {
                let path = part.split(" as ").next().unwrap();
                out.push(format!("{before}{}", path.trim()).replace("::self", ""));
            }
        }
    }
}

/// The paths of a file's `use` declarations, each with whether it is re-exported (`pub use`).
fn uses(code: &str) -> Vec<(bool, String)> {
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for piece in code.split(';') {
        let Some(at) = piece
            .match_indices("use ")
            .map(|(at, _)| at)
            .find(|at| piece[..*at].ends_with(['\n', ' ', ')', '}']) || *at == 0)
        else {
            continue;
        };
        let line = piece[..at].rsplit('\n').next().unwrap_or("").trim();
        if !line.is_empty() && !line.starts_with("pub") {
            continue;
        }
        let mut paths = Vec::new();
        let tree: String = piece[at + 4..]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        expand(&tree, "", &mut paths);
        found.extend(paths.into_iter().map(|path| (!line.is_empty(), path)));
    }
    found
}

/// A path in module `from`, as a path from the crate's root. `None` if it leads to another crate.
fn absolute(path: &str, from: &str, known: &BTreeMap<String, String>) -> Option<String> {
    let mut at: Vec<&str> = from.split("::").filter(|part| !part.is_empty()).collect();
    let mut parts: Vec<&str> = path.split("::").collect();
    match *parts.first()? {
        "crate" => {
            at.clear();
            parts.remove(0);
        }
        "self" => {
            parts.remove(0);
        }
        "super" => {
            while parts.first() == Some(&"super") {
                at.pop();
                parts.remove(0);
            }
        }
        first => {
            let child = at.iter().copied().chain([first]).collect::<Vec<_>>();
            known.get(&child.join("::"))?;
        }
    }
    at.extend(parts);
    Some(at.join("::"))
}

/// The module that a path names or that defines the item it names. Re-exports are followed.
fn module_of(
    path: &str,
    known: &BTreeMap<String, String>,
    handed_on: &BTreeMap<String, String>,
) -> Option<String> {
    let mut path = path.to_owned();
    for _ in 0..8 {
        match handed_on.get(&path) {
            Some(to) => path.clone_from(to),
            None => break,
        }
    }
    loop {
        if known.contains_key(&path) {
            return Some(path);
        }
        path = match path.rsplit_once("::") {
            Some((outer, _)) => outer.to_owned(),
            None if path.is_empty() => return None,
            None => String::new(),
        };
    }
}

fn rust_imports(krate: &Path) -> Imports {
    let known = modules(krate);
    let mut handed_on = BTreeMap::new();
    let mut taken = Vec::new();
    for (name, code) in &known {
        for (is_handed_on, path) in uses(code) {
            let Some(path) = absolute(&path, name, &known) else {
                continue;
            };
            if is_handed_on {
                let item = path.rsplit("::").next().unwrap();
                let here = if name.is_empty() {
                    item.to_owned()
                } else {
                    format!("{name}::{item}")
                };
                handed_on.insert(here, path);
            } else {
                taken.push((name.clone(), path));
            }
        }
    }
    let mut imports = Imports::new();
    for (from, path) in taken {
        if let Some(to) = module_of(&path, &known, &handed_on).filter(|to| *to != from) {
            imports.entry(from).or_default().insert(to);
        }
    }
    imports
}

#[test]
fn no_rust_module_imports_itself() {
    let mut all = 0;
    for entry in fs::read_dir(root().join("src")).unwrap().flatten() {
        let imports = rust_imports(&entry.path());
        all += imports.len();
        let found = circles(&imports);
        let name = entry.file_name();
        assert!(
            found.is_empty(),
            "in src/{}, move what both need into a module below: {found:#?}",
            name.display()
        );
    }
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
    for entry in fs::read_dir(package).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|x| x != "py") || path.ends_with("__init__.py") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut rest = &*text;
        while let Some((line, more)) = rest.split_once('\n') {
            let names = python_import(line, more);
            imports.entry(name.clone()).or_default().extend(names);
            rest = more;
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
fn imports_are_read() {
    let mut paths = Vec::new();
    expand("super::{a, b::{self, C as D}, *}", "", &mut paths);
    assert_eq!(paths, ["super::a", "super::b", "super::b::C", "super::*"]);
    let read = uses(
        "//! use no::thing;\nuse super::x;\npub(crate) use y::{A,\n    B};\nfn f() { reuse z; }\n",
    );
    let expected = [(false, "super::x"), (true, "y::A"), (true, "y::B")];
    assert_eq!(read, expected.map(|(on, path)| (on, path.to_owned())));
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

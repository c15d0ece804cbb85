//! Which modules of its crate each Rust module names: by `use`, and by paths that are written out in its code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Imports;

/// A Rust file without its unit tests, which stand at its end.
fn without_tests(text: &str) -> &str {
    let module = text.find("mod tests {").unwrap_or(text.len());
    let before = &text[..module];
    match before.rfind("#[cfg(test)]") {
        Some(at) if module < text.len() => &text[..at],
        _ => text,
    }
}

/// Whether this is the program that Cargo runs before it builds the crate, rather than a module of that name.
fn is_build_script(path: &Path) -> bool {
    let lib = fs::read_to_string(path.with_file_name("lib.rs")).unwrap_or_default();
    path.ends_with("build.rs") && !lib.contains("mod build;")
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
            } else if name.ends_with(".rs")
                && !name.ends_with("tests.rs")
                && !is_build_script(&path)
            {
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

/// The paths that a tree of imports names, each with the name that it gets: `a::{b, c::{d, e as f}}` is `a::b`, `a::c::d`, and
/// `a::c::e` by the name `f`.
fn expand(tree: &str, before: &str, out: &mut Vec<(String, String)>) {
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
                let (path, name) = part.split_once(" as ").unwrap_or((part, ""));
                let path = format!("{before}{}", path.trim()).replace("::self", "");
                let name = match name.trim() {
                    "" => path.rsplit("::").next().unwrap().to_owned(),
                    other => other.to_owned(),
                };
                out.push((path, name));
            }
        }
    }
}

/// A file without comments and without the contents of texts and of characters.
fn bare(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let raw = rest.starts_with("r#\"") && !out.ends_with(|c: char| c.is_alphanumeric());
        let quoted = rest.strip_prefix('\'').and_then(|inner| {
            let is_character = inner.starts_with('\\') || inner.chars().nth(1) == Some('\'');
            is_character.then(|| 1 + after_quote(inner, '\''))
        });
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if raw {
            rest.find("\"#").map_or(rest.len(), |at| at + 2)
        } else if letter == '"' {
            1 + after_quote(&rest[1..], '"')
        } else if let Some(length) = quoted {
            length
        } else {
            out.push(letter);
            letter.len_utf8()
        };
        rest = &rest[skipped..];
    }
    out
}

/// Where what follows an opening quote goes on behind the closing one.
fn after_quote(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        if letter == quote && !escaped {
            return at + 1;
        }
        escaped = letter == '\\' && !escaped;
    }
    text.len()
}

/// What a Rust file names of other modules.
#[derive(Debug, Default, PartialEq)]
struct Named {
    /// The paths of its `use` declarations.
    uses: Vec<String>,
    /// Those of them that are re-exported (`pub use`).
    handed_on: Vec<String>,
    /// For each name that a `use` gives, the path that it stands for.
    names: BTreeMap<String, String>,
    /// The paths that are written out in the code.
    written: Vec<String>,
}

fn named(text: &str) -> Named {
    let code = bare(text);
    let mut found = Named::default();
    for piece in code.split(';') {
        let Some(at) = piece
            .match_indices("use ")
            .map(|(at, _)| at)
            .find(|at| piece[..*at].ends_with(['\n', ' ', ')', '}']) || *at == 0)
        else {
            add_written(piece, &mut found.written);
            continue;
        };
        let line = piece[..at].rsplit('\n').next().unwrap_or("").trim();
        if !line.is_empty() && !line.starts_with("pub") {
            add_written(piece, &mut found.written);
            continue;
        }
        add_written(&piece[..at - line.len()], &mut found.written);
        let mut paths = Vec::new();
        let tree: String = piece[at + 4..]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        expand(&tree, "", &mut paths);
        for (path, name) in paths {
            found.names.insert(name, path.clone());
            match line.is_empty() {
                true => found.uses.push(path),
                false => found.handed_on.push(path),
            }
        }
    }
    found
}

/// The paths of more than one name in a piece of code.
fn add_written(code: &str, found: &mut Vec<String>) {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    for word in code.split(|letter| !is_part(letter)) {
        let word = word.trim_end_matches(':');
        let names = word.split("::");
        let is_path = names.clone().count() > 1 && names.clone().all(is_name);
        if is_path {
            found.push(word.to_owned());
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(':') && !text.starts_with(|first: char| first.is_numeric())
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
    // Re-exports may lead to further ones; a number of steps that no path needs ends those that lead to themselves.
    for _ in 0..100 {
        if known.contains_key(&path) {
            return Some(path);
        }
        path = match (handed_on.get(&path), path.rsplit_once("::")) {
            (Some(to), _) => to.clone(),
            (None, Some((outer, _))) => outer.to_owned(),
            (None, None) if path.is_empty() => return None,
            (None, None) => String::new(),
        };
    }
    None
}

/// A path that is written in module `from`, as a path from the crate's root. Its first name may be one that a `use` gives.
fn spelled_out(
    path: &str,
    from: &str,
    names: &BTreeMap<String, String>,
    known: &BTreeMap<String, String>,
) -> Option<String> {
    let (first, rest) = path.split_once("::")?;
    let whole = match names.get(first) {
        Some(stands_for) => format!("{stands_for}::{rest}"),
        None => path.to_owned(),
    };
    absolute(&whole, from, known)
}

pub fn rust_imports(krate: &Path) -> Imports {
    let known = modules(krate);
    let mut handed_on = BTreeMap::new();
    let mut taken = Vec::new();
    for (module, code) in &known {
        let named = named(code);
        for path in &named.handed_on {
            let Some(path) = absolute(path, module, &known) else {
                continue;
            };
            let item = path.rsplit("::").next().unwrap();
            let here = if module.is_empty() {
                item.to_owned()
            } else {
                format!("{module}::{item}")
            };
            handed_on.insert(here, path);
        }
        let uses = named.uses.iter().map(|path| absolute(path, module, &known));
        let written = named.written.iter();
        let written = written.map(|path| spelled_out(path, module, &named.names, &known));
        taken.extend(uses.chain(written).flatten().map(|path| (module, path)));
    }
    let mut imports = Imports::new();
    for (from, path) in taken {
        if let Some(to) = module_of(&path, &known, &handed_on).filter(|to| to != from) {
            imports.entry(from.clone()).or_default().insert(to);
        }
    }
    imports
}

#[test]
fn declarations_are_read() {
    let mut paths = Vec::new();
    expand("super::{a, b::{self, C as D}, *}", "", &mut paths);
    let expected = [
        ("super::a", "a"),
        ("super::b", "b"),
        ("super::b::C", "D"),
        ("super::*", "*"),
    ];
    assert_eq!(
        paths,
        expected.map(|(path, name)| (path.to_owned(), name.to_owned()))
    );
    let read = named(
        "//! use no::thing;\nuse super::x;\npub(crate) use y::{A,\n    B};\nfn f() { reuse z; }\n",
    );
    assert_eq!(
        (read.uses, read.handed_on),
        (
            vec!["super::x".to_owned()],
            vec!["y::A".to_owned(), "y::B".to_owned()]
        )
    );
}

#[test]
fn paths_in_code_are_read() {
    let read = named(
        "use crate::a as b; /* no::comment */\nfn f<'a>(x: &'a super::T) -> u8 { // no::line\n    b::c::d(r#\"no::raw\"#, '\"', \
         \"no::\\\"text\"); Vec::<u8>::new(); x.y = child::Z; crate::m!() }\n",
    );
    assert_eq!(
        read.written,
        ["super::T", "b::c::d", "child::Z", "crate::m"]
    );
    let known: BTreeMap<String, String> = ["", "a", "a::c", "here", "here::child"]
        .map(|name| (name.to_owned(), String::new()))
        .into();
    let whole = |path| spelled_out(path, "here", &read.names, &known);
    assert_eq!(whole("b::c::d").as_deref(), Some("a::c::d"));
    assert_eq!(whole("child::Z").as_deref(), Some("here::child::Z"));
    assert_eq!(whole("super::T").as_deref(), Some("T"));
    assert_eq!(whole("std::mem"), None);
}

//! Where a value is: the names from the root to a node, and the way into a container.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::root_name::names_root;
use crate::error::Error;

/// A path such as `layers_8.mlp.output|sub_0.key`, or `Decoder:layers_8.mlp.output` in one root only.
///
/// `\` in front of a character takes away its meaning in the grammar, so that a dict key with a dot can be written
/// (`output|a\.b`). Only an empty name (a dict key `""`) has no text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodePath {
    /// The root that is meant, or its last parts; `None`: every root that has the path.
    pub root: Option<String>,
    /// Names of scopes and, last, of the node.
    pub names: Vec<String>,
    /// Element names from the node's container inwards.
    pub dig: Vec<String>,
}

/// Characters that the grammar of paths and of patches claims for itself.
const SPECIAL: &[char] = &['.', '|', '[', ']', '=', '\\'];
/// The same in the name of a root, in which dots are no separators, and in front of `|`, where a colon ends one.
const SPECIAL_IN_ROOT: &[char] = &[':', '|', '[', ']', '=', '\\'];

impl NodePath {
    /// The empty path, which is the root. It can be shown, never patched.
    pub fn root() -> NodePath {
        NodePath::default()
    }

    /// Whether this is the empty path.
    pub fn is_root(&self) -> bool {
        self.names.is_empty() && self.dig.is_empty()
    }

    /// Whether it means several nodes: a name or key has a `*`, `?` or `{`, which the name of no node has. A key of a dict may be
    /// written so; only a graph tells.
    pub fn is_pattern(&self) -> bool {
        let parts = self.names.iter().chain(&self.dig);
        self.names_are_pattern() || parts.into_iter().any(|part| part.contains(['*', '?', '{']))
    }

    /// The same of the names alone, which need no graph.
    pub fn names_are_pattern(&self) -> bool {
        let special = |name: &String| name.contains(['*', '?', '{', '[']);
        self.names.iter().any(special)
    }

    /// Whether the path may be one of the root with this name.
    pub fn means(&self, root: &str) -> bool {
        self.root
            .as_deref()
            .is_none_or(|given| names_root(given, root))
    }

    /// The same path in every root that has it.
    pub fn without_root(&self) -> NodePath {
        NodePath {
            root: None,
            ..self.clone()
        }
    }

    /// The same path in one root.
    pub fn in_root(&self, root: Option<String>) -> NodePath {
        NodePath {
            root,
            ..self.clone()
        }
    }

    /// The path of a node inside this scope.
    pub fn child(&self, name: impl Into<String>) -> NodePath {
        let mut path = self.clone();
        path.names.push(name.into());
        path
    }

    /// The path of an element inside this container.
    pub fn element(&self, key: impl Into<String>) -> NodePath {
        let mut path = self.clone();
        path.dig.push(key.into());
        path
    }

    /// The root's name at the beginning of a path's text, still escaped, and what follows its colon, which stands in front of
    /// any `|`.
    pub fn split_root(text: &str) -> (Option<&str>, &str) {
        match unescaped(text).find(|(_, c)| [':', '|', '['].contains(c)) {
            Some((at, ':')) => (Some(&text[..at]), &text[at + 1..]),
            _ => (None, text),
        }
    }

    /// The byte where the first of `stops` stands that no `\` escapes.
    pub fn find_unescaped(text: &str, stops: &[char]) -> Option<usize> {
        unescaped(text)
            .find(|(_, c)| stops.contains(c))
            .map(|(at, _)| at)
    }

    /// The byte where the last of `stops` stands that no `\` escapes.
    pub fn rfind_unescaped(text: &str, stops: &[char]) -> Option<usize> {
        unescaped(text)
            .filter(|(_, c)| stops.contains(c))
            .last()
            .map(|(at, _)| at)
    }
}

/// The characters of a text that no `\` stands before, with their bytes.
fn unescaped(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut escaped = false;
    text.char_indices().filter(move |&(_, c)| {
        let plain = !escaped;
        escaped = plain && c == '\\';
        plain && !escaped
    })
}

fn unescape_all(text: &str) -> String {
    let mut chars = text.chars();
    let mut plain = String::new();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => chars.next().unwrap_or(c),
            c => c,
        });
    }
    plain
}

impl FromStr for NodePath {
    type Err = Error;

    fn from_str(text: &str) -> Result<NodePath, Error> {
        let fail = |at: usize, why: &str| Error::Parse {
            what: "path",
            text: text.to_owned(),
            at,
            why: why.to_owned(),
        };
        let mut path = NodePath::root();
        let (root, names) = NodePath::split_root(text);
        let skipped = text.chars().count() - names.chars().count();
        path.root = root.map(unescape_all);
        if path.root.as_deref() == Some("") {
            return Err(fail(0, "the name of a root is missing in front of `:`"));
        }
        if names.is_empty() {
            return Ok(path);
        }
        let mut part = String::new();
        let mut digging = false;
        let length = text.chars().count();
        let mut chars = (skipped..).zip(names.chars().chain(['\0'])).peekable();
        while let Some((at, c)) = chars.next() {
            let end = at == length;
            match c {
                _ if end || c == '.' || c == '|' => {
                    if part.is_empty() {
                        return Err(fail(at, "a name is missing here"));
                    }
                    let parts = if digging {
                        &mut path.dig
                    } else {
                        &mut path.names
                    };
                    parts.push(std::mem::take(&mut part));
                    if c == '|' && !end {
                        if digging {
                            return Err(fail(at, "a path has at most one `|`"));
                        }
                        digging = true;
                    }
                }
                '\\' => match chars.next() {
                    Some((next, c)) if next < length => part.push(c),
                    _ => return Err(fail(at, "nothing follows the `\\`")),
                },
                '[' | ']' | '=' => {
                    return Err(fail(
                        at,
                        &format!("`{c}` is not part of a path; write `\\{c}` in a key"),
                    ));
                }
                c if !digging && (c.is_whitespace() || c.is_control()) => {
                    return Err(fail(at, "a name has no whitespace in it"));
                }
                c => part.push(c),
            }
        }
        Ok(path)
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(root) = &self.root {
            for c in root.chars() {
                if SPECIAL_IN_ROOT.contains(&c) {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            f.write_str(":")?;
        }
        let mut part = |separator: &str, first: bool, text: &str, in_name: bool| {
            f.write_str(if first { "" } else { separator })?;
            for c in text.chars() {
                let special = SPECIAL.contains(&c)
                    || (in_name && (c == ':' || c.is_whitespace() || c.is_control()));
                if special {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            Ok(())
        };
        for (i, name) in self.names.iter().enumerate() {
            part(".", i == 0, name, true)?;
        }
        for (i, key) in self.dig.iter().enumerate() {
            part(if i == 0 { "|" } else { "." }, false, key, false)?;
        }
        Ok(())
    }
}

as_text!(NodePath);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fails(text: &str) -> usize {
        match text.parse::<NodePath>() {
            Err(Error::Parse { at, .. }) => at,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn reads_roots() {
        let path: NodePath = "GPT2LMHeadModel.forward#2:lm_head.output|a:b"
            .parse()
            .unwrap();
        assert_eq!(path.root.as_deref(), Some("GPT2LMHeadModel.forward#2"));
        assert_eq!(path.names, ["lm_head", "output"]);
        assert_eq!(path.dig, ["a:b"], "a key may have a colon");
        assert_eq!(
            path.to_string(),
            "GPT2LMHeadModel.forward#2:lm_head.output|a:b"
        );
        let whole: NodePath = "Decoder:".parse().unwrap();
        assert!(whole.is_root() && whole.means("Decoder.forward") && !whole.means("E.forward"));
        assert!("a.b".parse::<NodePath>().unwrap().means("anything"));
        let twice: NodePath = r"a\:b:c".parse().unwrap();
        assert_eq!(twice.root.as_deref(), Some("a:b"));
    }

    #[test]
    fn reads_names_and_digs() {
        let path: NodePath = "model.layers_8.output|sub_0.my key".parse().unwrap();
        assert_eq!(path.names, ["model", "layers_8", "output"]);
        assert_eq!(path.dig, ["sub_0", "my key"]);
        assert_eq!("".parse::<NodePath>().unwrap(), NodePath::root());
        assert_eq!("o|a\\.b\\\\".parse::<NodePath>().unwrap().dig, ["a.b\\"]);
    }

    #[test]
    fn says_where_it_fails() {
        for (text, at) in [
            (".a", 0),
            ("a..b", 2),
            ("a.", 2),
            ("a|", 2),
            ("|a", 0),
            ("a|b|c", 3),
            ("a b", 1),
            ("é[0]", 1),
            ("a\\", 1),
            ("=", 0),
            (":a", 0),
            ("R:a..b", 4),
            ("R:.a", 2),
        ] {
            assert_eq!(fails(text), at, "{text}");
        }
    }

    #[test]
    fn serde_is_text() {
        let path: NodePath = serde_json::from_str("\"a.b|c\"").unwrap();
        assert_eq!(serde_json::to_string(&path).unwrap(), "\"a.b|c\"");
        assert!(serde_json::from_str::<NodePath>("\"a..b\"").is_err());
    }

    proptest! {
        #[test]
        fn parse_of_print_is_identity(root in prop::option::of("(?s).+"), names in prop::collection::vec(".+", 1..4), dig in prop::collection::vec("(?s).+", 0..4)) {
            let path = NodePath { root, names, dig };
            prop_assert_eq!(path.to_string().parse::<NodePath>().unwrap(), path);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), grammar in "[ab:.|\\[\\\\=\0 ]{0,10}") {
            for text in [text, grammar] {
                if let Ok(path) = text.parse::<NodePath>() {
                    prop_assert_eq!(path.to_string().parse::<NodePath>().unwrap(), path);
                }
            }
        }
    }
}

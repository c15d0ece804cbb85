//! Where a value is: the names from the root to a node, and the way into a container.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A path such as `layers_8.mlp.output|sub_0.key`.
///
/// `\` in front of a character takes away its meaning in the grammar, so that a dict key with a dot can be written
/// (`output|a\.b`). Only an empty name (a dict key `""`) has no text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodePath {
    /// Names of scopes and, last, of the node.
    pub names: Vec<String>,
    /// Element names from the node's container inwards.
    pub dig: Vec<String>,
}

/// Characters that the grammar of paths and of patches claims for itself.
const SPECIAL: &[char] = &['.', '|', '[', ']', '=', '\\'];

impl NodePath {
    /// The empty path, which is the root. It can be shown, never patched.
    pub fn root() -> NodePath {
        NodePath::default()
    }

    /// Whether this is the empty path.
    pub fn is_root(&self) -> bool {
        self.names.is_empty() && self.dig.is_empty()
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
        if text.is_empty() {
            return Ok(path);
        }
        let mut part = String::new();
        let mut digging = false;
        let mut chars = text.chars().chain(['\0']).enumerate().peekable();
        let length = text.chars().count();
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
        let mut part = |separator: &str, first: bool, text: &str, spaces: bool| {
            f.write_str(if first { "" } else { separator })?;
            for c in text.chars() {
                if SPECIAL.contains(&c) || (spaces && (c.is_whitespace() || c.is_control())) {
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

impl TryFrom<String> for NodePath {
    type Error = Error;

    fn try_from(text: String) -> Result<NodePath, Error> {
        text.parse()
    }
}

impl From<NodePath> for String {
    fn from(path: NodePath) -> String {
        path.to_string()
    }
}

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
        fn parse_of_print_is_identity(names in prop::collection::vec(".+", 1..4), dig in prop::collection::vec("(?s).+", 0..4)) {
            let path = NodePath { names, dig };
            prop_assert_eq!(path.to_string().parse::<NodePath>().unwrap(), path);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), grammar in "[ab.|\\[\\\\=\0 ]{0,10}") {
            for text in [text, grammar] {
                if let Ok(path) = text.parse::<NodePath>() {
                    prop_assert_eq!(path.to_string().parse::<NodePath>().unwrap(), path);
                }
            }
        }
    }
}

//! Patterns over paths, each of which matches several nodes.

use std::fmt;
use std::str::FromStr;

use super::glob::Glob;
use super::{NodePath, names_root};
use crate::error::Error;

/// A path, in one root or all, with `*` (anything within a name), `**` (any names), `?`, `[0-5]` and `{a,b}`.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    root: Option<String>,
    glob: Glob,
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Pattern, Error> {
        let fail = |at: usize, why: String| Error::Parse {
            what: "pattern of nodes",
            text: text.to_owned(),
            at,
            why,
        };
        if text.is_empty() {
            return Err(fail(0, "a name is missing here".to_owned()));
        }
        let (root, names) = match NodePath::find_unescaped(text, &[':', '|', '[', '{']) {
            Some(at) if text[at..].starts_with(':') => {
                let path: NodePath = text[..=at].parse()?;
                (path.root, &text[at + 1..])
            }
            _ => (None, text),
        };
        // Names become the parts of a file's path, since globs match such paths.
        let (mut glob, mut escaped) = (String::new(), false);
        for c in names.chars() {
            match c {
                '.' if !escaped => glob.push('/'),
                '|' if !escaped => glob.push_str("/|"),
                c => glob.push(c),
            }
            escaped = c == '\\' && !escaped;
        }
        let glob = Glob::new(&glob, true).map_err(|why| fail(0, why))?;
        Ok(Pattern {
            text: text.to_owned(),
            root,
            glob,
        })
    }
}

impl Pattern {
    /// Whether a text means more than the one path that it may be: it has a `*`, `?`, `[` or `{` that no `\` escapes.
    pub fn is_one(text: &str) -> bool {
        NodePath::find_unescaped(text, &['*', '?', '[', '{']).is_some()
    }

    /// The root that is meant, or its last parts; `None`: every root.
    pub fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// Whether it matches the path, whatever its root.
    pub fn fits(&self, path: &NodePath) -> bool {
        let mut text = path.names.join("/");
        for key in &path.dig {
            text += "/|";
            text += key;
        }
        self.glob.is_match(&text)
    }

    /// Whether it matches the path in the root with this name.
    pub fn takes(&self, root: &str, path: &NodePath) -> bool {
        let given = self.root.as_deref();
        given.is_none_or(|given| names_root(given, root)) && self.fits(path)
    }

    /// The same pattern with a text appended.
    pub fn with(&self, end: &str) -> Option<Pattern> {
        format!("{}{end}", self.text).parse().ok()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_paths() {
        for (pattern, path, fits) in [
            ("h_*.output", "h_11.output", true),
            ("h_*.output", "h_1.mlp.output", false),
            ("**.output", "output", true),
            ("**.output", "h_1.mlp.output", true),
            ("output|sub_[01]", "output|sub_1", true),
            ("output", "output|sub_1", false),
            ("{q,k}_proj.?", "k_proj.x", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
        ] {
            let (parsed, path): (Pattern, NodePath) =
                (pattern.parse().unwrap(), path.parse().unwrap());
            assert_eq!(parsed.fits(&path), fits, "{pattern}");
        }
    }

    #[test]
    fn means_roots() {
        let pattern: Pattern = "Decoder:*.output".parse().unwrap();
        let path = "fc.output".parse().unwrap();
        assert!(
            pattern.takes("Decoder.forward", &path) && !pattern.takes("Encoder.forward", &path)
        );
        assert_eq!(pattern.to_string(), "Decoder:*.output");
    }

    #[test]
    fn is_told_from_a_path() {
        for (text, is_one) in [
            ("h_*", true),
            ("a[0]", true),
            (r"a\*", false),
            ("a.b|c", false),
        ] {
            assert_eq!(Pattern::is_one(text), is_one, "{text}");
        }
    }
}

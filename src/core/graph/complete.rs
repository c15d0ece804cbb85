//! Completing what the user has typed, and what patterns mean.

use super::Graph;
use crate::path::{NodePath, Pattern};

impl Graph {
    /// What may come next: all paths that complete the last name (or the last key of a dig) of `prefix`.
    ///
    /// If only one path matches and the prefix names it fully, what lies below that path is given instead: `linear` gives
    /// `linear.input` and so on, the path of a container gives its elements. In front of the last name a pattern may stand:
    /// `h_*.m` gives `h_*.mlp`.
    pub fn completions(&self, prefix: &str) -> Vec<String> {
        if let (Some(_), rest) = NodePath::split_root(prefix) {
            let begin = &prefix[..prefix.len() - rest.len()];
            let meant = begin.parse::<NodePath>();
            if !meant.is_ok_and(|path| path.means(&self.name)) {
                return Vec::new();
            }
            let found = self.completions(rest);
            return found.iter().map(|path| format!("{begin}{path}")).collect();
        }
        let stops = ['.', '|'];
        let (head, tail) = match NodePath::rfind_unescaped(prefix, &stops) {
            Some(at) => (&prefix[..at], &prefix[at + 1..]),
            None => ("", prefix),
        };
        let digging = NodePath::find_unescaped(prefix, &['|']).is_some();
        if Pattern::is_one(head) {
            return self.completions_of_pattern(head, tail, digging);
        }
        let (Ok(head), Some(tail)) = (head.parse::<NodePath>(), unescape(tail)) else {
            return Vec::new();
        };
        let head = self.canonical(&head);
        let next = if digging {
            self.digs(&head)
        } else {
            self.names(&head)
        };
        let last = |path: &NodePath| {
            path.dig
                .last()
                .or(path.names.last())
                .cloned()
                .unwrap_or_default()
        };
        let mut found: Vec<NodePath> = next
            .into_iter()
            .filter(|path| last(path).starts_with(&tail))
            .collect();
        if let [only] = &found[..]
            && last(only) == tail
        {
            let names = if digging {
                Vec::new()
            } else {
                self.names(only)
            };
            let inner = if names.is_empty() {
                self.digs(only)
            } else {
                names
            };
            if !inner.is_empty() {
                found = inner;
            }
        }
        found.iter().map(NodePath::to_string).collect()
    }

    /// What may come next behind a pattern: the names that any of the nodes has which it means, each once.
    fn completions_of_pattern(&self, head: &str, tail: &str, digging: bool) -> Vec<String> {
        let (Ok(pattern), Some(tail)) = (head.parse::<Pattern>(), unescape(tail)) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        self.visit(&NodePath::root(), &mut |path| {
            if !pattern.fits(path) {
                return;
            }
            let next = match digging {
                true => self.digs(path),
                false => self.names(path),
            };
            // Written as a path of one name, so that it has its escapes.
            let written = |path: NodePath| match path.dig.last() {
                Some(key) => format!("{}", NodePath::root().element(key)),
                None => path
                    .names
                    .last()
                    .map_or(String::new(), |name| format!(".{name}")),
            };
            let own = |path: &NodePath| path.dig.last().or(path.names.last()).cloned();
            for path in next {
                let fits = own(&path).is_some_and(|name| name.starts_with(&tail));
                let text = format!("{head}{}", written(path));
                if fits && !found.contains(&text) {
                    found.push(text);
                }
            }
        });
        found
    }

    /// Whether one of the patterns means the node of this path, or something below it.
    pub fn means_below(&self, at: &NodePath, patterns: &[Pattern]) -> bool {
        let mut means = false;
        self.visit(at, &mut |path| {
            means |= patterns
                .iter()
                .any(|pattern| pattern.takes(&self.name, path));
        });
        means
    }

    /// The paths that a pattern means: of scopes, values and elements, in order.
    pub fn meant_by(&self, pattern: &Pattern) -> Vec<NodePath> {
        let mut meant = Vec::new();
        self.visit(&NodePath::root(), &mut |path| {
            if !path.is_root() && pattern.takes(&self.name, path) {
                meant.push(path.clone());
            }
        });
        meant
    }

    /// Calls the function with the path and all paths below it.
    fn visit(&self, at: &NodePath, function: &mut impl FnMut(&NodePath)) {
        function(at);
        for path in self.below(at).unwrap_or_default() {
            self.visit(&path, function);
        }
    }
}

/// A name that the user has only begun to type, without its escapes.
fn unescape(tail: &str) -> Option<String> {
    match tail {
        "" => Some(String::new()),
        // Keys may hold spaces, names may not: read it as a key.
        _ => format!("x|{tail}")
            .parse::<NodePath>()
            .ok()
            .and_then(|path| path.dig.into_iter().next()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{leaf, tensor, tuple_output};
    use super::super::{Kind, Value};
    use super::*;

    fn path(text: &str) -> NodePath {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_are_completed() {
        let graph = tuple_output();
        let all = |prefix: &str| graph.completions(prefix);
        assert_eq!(all("linear*.w"), ["linear*.weight"]);
        assert_eq!(
            all("{linear,linear_1}.").len(),
            graph.completions("linear.").len()
        );
        assert_eq!(all("out*|"), ["out*|sub_0", "out*|sub_1"]);
        assert!(all("absent_*.").is_empty() && all("linear*.z").is_empty());
        let meant = |text: &str| graph.meant_by(&text.parse().unwrap());
        assert_eq!(meant("linear*").len(), 2);
        assert!(graph.means_below(&path("linear"), &["**.weight".parse().unwrap()]));
        assert!(!graph.means_below(&path("linear"), &["output".parse().unwrap()]));
    }

    #[test]
    fn completes_names_scopes_and_digs() {
        let mut graph = tuple_output();
        assert_eq!(
            graph.completions(""),
            ["x", "linear", "add", "linear_1", "output"]
        );
        assert_eq!(graph.completions("lin"), ["linear", "linear_1"]);
        assert_eq!(graph.completions("linear"), ["linear", "linear_1"]);
        assert_eq!(graph.completions("linear_1.b"), ["linear_1.bias"]);
        assert_eq!(graph.completions("linear_0.b"), ["linear.bias"]);
        assert_eq!(graph.completions("linear_1").len(), 5);
        assert_eq!(
            graph.completions("output"),
            ["output|sub_0", "output|sub_1"]
        );
        assert_eq!(
            graph.completions("output|"),
            ["output|sub_0", "output|sub_1"]
        );
        assert_eq!(graph.completions("output|sub_1"), ["output|sub_1"]);
        assert_eq!(graph.completions("x"), ["x"]);
        for none in ["nothing", "x.", "x|", "..", "a|b|c", "linear|", "\\"] {
            assert!(graph.completions(none).is_empty(), "{none}");
        }
        let dict = Value::Dict(vec![
            ("a.b".into(), Value::List(vec![tensor(&[1])])),
            ("a c".into(), Value::Int),
        ]);
        graph.root.children[4] = leaf(Kind::Output, "output", dict);
        assert_eq!(
            graph.completions("output|a"),
            ["output|a\\.b", "output|a c"]
        );
        assert_eq!(graph.completions("output|a\\.b"), ["output|a\\.b.sub_0"]);
        assert_eq!(graph.completions("output|a\\.b."), ["output|a\\.b.sub_0"]);
    }
}

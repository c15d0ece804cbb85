//! The tree as text: in a plain form that other programs may read, and for a terminal, with limited depth, folded neighbours,
//! counts and colors.

use super::counts::Counts;
use super::{Graph, Kind, Node, Value};
use crate::error::{Error, Result};
use crate::path::NodePath;
use crate::plain::plain_line;

/// What a piece of a tree's text is, for a caller that colors it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The lines of the tree itself.
    Branch,
    Scope,
    Input,
    Parameter,
    Op,
    Output,
    /// An element of a container.
    Element,
    /// The type after a name.
    Label,
    /// A note about a scope: its counts, or which scope it repeats.
    Remark,
}

/// How a tree is drawn; the default is the plain text that other programs may read.
#[derive(Clone, Copy, Debug, Default)]
pub struct TreeStyle {
    /// How many levels below the first line are drawn.
    pub depth: Option<usize>,
    /// Whether a scope that looks like its neighbor before it is one line.
    pub fold: bool,
    /// Whether scopes say how much is in them.
    pub counts: bool,
    /// Writes a piece of text in its color.
    pub paint: Option<fn(&mut String, Part, &str)>,
}

impl Graph {
    /// The tree below a path, whose first line is the node's own name. Every line ends with `\n`.
    pub fn tree(&self, path: &NodePath) -> Result<String> {
        self.styled_tree(path, TreeStyle::default())
    }

    /// The same in another style.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] for a path that is not there.
    pub fn styled_tree(&self, path: &NodePath, style: TreeStyle) -> Result<String> {
        let node = self.node(path).ok_or_else(|| self.unknown(path))?;
        let mut drawing = Drawing {
            text: String::new(),
            style,
        };
        let depth = style.depth.unwrap_or(usize::MAX);
        match path.dig.last() {
            None => drawing.node("", "", node, depth),
            Some(key) if !node.is_scope() => match node.value.element(&path.dig) {
                Some(value) => drawing.value("", "", Part::Element, key, &value, depth),
                None => return Err(self.unknown(path)),
            },
            Some(_) => return Err(self.unknown(path)),
        }
        Ok(drawing.text)
    }

    pub(super) fn unknown(&self, path: &NodePath) -> Error {
        let graphs = std::slice::from_ref(self);
        Error::Path(super::check::complain(
            "cannot be shown",
            graphs,
            &[(path, self.missing(path))],
        ))
    }
}

struct Drawing {
    text: String,
    style: TreeStyle,
}

impl Drawing {
    /// Draws a line and everything below it. `first` stands before the node's own line, `rest` before the lines below.
    fn node(&mut self, first: &str, rest: &str, node: &Node, depth: usize) {
        let part = match node.kind {
            Kind::Input => Part::Input,
            Kind::Parameter => Part::Parameter,
            Kind::Op => Part::Op,
            Kind::Scope => Part::Scope,
            Kind::Output => Part::Output,
        };
        if !node.is_scope() {
            return self.value(first, rest, part, &node.name, &node.value, depth);
        }
        let remark = match self.style.counts {
            true => Counts::of(node).to_string(),
            false => String::new(),
        };
        let label = format!("Graph({})", node.children.len());
        self.line(first, part, &node.name, &label, &remark);
        if depth == 0 {
            return;
        }
        let mut at = 0;
        while let Some(child) = node.children.get(at) {
            let alike = match self.style.fold {
                true => repeats(&node.children[at..]),
                false => 0,
            };
            let last = at + alike + 1 == node.children.len();
            let (first, below) = branch(rest, last && alike == 0);
            self.node(&first, &below, child, depth - 1);
            if alike > 0 {
                let (begin, end) = (&node.children[at + 1], &node.children[at + alike]);
                let name = match alike {
                    1 => begin.name.clone(),
                    _ => format!("{} … {}", begin.name, end.name),
                };
                let (first, _) = branch(rest, last);
                let same = format!("same as {}", child.name);
                self.line(&first, part, &name, "", &same);
            }
            at += alike + 1;
        }
    }

    fn value(
        &mut self,
        first: &str,
        rest: &str,
        part: Part,
        name: &str,
        value: &Value,
        depth: usize,
    ) {
        self.line(first, part, name, &value.label(), "");
        if depth == 0 {
            return;
        }
        let elements = value.elements();
        for (i, (key, element)) in elements.iter().enumerate() {
            let (first, rest) = branch(rest, i + 1 == elements.len());
            self.value(&first, &rest, Part::Element, key, element, depth - 1);
        }
    }

    fn line(&mut self, indent: &str, part: Part, name: &str, label: &str, remark: &str) {
        self.paint(Part::Branch, indent);
        // Control characters (in a dict's key or a type's name) must not break the tree.
        self.paint(part, &plain_line(name));
        let label = plain_line(label);
        for (part, said) in [(Part::Label, label.trim_end()), (Part::Remark, remark)] {
            if !said.is_empty() {
                self.text
                    .push_str(if part == Part::Label || label.is_empty() {
                        ": "
                    } else {
                        "  "
                    });
                self.paint(part, said);
            }
        }
        self.text.truncate(self.text.trim_end().len());
        self.text.push('\n');
    }

    fn paint(&mut self, part: Part, text: &str) {
        match self.style.paint {
            Some(paint) if !text.is_empty() => paint(&mut self.text, part, text),
            _ => self.text.push_str(text),
        }
    }
}

fn branch(indent: &str, last: bool) -> (String, String) {
    if last {
        (format!("{indent}└─"), format!("{indent}  "))
    } else {
        (format!("{indent}├─"), format!("{indent}│ "))
    }
}

/// How many of the scopes after the first one look exactly like it.
fn repeats(siblings: &[Node]) -> usize {
    let Some((first, others)) = siblings.split_first() else {
        return 0;
    };
    if !first.is_scope() || first.children.is_empty() {
        return 0;
    }
    others
        .iter()
        .take_while(|other| other.is_scope() && is_alike(first, other))
        .count()
}

/// Whether two nodes have the same tree but for their own names.
fn is_alike(a: &Node, b: &Node) -> bool {
    let same = |(a, b): (&Node, &Node)| a.name == b.name && is_alike(a, b);
    a.kind == b.kind
        && a.value == b.value
        && a.children.len() == b.children.len()
        && a.children.iter().zip(&b.children).all(same)
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;

//! What a value was made from, as it was when it was made: tensors by identity, everything else as Python text.

use super::element::{Element, Tag};
use graphpatch_core::graph::{Arg, SourceLine};
use graphpatch_core::tensor::Number;
use graphpatch_native::Stack;

/// The arguments that one value was made from, and the place in the user's source.
#[derive(Clone, Debug, Default)]
pub struct Args {
    /// Keyword (empty: by position), and what was given.
    given: Vec<(String, Argument)>,
    pub source: Source,
}

/// Where in the user's source something was called.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// Calls in native code, around all others.
    pub stack: Stack,
    /// Innermost last.
    pub frames: Vec<SourceLine>,
}

impl Source {
    pub fn is_empty(&self) -> bool {
        self.stack.is_empty() && self.frames.is_empty()
    }
}

/// One argument.
#[derive(Clone, Debug)]
enum Argument {
    /// A tensor: its identity, and the text to write if nobody knows which node it came from.
    Tensor(usize, String),
    Const(String),
    List(Vec<Argument>),
    Tuple(Vec<Argument>),
    Dict(Vec<(String, Argument)>),
}

/// Strings in code are cut here: they may be whole documents.
const LONGEST: usize = 60;

impl Args {
    /// From arguments in preorder, one after the other.
    pub fn new(elements: &[Element<'_>], source: Source) -> Args {
        let mut rest = elements;
        let mut given = Vec::new();
        while let Some((first, _)) = rest.split_first() {
            given.push((first.key.to_owned(), read(&mut rest)));
        }
        Args { given, source }
    }

    /// The arguments by position and by keyword. `name` says which node each tensor came from.
    pub fn resolve(&self, name: &dyn Fn(usize) -> Option<Arg>) -> (Vec<Arg>, Vec<(String, Arg)>) {
        // Nodes are kept as long as their session, so their lists have no spare room.
        let positional = self.given.iter().filter(|(key, _)| key.is_empty());
        let mut args = Vec::with_capacity(positional.count());
        let mut kwargs = Vec::with_capacity(self.given.len() - args.capacity());
        for (key, given) in &self.given {
            let arg = given.resolve(name);
            match key.is_empty() {
                true => args.push(arg),
                false => kwargs.push((key.clone(), arg)),
            }
        }
        (args, kwargs)
    }
}

impl Argument {
    fn resolve(&self, name: &dyn Fn(usize) -> Option<Arg>) -> Arg {
        let all = |list: &[Argument]| list.iter().map(|given| given.resolve(name)).collect();
        match self {
            Argument::Tensor(identity, label) => {
                name(*identity).unwrap_or_else(|| Arg::Const(label.clone()))
            }
            Argument::Const(text) => Arg::Const(text.clone()),
            Argument::List(list) => Arg::List(all(list)),
            Argument::Tuple(list) => Arg::Tuple(all(list)),
            Argument::Dict(entries) => Arg::Dict(
                entries
                    .iter()
                    .map(|(key, given)| (key.clone(), given.resolve(name)))
                    .collect(),
            ),
        }
    }
}

/// Takes one value from the front of the list.
fn read(rest: &mut &[Element<'_>]) -> Argument {
    let Some((first, others)) = rest.split_first() else {
        return Argument::Const("None".into());
    };
    *rest = others;
    let n = first.count;
    match first.tag {
        Tag::Tensor => {
            let sizes: Vec<String> = first.sizes.iter().map(i64::to_string).collect();
            let label = match first.text.is_empty() {
                true => format!("<Tensor({})>", sizes.join(", ")),
                false => first.text.to_owned(),
            };
            Argument::Tensor(first.identity, label)
        }
        Tag::Undefined | Tag::None => Argument::Const("None".into()),
        Tag::Bool | Tag::Int | Tag::Float | Tag::Complex => Argument::Const(number(&first.number)),
        Tag::Str => Argument::Const(quoted(first.text)),
        Tag::Other if first.text.contains('.') => Argument::Const(first.text.to_owned()),
        Tag::Other => Argument::Const(format!("<{}>", first.text)),
        Tag::List => Argument::List((0..n).map(|_| read(rest)).collect()),
        Tag::Tuple => Argument::Tuple((0..n).map(|_| read(rest)).collect()),
        Tag::Dict => Argument::Dict(
            (0..n)
                .map(|_| {
                    let key = rest.first().map_or("", |next| next.key).to_owned();
                    (key, read(rest))
                })
                .collect(),
        ),
    }
}

fn number(number: &Number) -> String {
    match number {
        Number::Bool(true) => "True".into(),
        Number::Bool(false) => "False".into(),
        // libtorch means "to the end" by this number.
        Number::Int(i64::MAX) => "sys.maxsize".into(),
        Number::Complex(..) => format!("({number})"),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars().take(LONGEST) {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_python_text_and_names() {
        let text = |text| Element {
            text,
            ..Element::of(Tag::Str)
        };
        let tensor = |identity| Element {
            identity,
            sizes: &[2, 3],
            ..Element::of(Tag::Tensor)
        };
        let list = Element {
            count: 2,
            ..Element::of(Tag::List)
        };
        let alpha = Element {
            key: "alpha",
            number: Number::Float(2.0),
            ..Element::of(Tag::Float)
        };
        let other = Element {
            text: "DynamicCache",
            ..Element::of(Tag::Other)
        };
        let elements = [list, tensor(1), tensor(2), text("it's\n"), other, alpha];
        let args = Args::new(&elements, Source::default());
        let (args, kwargs) = args.resolve(&|id| (id == 1).then(|| Arg::Node("x".into())));
        let tensors = vec![Arg::Node("x".into()), Arg::Const("<Tensor(2, 3)>".into())];
        assert_eq!(
            args,
            [
                Arg::List(tensors),
                Arg::Const(r"'it\'s\n'".into()),
                Arg::Const("<DynamicCache>".into())
            ]
        );
        assert_eq!(kwargs, [("alpha".to_owned(), Arg::Const("2.0".into()))]);
    }

    #[test]
    fn a_list_that_ends_early_does_no_harm() {
        let list = Element {
            count: 3,
            ..Element::of(Tag::Tuple)
        };
        let (args, _) = Args::new(&[list], Source::default()).resolve(&|_| None);
        let none = Arg::Const("None".into());
        assert_eq!(args, [Arg::Tuple(vec![none.clone(), none.clone(), none])]);
    }
}

//! Slices as text: the inside of Python's `tensor[...]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// One item between the commas of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// `3`, `-1`: takes one index and drops the dimension.
    Index(i64),
    /// `1:5`, `::2`: keeps the dimension. The step is at least 1.
    Range {
        start: Option<i64>,
        stop: Option<i64>,
        step: Option<i64>,
    },
    /// `...`: as many whole dimensions as the other items leave.
    Ellipsis,
    /// `None`: a new dimension of size 1.
    NewAxis,
}

/// A part of a tensor, with the meaning that `tensor[slice]` has in PyTorch. Without items: the whole value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slice(pub Vec<Item>);

impl Slice {
    /// The whole value; its text is empty.
    pub fn whole() -> Slice {
        Slice::default()
    }

    /// Whether there are no items, so that nothing is cut.
    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads the characters of a slice; positions count characters.
struct Reader<'a> {
    text: &'a str,
    chars: Vec<char>,
    at: usize,
}

impl Reader<'_> {
    fn fail<T>(&self, at: usize, why: impl Into<String>) -> Result<T, Error> {
        Err(Error::Parse {
            what: "slice",
            text: self.text.to_owned(),
            at,
            why: why.into(),
        })
    }

    /// The next character that is no whitespace, left in place.
    fn peek(&mut self) -> Option<char> {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.chars.get(self.at).copied()
    }

    /// Takes `text` if it comes next.
    fn take(&mut self, text: &str) -> bool {
        self.peek();
        let next = self.chars.get(self.at..).unwrap_or_default();
        let found =
            text.chars().count() <= next.len() && text.chars().zip(next).all(|(a, b)| a == *b);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    /// The integer that comes next, if one does.
    fn integer(&mut self) -> Result<Option<i64>, Error> {
        self.peek();
        let start = self.at;
        let sign: String = self
            .chars
            .get(start)
            .filter(|c| matches!(c, '-' | '+'))
            .into_iter()
            .collect();
        let digits = self.chars.get(start + sign.len()..).unwrap_or_default();
        let digits: String = digits.iter().take_while(|c| c.is_ascii_digit()).collect();
        if digits.is_empty() {
            return if sign.is_empty() {
                Ok(None)
            } else {
                self.fail(start, "a number must follow the sign")
            };
        }
        self.at += sign.len() + digits.len();
        match format!("{sign}{digits}").parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => self.fail(start, "this integer does not fit into 64 bits"),
        }
    }

    /// A bound of a range: an integer, `None` or nothing.
    fn bound(&mut self) -> Result<Option<i64>, Error> {
        if self.take("None") {
            Ok(None)
        } else {
            self.integer()
        }
    }

    fn item(&mut self) -> Result<Item, Error> {
        let begin = self.at;
        if self.take("...") {
            return Ok(Item::Ellipsis);
        }
        let none = self.take("None");
        let start = if none { None } else { self.integer()? };
        if !self.take(":") {
            return match (none, start) {
                (true, _) => Ok(Item::NewAxis),
                (false, Some(index)) => Ok(Item::Index(index)),
                (false, None) => self.fail(begin, "expected an integer, a range, `...` or `None`"),
            };
        }
        let stop = self.bound()?;
        let mut step = None;
        if self.take(":") {
            self.peek();
            let begin = self.at;
            step = self.bound()?;
            match step {
                Some(0) => return self.fail(begin, "slice step cannot be zero"),
                Some(..0) => return self.fail(begin, "step must be greater than zero"),
                _ => {}
            }
        }
        Ok(Item::Range { start, stop, step })
    }
}

impl FromStr for Slice {
    type Err = Error;

    /// Reads `[...]` with the brackets; the empty text is the whole value.
    fn from_str(text: &str) -> Result<Slice, Error> {
        let mut reader = Reader {
            text,
            chars: text.chars().collect(),
            at: 0,
        };
        if reader.peek().is_none() {
            return Ok(Slice::whole());
        }
        if !reader.take("[") {
            return reader.fail(reader.at, "a slice begins with `[`");
        }
        let mut items = Vec::new();
        loop {
            if !items.is_empty() && reader.peek() == Some(']') {
                break; // a comma may stand before the bracket, as in Python
            }
            reader.peek();
            items.push(reader.item()?);
            if !reader.take(",") {
                break;
            }
        }
        if !reader.take("]") {
            reader.peek();
            return reader.fail(reader.at, "expected `,` or `]`");
        }
        match reader.peek() {
            None => Ok(Slice(items)),
            Some(_) => reader.fail(reader.at, "nothing may follow the `]`"),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bound: &Option<i64>| bound.map(|n| n.to_string()).unwrap_or_default();
        match self {
            Item::Index(index) => write!(f, "{index}"),
            Item::Range {
                start,
                stop,
                step: None,
            } => write!(f, "{}:{}", text(start), text(stop)),
            Item::Range { start, stop, step } => {
                write!(f, "{}:{}:{}", text(start), text(stop), text(step))
            }
            Item::Ellipsis => f.write_str("..."),
            Item::NewAxis => f.write_str("None"),
        }
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<String> = self.0.iter().map(Item::to_string).collect();
        if items.is_empty() {
            Ok(())
        } else {
            write!(f, "[{}]", items.join(", "))
        }
    }
}

as_text!(Slice);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn any_item() -> impl Strategy<Value = Item> {
        let bound = || prop::option::of(-7..7i64);
        prop_oneof![
            3 => (-4..4i64).prop_map(Item::Index),
            4 => (bound(), bound(), prop::option::of(1..4i64))
                .prop_map(|(start, stop, step)| Item::Range { start, stop, step }),
            1 => Just(Item::Ellipsis),
            1 => Just(Item::NewAxis),
        ]
    }

    #[test]
    fn reads_python_indexing() {
        for (text, canonical) in [
            ("[3]", "[3]"),
            (
                " [ -1 , 1:5 ,: :2, ... ,None , ] ",
                "[-1, 1:5, ::2, ..., None]",
            ),
            ("[None:5:None]", "[:5]"),
            ("[:]", "[:]"),
            ("[+2::1]", "[2::1]"),
            ("[-9223372036854775808]", "[-9223372036854775808]"),
            ("", ""),
        ] {
            assert_eq!(text.parse::<Slice>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn says_where_it_fails() {
        for (text, at) in [
            ("3", 0),
            ("[]", 1),
            ("[,]", 1),
            ("[1", 2),
            ("[1 2]", 3),
            ("[::0]", 3),
            ("[1, ::-1]", 6),
            ("[é]", 1),
            ("[1.5]", 2),
            ("[-]", 1),
            ("[1]x", 3),
            ("[True]", 1),
            ("[99999999999999999999]", 1),
            ("[1,,2]", 3),
        ] {
            match text.parse::<Slice>() {
                Err(Error::Parse { at: found, .. }) => assert_eq!(found, at, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn parse_of_print_is_identity(items in prop::collection::vec(any_item(), 0..6)) {
            let slice = Slice(items);
            prop_assert_eq!(slice.to_string().parse::<Slice>().unwrap(), slice);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), grammar in "\\[[-+0-9:.,Noe \\]]{0,12}") {
            for text in [text, grammar] {
                if let Ok(slice) = text.parse::<Slice>() {
                    prop_assert_eq!(slice.to_string().parse::<Slice>().unwrap(), slice);
                }
            }
        }
    }
}

//! Patterns of text, as shells and `.gitignore` know them: `*`, `**`, `?`, `[0-5]` and `{a,b}`.
//!
//! A crate for this brings an engine for regular expressions, which is a fifth of the library that every process loads. The tests
//! compare the answers with that crate's (`globset`).

use std::iter::Peekable;
use std::str::Chars;

/// A pattern that has been read.
#[derive(Clone, Debug)]
pub struct Glob {
    parts: Vec<Part>,
    /// Whether `*` and `?` stop at a separator.
    by_names: bool,
}

/// What divides a text into names.
pub const SEPARATOR: char = '/';

/// How deep groups may lie in each other. Matching a group and freeing it take some of the thread's stack for each level, and a
/// program's thread may have little of it.
const MOST_NESTED: usize = 64;

#[derive(Clone, Debug)]
enum Part {
    One(char),
    /// `?`
    Any,
    /// `*`
    Some,
    /// `**/` at the beginning: any number of names.
    Before,
    /// `/**/`: at least the separator.
    Between,
    /// `/**` at the end.
    Behind,
    /// `[a-c]`, or all characters but those.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `{a,b}`
    Either(Vec<Vec<Part>>),
}

impl Glob {
    /// With `by_names` the text is divided into names by [`SEPARATOR`], and only `**` means several of them. `\` takes the meaning
    /// from the character after it.
    ///
    /// # Errors
    ///
    /// What is wrong with the pattern.
    pub fn new(text: &str, by_names: bool) -> Result<Glob, String> {
        let mut reader = Reader {
            chars: text.chars().peekable(),
            previous: None,
            branches: vec![Vec::new()],
            open: Vec::new(),
        };
        reader.read()?;
        let parts = match (reader.branches.pop(), reader.open.is_empty()) {
            (Some(parts), true) => parts,
            _ => {
                return Err(
                    "unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)".into(),
                );
            }
        };
        Ok(Glob { parts, by_names })
    }

    /// Whether the pattern means this text, from its beginning to its end.
    pub fn is_match(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let mut at = vec![false; text.len() + 1];
        at[0] = true;
        if let [Part::Before] = self.parts[..] {
            return true; // nothing but `**`
        }
        self.follow(&self.parts, &text, at).last() == Some(&true)
    }

    /// From the places of the text that have been reached, those that are reached after these parts.
    fn follow(&self, parts: &[Part], text: &[char], from: Vec<bool>) -> Vec<bool> {
        parts.iter().fold(from, |from, part| match part {
            Part::One(c) => step(&from, |at| text[at] == *c),
            Part::Any => step(&from, |at| !self.stops(text[at])),
            Part::Class { negated, ranges } => step(&from, |at| {
                ranges
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&text[at]))
                    != *negated
            }),
            Part::Some => spread(&from, |at| !self.stops(text[at])),
            Part::Behind => spread(&step(&from, |at| text[at] == SEPARATOR), |_| true),
            Part::Between => {
                let inside = step(&from, |at| text[at] == SEPARATOR);
                let further = spread(&inside, |_| true);
                either(inside, step(&further, |at| text[at] == SEPARATOR))
            }
            Part::Before => {
                let further = spread(&from, |_| true);
                either(from, step(&further, |at| text[at] == SEPARATOR))
            }
            Part::Either(branches) => {
                let all = branches
                    .iter()
                    .map(|parts| self.follow(parts, text, from.clone()));
                all.fold(vec![false; from.len()], either)
            }
        })
    }

    fn stops(&self, c: char) -> bool {
        self.by_names && c == SEPARATOR
    }
}

/// The places one character further on, for characters that fit.
fn step(from: &[bool], fits: impl Fn(usize) -> bool) -> Vec<bool> {
    let moved = (1..from.len()).map(|to| from[to - 1] && fits(to - 1));
    std::iter::once(false).chain(moved).collect()
}

/// The places any number of characters further on, as long as the characters fit.
fn spread(from: &[bool], fits: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut to = from.to_vec();
    for at in 1..to.len() {
        to[at] = to[at] || to[at - 1] && fits(at - 1);
    }
    to
}

fn either(mut some: Vec<bool>, others: Vec<bool>) -> Vec<bool> {
    some.iter_mut()
        .zip(others)
        .for_each(|(one, other)| *one |= other);
    some
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    previous: Option<char>,
    /// What is being read: the pattern itself, and the branches of the groups that are open.
    branches: Vec<Vec<Part>>,
    /// Which branch is the first one of each open group.
    open: Vec<usize>,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        let mut before = None;
        while let Some(c) = self.chars.next() {
            self.previous = before.replace(c);
            match c {
                '?' => self.push(Part::Any),
                '*' => {
                    if self.star() {
                        before = Some(SEPARATOR);
                    }
                }
                '[' => {
                    let class = self.class()?;
                    self.push(class);
                    before = Some(']');
                }
                '{' => {
                    if self.open.len() == MOST_NESTED {
                        return Err(format!("groups nested more than {MOST_NESTED} deep"));
                    }
                    self.open.push(self.branches.len());
                    self.branches.push(Vec::new());
                }
                '}' => {
                    let first = self.open.pop().ok_or(
                        "unopened alternate group; missing '{' (maybe escape '}' with '[}]'?)",
                    )?;
                    let group = self.branches.drain(first..).collect();
                    self.push(Part::Either(group));
                }
                ',' if !self.open.is_empty() => self.branches.push(Vec::new()),
                '\\' => {
                    let c = self.chars.next().ok_or("dangling '\\'")?;
                    before = Some(c);
                    self.push(Part::One(c));
                }
                c => self.push(Part::One(c)),
            }
        }
        Ok(())
    }

    fn push(&mut self, part: Part) {
        if let Some(branch) = self.branches.last_mut() {
            branch.push(part);
        }
    }

    /// Reads what a `*` begins. Returns whether a separator after it was read, too.
    fn star(&mut self) -> bool {
        if self.chars.next_if_eq(&'*').is_none() {
            self.push(Part::Some);
            return false;
        }
        let inner = !self.open.is_empty();
        let first = self.branches.last().is_none_or(Vec::is_empty);
        let begins = first
            || self.previous == Some(SEPARATOR)
            || inner && matches!(self.previous, Some(',' | '{'));
        let ends = match self.chars.peek() {
            None => true,
            Some(&SEPARATOR) => true,
            Some(',' | '}') => inner && !first,
            Some(_) => false,
        };
        if !begins || !ends {
            self.push(Part::Some); // means no more than one `*`
            return false;
        }
        let separated = self.chars.next_if_eq(&SEPARATOR).is_some();
        if first {
            self.push(Part::Before);
            return separated;
        }
        let branch = self.branches.last_mut();
        let part = match branch.and_then(Vec::pop) {
            Some(part @ (Part::Before | Part::Behind)) => part,
            _ if separated => Part::Between,
            _ => Part::Behind,
        };
        self.push(part);
        separated
    }

    fn class(&mut self) -> Result<Part, String> {
        let negated = self.chars.next_if(|c| matches!(c, '!' | '^')).is_some();
        let mut ranges: Vec<(char, char)> = Vec::new();
        let mut is_range = false;
        loop {
            let c = self
                .chars
                .next()
                .ok_or("unclosed character class; missing ']'")?;
            match (c, ranges.last_mut()) {
                (']', Some(_)) => break,
                ('-', Some(_)) if !is_range => is_range = true,
                (c, Some(last)) if is_range => {
                    if c < last.0 {
                        return Err(format!("invalid range; '{}' > '{c}'", last.0));
                    }
                    last.1 = c;
                    is_range = false;
                }
                (c, _) => ranges.push((c, c)),
            }
        }
        if is_range {
            ranges.push(('-', '-'));
        }
        Ok(Part::Class { negated, ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn theirs(pattern: &str, by_names: bool) -> Result<globset::GlobMatcher, String> {
        let built = globset::GlobBuilder::new(pattern)
            .literal_separator(by_names)
            .backslash_escape(true)
            .empty_alternates(true)
            .build();
        let built = built.map_err(|why| why.kind().to_string())?;
        Ok(built.compile_matcher())
    }

    fn agree(pattern: &str, texts: &[String], by_names: bool) -> Result<(), TestCaseError> {
        match (Glob::new(pattern, by_names), theirs(pattern, by_names)) {
            (Ok(ours), Ok(theirs)) => {
                for text in texts {
                    prop_assert_eq!(
                        ours.is_match(text),
                        theirs.is_match(text),
                        "{} {:?}",
                        pattern,
                        text
                    );
                }
            }
            (ours, theirs) => prop_assert_eq!(ours.err(), theirs.err(), "{}", pattern),
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn means_what_it_means_to_globset(
            pattern in "([ab]|[ab]|\\*|\\*\\*/|/\\*\\*|/|\\?|\\[[ab]\\]|\\[!a-\\]|\\{a,\\}|\\{[ab],\\*\\*\\}|\\{b/,a\\}){0,6}",
            texts in prop::collection::vec("[ab/]{0,8}", 12),
            by_names: bool,
        ) {
            agree(&pattern, &texts, by_names)?;
        }

        #[test]
        fn refuses_what_globset_refuses(pattern in "[ab/*?{},!\\[\\]\\-\\\\]{0,9}", texts in prop::collection::vec("[ab/,-]{0,6}", 12)) {
            agree(&pattern, &texts, true)?;
        }
    }

    #[test]
    fn a_character_is_one_character() {
        let glob = Glob::new("gr?[ß-ü]e", true).unwrap();
        assert!(glob.is_match("größe") && !glob.is_match("grosse"));
    }

    /// Many ways to match must not mean much time.
    #[test]
    fn stars_are_cheap() {
        let glob = Glob::new(&format!("{}a", "{a*,*a}".repeat(30)), true).unwrap();
        assert!(!glob.is_match(&format!("{}b", "a".repeat(200))));
    }

    /// A deeper one would overflow the stack where it is matched or freed.
    #[test]
    fn groups_nest_only_so_deep() {
        let nested = |levels: usize| "{".repeat(levels) + "a" + &"}".repeat(levels);
        assert!(Glob::new(&nested(MOST_NESTED), true).unwrap().is_match("a"));
        for levels in [MOST_NESTED + 1, 100_000] {
            let why = Glob::new(&nested(levels), true).unwrap_err();
            assert!(why.contains("groups nested more than 64 deep"), "{why}");
        }
    }
}

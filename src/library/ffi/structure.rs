//! The text that says what a shown value is made of (see gp_scope_input), read into elements.

use std::ffi::c_void;

use graphpatch_core::error::{Error, Result};
use graphpatch_core::tensor::Number;
use graphpatch_session::record::{Element, Tag};

/// The elements of the value, in preorder. Tensors take their identities from `tensors`, in order.
pub(super) fn parse<'a>(text: &'a str, tensors: &[*const c_void]) -> Result<Vec<Element<'a>>> {
    let mut reader = Reader {
        text,
        at: 0,
        tensors: tensors.iter(),
        out: Vec::new(),
    };
    reader.value("", MOST_NESTED)?;
    match reader.at == text.len() {
        true => Ok(reader.out),
        false => Err(reader.wrong("text behind the value")),
    }
}

/// How deep containers may lie in each other.
const MOST_NESTED: usize = 128;

struct Reader<'a, 'b> {
    text: &'a str,
    at: usize,
    tensors: std::slice::Iter<'b, *const c_void>,
    out: Vec<Element<'a>>,
}

impl<'a> Reader<'a, '_> {
    fn wrong(&self, why: &str) -> Error {
        Error::Parse {
            what: "structure",
            text: self.text.to_owned(),
            at: self.at,
            why: why.to_owned(),
        }
    }

    /// The text up to `end`. The reader goes on after `end`.
    fn until(&mut self, end: char) -> Result<&'a str> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest
            .find(end)
            .ok_or_else(|| self.wrong(&format!("no {end:?} behind it")))?;
        self.at += length + end.len_utf8();
        Ok(&rest[..length])
    }

    fn number<T: std::str::FromStr>(&mut self, end: char) -> Result<T> {
        let begin = self.at;
        self.until(end)?.parse().map_err(|_| {
            self.at = begin;
            self.wrong("no number")
        })
    }

    /// `5:hello`
    fn sized(&mut self) -> Result<&'a str> {
        let size: usize = self.number(':')?;
        let text = self
            .at
            .checked_add(size)
            .and_then(|end| self.text.get(self.at..end));
        let text = text.ok_or_else(|| self.wrong("a text that ends too early"))?;
        self.at += size;
        Ok(text)
    }

    /// One value, with containers at most `deep` deep.
    fn value(&mut self, key: &'a str, deep: usize) -> Result<()> {
        let below = deep.checked_sub(1);
        let below = below.ok_or_else(|| self.wrong("containers nested too deeply"))?;
        let tag = self.text.as_bytes().get(self.at).copied();
        self.at += usize::from(tag.is_some());
        let mut element = Element {
            key,
            ..Element::of(Tag::None)
        };
        let mut inside = 0;
        match tag {
            Some(b'T') => {
                let tensor = self.tensors.next();
                let tensor = tensor.ok_or_else(|| self.wrong("more tensors than were given"))?;
                element.identity = tensor.expose_provenance();
                element.tag = if tensor.is_null() {
                    Tag::Undefined
                } else {
                    Tag::Tensor
                };
            }
            Some(b'N') => {}
            Some(b'B') => {
                element.tag = Tag::Bool;
                element.number = Number::Bool(self.number::<u8>(';')? != 0);
            }
            Some(b'I') => {
                element.tag = Tag::Int;
                element.number = Number::Int(self.number(';')?);
            }
            Some(b'F') => {
                element.tag = Tag::Float;
                element.number = Number::Float(self.number(';')?);
            }
            Some(b'S') => (element.tag, element.text) = (Tag::Str, self.sized()?),
            Some(b'O') => (element.tag, element.text) = (Tag::Other, self.sized()?),
            Some(container @ (b'(' | b'[' | b'{')) => {
                element.tag = match container {
                    b'(' => Tag::Tuple,
                    b'[' => Tag::List,
                    _ => Tag::Dict,
                };
                inside = self.number(';')?;
                element.count = inside;
            }
            _ => {
                self.at = self.at.saturating_sub(1);
                return Err(self.wrong("no value begins so"));
            }
        }
        let dict = element.tag == Tag::Dict;
        self.out.push(element);
        for _ in 0..inside {
            let key = if dict { self.sized()? } else { "" };
            self.value(key, below)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_header_describes() {
        let tensors = [std::ptr::without_provenance(16), std::ptr::null()];
        let text = "(4;{2;3:keyT2:k2[2;I-3;F0.5;B1;S6:größeO4:Type";
        assert!(parse(text, &tensors).is_err(), "the tuple lacks an element");
        let text = "(4;{2;3:keyT2:k2[2;I-3;F0.5;B1;S7:größeT";
        let elements = parse(text, &tensors).unwrap();
        let tags: Vec<Tag> = elements.iter().map(|element| element.tag).collect();
        use Tag::{Bool, Dict, Float, Int, List, Str, Tensor, Tuple, Undefined};
        assert_eq!(
            tags,
            [Tuple, Dict, Tensor, List, Int, Float, Bool, Str, Undefined]
        );
        assert_eq!((elements[2].key, elements[2].identity), ("key", 16));
        assert_eq!((elements[3].key, elements[3].count), ("k2", 2));
        assert_eq!(elements[4].number, Number::Int(-3));
        assert_eq!(elements[7].text, "größe");
    }

    #[test]
    fn bad_text_is_refused_with_its_place() {
        for text in [
            "",
            "X",
            "T",
            "TT",
            "(2;N",
            "I;",
            "Ix;",
            "S9:ab",
            "S1:ö",
            "{1;N",
            "NN",
            "(9999999999999999999999;",
        ] {
            let error = parse(text, &[]).unwrap_err();
            assert!(error.to_string().contains("structure"), "{text}: {error}");
        }
    }
}

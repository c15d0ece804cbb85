//! The header of an npy file: a Python dict that says what the elements are and how they lie.
//!
//! This is no parser of Python: it takes what NumPy writes, in any spacing, and nothing that could nest.

use super::Dtype;
use crate::fault::Fault;

/// What the header says.
pub(super) struct Header {
    pub kind: Element,
    pub swapped: bool,
    pub fortran: bool,
    pub shape: Vec<i64>,
}

/// The type of an element, and the size of its parts in bytes; each part is in the file's byte order.
#[derive(Clone, Copy)]
pub(super) struct Element {
    pub dtype: Dtype,
    pub part: usize,
}

impl Header {
    /// Reads the text, which ends where the elements begin.
    pub fn parse(text: &[u8]) -> Result<Header, Fault> {
        Literal { text, at: 0 }.header()
    }
}

/// What `descr` means, such as `<f4`; and whether its bytes stand the other way round.
fn element(descr: &str) -> Option<(Element, bool)> {
    let mut chars = descr.chars();
    let swapped = match chars.next()? {
        '<' => cfg!(target_endian = "big"),
        '>' => cfg!(target_endian = "little"),
        '|' | '=' => false,
        _ => return None,
    };
    let dtype = match chars.as_str() {
        "b1" | "?" => Dtype::Bool,
        "u1" => Dtype::U8,
        "i1" => Dtype::I8,
        "i2" => Dtype::I16,
        "i4" => Dtype::I32,
        "i8" => Dtype::I64,
        "u2" => Dtype::U16,
        "u4" => Dtype::U32,
        "u8" => Dtype::U64,
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        "c8" => Dtype::C64,
        "c16" => Dtype::C128,
        _ => return None,
    };
    let parts = if matches!(dtype, Dtype::C64 | Dtype::C128) {
        2
    } else {
        1
    };
    let part = dtype.size() / parts;
    Some((Element { dtype, part }, swapped))
}

/// Reads the header's Python literal: of all of Python, the dict with three keys that NumPy writes.
struct Literal<'a> {
    text: &'a [u8],
    at: usize,
}

impl Literal<'_> {
    fn fail<T>(&self, why: &str) -> Result<T, Fault> {
        let place = format!("the header, at byte {}", self.at);
        Err(Fault::at(place, why))
    }

    /// The next byte that is no whitespace, left in place.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        self.peek();
        let found = self
            .text
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()));
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), Fault> {
        if self.take(word) {
            Ok(())
        } else {
            self.fail(&format!("expected `{word}`"))
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        let Some(quote @ (b'\'' | b'"')) = self.peek() else {
            return self.fail("expected a string");
        };
        let begin = self.at + 1;
        let rest = self.text.get(begin..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == quote) else {
            return self.fail("this string never ends");
        };
        self.at = begin + length + 1;
        let bytes = rest.get(..length).unwrap_or_default();
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn shape(&mut self) -> Result<Vec<i64>, Fault> {
        self.expect("(")?;
        let mut sizes = Vec::new();
        while !self.take(")") {
            if !sizes.is_empty() {
                self.expect(",")?;
                if self.take(")") {
                    break;
                }
            }
            self.peek();
            let rest = self.text.get(self.at..).unwrap_or_default();
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let digits = String::from_utf8_lossy(rest.get(..digits).unwrap_or_default());
            match digits.parse() {
                Ok(size) => sizes.push(size),
                Err(_) => return self.fail("expected a size"),
            }
            self.at += digits.len();
            // Python 2 wrote its long integers so.
            if self.text.get(self.at) == Some(&b'L') {
                self.at += 1;
            }
        }
        Ok(sizes)
    }

    fn descr(&mut self) -> Result<(Element, bool), Fault> {
        if self.take("[") {
            return self.fail("an array of records cannot be a value; save one of its fields");
        }
        let begin = self.at;
        let descr = self.string()?;
        let Some(found) = element(&descr) else {
            self.at = begin;
            let hint = if descr.contains('O') {
                "Python objects"
            } else {
                "expected bool, int, uint, float or complex (bfloat16 and float8 can be in safetensors)"
            };
            return self.fail(&format!("dtype {descr:?} cannot be a value: {hint}"));
        };
        Ok(found)
    }

    fn header(mut self) -> Result<Header, Fault> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect("{")?;
        while !self.take("}") {
            let begin = self.at;
            let key = self.string()?;
            self.expect(":")?;
            match &*key {
                "descr" => descr = Some(self.descr()?),
                "fortran_order" if self.take("True") => fortran = Some(true),
                "fortran_order" if self.take("False") => fortran = Some(false),
                "fortran_order" => return self.fail("expected True or False"),
                "shape" => shape = Some(self.shape()?),
                _ => {
                    self.at = begin;
                    return self.fail(&format!("an unknown key {key:?}"));
                }
            }
            if !self.take(",") && self.peek() != Some(b'}') {
                return self.fail("expected `,` or `}`");
            }
        }
        if self.peek().is_some() {
            return self.fail("nothing may follow the `}`");
        }
        let (Some((kind, swapped)), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return self.fail("`descr`, `fortran_order` or `shape` is missing");
        };
        Ok(Header {
            kind,
            swapped,
            fortran,
            shape,
        })
    }
}

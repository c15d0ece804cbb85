//! NumPy's npy files: one array behind a header that is a Python dict (`np.lib.format`).

use std::io::Read;
use std::path::Path;

use super::file::{Fault, fill, open};
use super::{Dtype, HostTensor};
use crate::error::Result;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy itself warns above 10 000.
const LONGEST_HEADER: usize = 1 << 20;

/// Reads the array.
///
/// # Errors
///
/// [`crate::error::Error::File`] for a file that cannot be read, [`crate::error::Error::Format`] for one that is damaged
/// or holds no numbers.
pub fn read(file: &Path) -> Result<HostTensor> {
    let (mut opened, length) = open(file)?;
    parse(&mut opened, length).map_err(|fault| fault.of(file))
}

/// What the header says.
struct Header {
    kind: Element,
    swapped: bool,
    fortran: bool,
    shape: Vec<i64>,
}

/// The type of an element, and of how many bytes its parts are, each in the file's byte order.
#[derive(Clone, Copy)]
struct Element {
    dtype: Dtype,
    part: usize,
}

fn parse(reader: &mut impl Read, length: u64) -> Result<HostTensor, Fault> {
    let mut begin = [0; 8];
    let foreign = |_| Fault::at("the beginning", "not an npy file");
    fill(reader, &mut begin, "").map_err(foreign)?;
    let [magic @ .., major, _minor] = begin;
    if magic != *MAGIC {
        return Err(Fault::at("the beginning", "not an npy file"));
    }
    let mut size = [0; 4];
    let width = match major {
        1 => 2,
        2 | 3 => 4,
        _ => {
            let why = format!("npy format {major} is not known; 1 to 3 are");
            return Err(Fault::at("the beginning", why));
        }
    };
    fill(reader, &mut size[..width], "the header's size")?;
    let size = u32::from_le_bytes(size) as usize;
    if size > LONGEST_HEADER {
        let why = format!("{size} bytes are too many for a header");
        return Err(Fault::at("the header's size", why));
    }
    let mut text = vec![0; size];
    fill(reader, &mut text, "the header")?;
    let header = Literal::new(&text).header()?;
    let data = length.saturating_sub((8 + width + size) as u64);
    tensor(reader, &header, data)
}

/// Reads the elements; `left` bytes are there.
fn tensor(reader: &mut impl Read, header: &Header, left: u64) -> Result<HostTensor, Fault> {
    let dtype = header.kind.dtype;
    let needed = header.shape.iter().try_fold(dtype.size(), |n, size| {
        n.checked_mul(usize::try_from(*size).ok()?)
    });
    // Before memory is asked for: a damaged shape may be of any size.
    if needed.and_then(|n| u64::try_from(n).ok()) != Some(left) {
        let why = format!(
            "{left} bytes do not make an array of shape {:?} and dtype {}",
            header.shape,
            dtype.name()
        );
        return Err(Fault::at("the elements", why));
    }
    let fail = |why: crate::error::Error| Fault::at("the header", why.to_string());
    let mut tensor = HostTensor::zeros(dtype, &header.shape).map_err(fail)?;
    fill(reader, tensor.bytes_mut(), "the elements")?;
    if header.swapped {
        for part in tensor.bytes_mut().chunks_exact_mut(header.kind.part) {
            part.reverse();
        }
    }
    if dtype == Dtype::Bool {
        for byte in tensor.bytes_mut() {
            *byte = u8::from(*byte != 0);
        }
    }
    if header.fortran && header.shape.len() > 1 {
        return row_major(&tensor).map_err(fail);
    }
    Ok(tensor)
}

/// The same elements, which lie there with the first dimension running fastest, in row-major order.
fn row_major(from: &HostTensor) -> Result<HostTensor> {
    let mut to = HostTensor::zeros(from.dtype(), from.shape())?;
    let size = from.dtype().size();
    let sizes: Vec<usize> = from.shape().iter().map(|n| *n as usize).collect();
    let mut strides = Vec::with_capacity(sizes.len());
    let mut stride = size;
    for n in &sizes {
        strides.push(stride);
        stride = stride.wrapping_mul(*n);
    }
    let mut at = vec![0usize; sizes.len()];
    let mut offset = 0usize;
    for element in to.bytes_mut().chunks_exact_mut(size) {
        if let Some(bytes) = from.bytes().get(offset..offset + size) {
            element.copy_from_slice(bytes);
        }
        for dim in (0..sizes.len()).rev() {
            at[dim] += 1;
            offset += strides[dim];
            if at[dim] < sizes[dim] {
                break;
            }
            offset -= at[dim] * strides[dim];
            at[dim] = 0;
        }
    }
    Ok(to)
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
    fn new(text: &[u8]) -> Literal<'_> {
        Literal { text, at: 0 }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn header(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}   \n")
    }

    fn parsed(bytes: &[u8]) -> Result<HostTensor, Fault> {
        parse(&mut &*bytes, bytes.len() as u64)
    }

    fn read(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> HostTensor {
        parsed(&file(1, &header(descr, fortran, shape), data)).unwrap()
    }

    #[test]
    fn every_dtype_and_byte_order() {
        for (descr, dtype) in [
            ("|b1", Dtype::Bool),
            ("|u1", Dtype::U8),
            ("|i1", Dtype::I8),
            ("i2", Dtype::I16),
            ("i4", Dtype::I32),
            ("i8", Dtype::I64),
            ("u2", Dtype::U16),
            ("u4", Dtype::U32),
            ("u8", Dtype::U64),
            ("f2", Dtype::F16),
            ("f4", Dtype::F32),
            ("f8", Dtype::F64),
            ("c8", Dtype::C64),
            ("c16", Dtype::C128),
        ] {
            let bytes: Vec<u8> = (0..2 * dtype.size() as u8).collect();
            if descr.starts_with('|') {
                let tensor = read(descr, "False", "(2,)", &bytes);
                assert_eq!((tensor.dtype(), tensor.bytes()), (dtype, &[0, 1][..]));
                continue;
            }
            let little = read(&format!("<{descr}"), "False", "(2,)", &bytes);
            assert_eq!((little.dtype(), little.shape()), (dtype, &[2][..]));
            assert_eq!(little.bytes(), bytes, "{descr}");
            let part = dtype.size() / if descr.starts_with('c') { 2 } else { 1 };
            let turned: Vec<u8> = bytes
                .chunks(part)
                .flat_map(|part| part.iter().rev())
                .copied()
                .collect();
            assert_eq!(read(&format!(">{descr}"), "False", "(2,)", &turned), little);
        }
        let odd = read("|b1", "False", "(3,)", &[0, 7, 255]);
        assert_eq!(odd.bytes(), [0, 1, 1]);
    }

    #[test]
    fn fortran_order_becomes_row_major() {
        let tensor = read("|u1", "True", "(2, 3)", &[0, 3, 1, 4, 2, 5]);
        assert_eq!(tensor.bytes(), [0, 1, 2, 3, 4, 5]);
        // 2 × 3 × 2 of two bytes: element [i, j, k] is 6 i + 2 j + k, and lies at i + 2 j + 6 k.
        let mut data = [0u8; 24];
        for (i, j, k) in (0..12u8).map(|n| (n / 6, n / 2 % 3, n % 2)) {
            data[2 * usize::from(i + 2 * j + 6 * k)] = 6 * i + 2 * j + k;
        }
        let tensor = read("<i2", "True", "(2, 3, 2)", &data);
        let expected: Vec<u8> = (0..12).flat_map(|n| [n, 0]).collect();
        assert_eq!(
            (tensor.bytes(), tensor.shape()),
            (&*expected, &[2, 3, 2][..])
        );
        assert_eq!(read("|u1", "True", "(0, 3)", &[]).shape(), [0, 3]);
    }

    #[test]
    fn shapes_and_versions() {
        assert_eq!(read("<f8", "False", "()", &[0; 8]).shape(), [0i64; 0]);
        assert_eq!(read("<f8", "False", "(0, 7)", &[]).shape(), [0, 7]);
        assert_eq!(read("|u1", "False", "(2L, 3L)", &[9; 6]).shape(), [2, 3]);
        for version in [1, 2, 3] {
            let text = "{\"shape\":(1,),\"fortran_order\":False,\"descr\":\"|i1\"}";
            assert_eq!(parsed(&file(version, text, &[5])).unwrap().bytes(), [5]);
        }
    }

    #[test]
    fn refusals_name_the_place() {
        let simple = header("<f4", "False", "(2,)");
        for (bytes, place, why) in [
            (b"".to_vec(), "the beginning", "not an npy"),
            (
                b"\x80\x04\x95 a pickle".to_vec(),
                "the beginning",
                "not an npy",
            ),
            (file(4, &simple, &[0; 8]), "the beginning", "format 4"),
            (file(1, &simple, &[])[..40].to_vec(), "the header", "fill"),
            (file(2, "", &[])[..9].to_vec(), "the header's size", "fill"),
            (
                [MAGIC, &[2, 0, 255, 255, 255, 255]].concat(),
                "the header's size",
                "too many",
            ),
            (
                file(1, &simple, &[0; 7]),
                "the elements",
                "7 bytes do not make",
            ),
            (
                file(1, &simple, &[0; 9]),
                "the elements",
                "shape [2] and dtype float32",
            ),
            (
                file(1, &header("<f4", "False", "(9999999999, 9999999999)"), &[]),
                "the elements",
                "0 bytes",
            ),
            (
                file(1, &header("|O", "False", "(2,)"), &[]),
                "at byte 10",
                "Python objects",
            ),
            (
                file(1, &header("<U3", "False", "(2,)"), &[]),
                "at byte 10",
                "\"<U3\"",
            ),
            (
                file(1, &header("<V2", "False", "(2,)"), &[]),
                "at byte 10",
                "bfloat16",
            ),
            (
                file(1, &header("<M8[ns]", "False", "(2,)"), &[]),
                "at byte 10",
                "cannot be",
            ),
            (
                file(1, &header("<f16", "False", "(1,)"), &[0; 16]),
                "at byte 10",
                "cannot be",
            ),
            (
                file(1, &header("<f4", "maybe", "(2,)"), &[]),
                "the header, at byte 34",
                "True or False",
            ),
            (
                file(1, &header("<f4", "False", "(-2,)"), &[]),
                "the header",
                "expected a size",
            ),
            (
                file(1, &header("<f4", "False", "(2 3)"), &[]),
                "the header",
                "expected `,`",
            ),
            (
                file(1, "{'descr': [('a', '<f4')]}", &[]),
                "the header",
                "records",
            ),
            (
                file(1, "{'descr': '<f4', 'shape': (2,)}", &[]),
                "the header",
                "missing",
            ),
            (file(1, "{'other': 1}", &[]), "at byte 1", "\"other\""),
            (file(1, "{'descr': '<f4'} x", &[]), "the header", "follow"),
            (file(1, "{'descr", &[]), "the header", "never ends"),
            (file(1, "3", &[]), "at byte 0", "expected `{`"),
        ] {
            let fault = parsed(&bytes).expect_err(why);
            assert!(
                fault.place.contains(place) && fault.why.contains(why),
                "{place} {why}: {fault:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            text in "[{}()\\[\\],:'\" 0-9a-zL<>|]{0,60}",
            near in "\\{'descr': '[<>|][biufc][0-9]{1,2}', 'fortran_order': (True|False), 'shape': \\([0-9, ]{0,6}\\)\\}",
            data in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = parsed(&data);
            let _ = parsed(&file(1, &text, &data));
            let _ = parsed(&file(3, &near, &data));
        }

        #[test]
        fn no_damage_panics(at in 0..90usize, byte in any::<u8>(), end in 0..100usize) {
            let mut bytes = file(1, &header("<f4", "True", "(2, 2)"), &[1; 16]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = parsed(&bytes);
            bytes.truncate(end);
            let _ = parsed(&bytes);
        }
    }
}

//! GGUF files, as llama.cpp has them: metadata, then a list of tensors by name, then their elements.
//!
//! The alignment is the only metadata that is used. Tensors that are quantized in blocks have no ordinary elements and are
//! refused.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::input::{fill, open};
use super::missing::missing;
use super::{Dtype, HostTensor};
use crate::error::Result;
use crate::fault::Fault;

const MAGIC: &[u8] = b"GGUF";
/// Limits for the numbers in a file, so that a damaged file cannot ask for endless memory.
const MOST_ENTRIES: u64 = 1 << 24;
const LONGEST_NAME: u64 = 1 << 16;
/// GGML has four dimensions.
const MOST_DIMENSIONS: u32 = 8;
const ALIGNMENT: &[u8] = b"general.alignment";
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// The bytes of a metadata value of this type; `None` for a string, an array or an unknown type.
fn width(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

/// GGML's number of a type of elements. The others are quantized in blocks.
fn dtype(number: u32) -> Option<Dtype> {
    Some(match number {
        0 => Dtype::F32,
        1 => Dtype::F16,
        24 => Dtype::I8,
        25 => Dtype::I16,
        26 => Dtype::I32,
        27 => Dtype::I64,
        28 => Dtype::F64,
        30 => Dtype::Bf16,
        _ => return None,
    })
}

/// What the list says of a tensor.
struct Entry {
    name: String,
    shape: Vec<i64>,
    kind: u32,
    offset: u64,
}

/// Reads one tensor. Its shape is the one that NumPy and PyTorch show, which is the file's in reverse order.
///
/// # Errors
///
/// [`crate::error::Error::File`] for a file that cannot be read, [`crate::error::Error::Format`] for one that is damaged, has
/// no such tensor, or holds it quantized.
pub fn read(file: &Path, name: &str) -> Result<HostTensor> {
    let (opened, length) = open(file)?;
    let mut reader = Header {
        reader: BufReader::new(opened),
        at: 0,
        length,
    };
    reader.tensor(name).map_err(|fault| fault.of(file))
}

/// The file from its beginning on, and how far it is read.
struct Header<R> {
    reader: R,
    at: u64,
    length: u64,
}

impl<R: Read + Seek> Header<R> {
    fn bytes<const N: usize>(&mut self, place: &str) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        fill(&mut self.reader, &mut bytes, place)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self, place: &str) -> Result<u32, Fault> {
        self.bytes(place).map(u32::from_le_bytes)
    }

    fn u64(&mut self, place: &str) -> Result<u64, Fault> {
        self.bytes(place).map(u64::from_le_bytes)
    }

    fn count(&mut self, place: &str) -> Result<u64, Fault> {
        match self.u64(place)? {
            count if count <= MOST_ENTRIES => Ok(count),
            count => Err(Fault::at(place, format!("{count} entries are too many"))),
        }
    }

    fn string(&mut self, place: &str) -> Result<Vec<u8>, Fault> {
        let size = self.u64(place)?;
        if size > LONGEST_NAME {
            return Err(Fault::at(place, format!("a name of {size} bytes")));
        }
        let mut text = vec![0; usize::try_from(size).unwrap_or_default()];
        fill(&mut self.reader, &mut text, place)?;
        self.at += size;
        Ok(text)
    }

    fn skip(&mut self, bytes: u64, place: &str) -> Result<(), Fault> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.length);
        let end = end.ok_or_else(|| Fault::at(place, "the file ends before it"))?;
        let step = i64::try_from(bytes).unwrap_or(i64::MAX);
        let seek = self.reader.seek_relative(step);
        seek.map_err(|why| Fault::at(place, why.to_string()))?;
        self.at = end;
        Ok(())
    }

    /// Passes over a metadata value.
    fn value(&mut self, kind: u32) -> Result<(), Fault> {
        const PLACE: &str = "the metadata";
        if kind == STRING {
            let size = self.u64(PLACE)?;
            return self.skip(size, PLACE);
        }
        if kind != ARRAY {
            let Some(width) = width(kind) else {
                return Err(Fault::at(PLACE, format!("type {kind} is not known")));
            };
            return self.skip(width, PLACE);
        }
        let element = self.u32(PLACE)?;
        let count = self.count(PLACE)?;
        match (element, width(element)) {
            (_, Some(width)) => self.skip(count * width, PLACE),
            (STRING, None) => (0..count).try_for_each(|_| self.value(STRING)),
            _ => Err(Fault::at(PLACE, format!("an array of type {element}"))),
        }
    }

    /// Reads up to the list of tensors: how many there are, and how their elements are aligned.
    fn metadata(&mut self) -> Result<(u64, u64), Fault> {
        let begin = "the beginning";
        let foreign = |_| Fault::at(begin, "not a GGUF file");
        if self.bytes::<4>(begin).map_err(foreign)? != *MAGIC {
            return Err(Fault::at(begin, "not a GGUF file"));
        }
        let version = self.u32(begin)?;
        if !matches!(version, 2 | 3) {
            let why = match version.swap_bytes() {
                2 | 3 => "a GGUF file of a big-endian machine is not read".to_owned(),
                _ => format!("GGUF version {version} is not known; 2 and 3 are"),
            };
            return Err(Fault::at(begin, why));
        }
        let tensors = self.count("the number of tensors")?;
        let values = self.count("the number of metadata")?;
        let mut alignment = 32;
        for _ in 0..values {
            let key = self.string("a metadata key")?;
            let kind = self.u32("the metadata")?;
            if key == ALIGNMENT && kind == 4 {
                alignment = u64::from(self.u32("the alignment")?);
            } else {
                self.value(kind)?;
            }
        }
        if !alignment.is_power_of_two() {
            return Err(Fault::at("the alignment", format!("{alignment}")));
        }
        Ok((tensors, alignment))
    }

    fn entry(&mut self) -> Result<Entry, Fault> {
        let name = String::from_utf8_lossy(&self.string("a tensor's name")?).into_owned();
        let place = format!("tensor {name:?}");
        let dimensions = self.u32(&place)?;
        if dimensions > MOST_DIMENSIONS {
            return Err(Fault::at(place, format!("{dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = i64::try_from(self.u64(&place)?);
            shape.push(size.map_err(|_| Fault::at(&*place, "its shape is too large"))?);
        }
        shape.reverse();
        Ok(Entry {
            name,
            shape,
            kind: self.u32(&place)?,
            offset: self.u64(&place)?,
        })
    }

    fn tensor(&mut self, name: &str) -> Result<HostTensor, Fault> {
        let (count, alignment) = self.metadata()?;
        let mut found = None;
        let mut names = Vec::new();
        for _ in 0..count {
            let entry = self.entry()?;
            names.push(entry.name.clone());
            if entry.name == name && found.is_none() {
                found = Some(entry);
            }
        }
        let begin = self.at.next_multiple_of(alignment);
        let place = format!("tensor {name:?}");
        let fail = |why: String| Fault::at(&*place, why);
        let entry = found.ok_or_else(|| fail(missing(names, name)))?;
        let dtype = dtype(entry.kind).ok_or_else(|| {
            fail(format!(
                "it is quantized (GGML type {}); a value needs plain elements: dequantize it, and save it as F32 or F16",
                entry.kind
            ))
        })?;
        let from = begin.checked_add(entry.offset);
        let needed = entry.shape.iter().try_fold(dtype.size() as u64, |n, size| {
            n.checked_mul(u64::try_from(*size).ok()?)
        });
        // Checked before memory is allocated: a damaged file may state a shape of any size.
        let end = from.and_then(|from| from.checked_add(needed?));
        let (Some(from), true) = (from, end.is_some_and(|end| end <= self.length)) else {
            return Err(fail("the file ends before its elements do".to_owned()));
        };
        let mut tensor =
            HostTensor::zeros(dtype, &entry.shape).map_err(|why| fail(why.to_string()))?;
        let seek = self.reader.seek(SeekFrom::Start(from));
        seek.map_err(|why| fail(why.to_string()))?;
        fill(&mut self.reader, tensor.bytes_mut(), &place)?;
        Ok(tensor)
    }
}

#[cfg(test)]
#[path = "gguf_tests.rs"]
mod tests;

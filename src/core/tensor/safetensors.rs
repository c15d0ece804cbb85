//! safetensors files: a header in JSON, then tensors by key.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ::safetensors::tensor::{Dtype as Stored, Metadata, TensorInfo};

use super::input::{fill, open};
use super::missing::missing;
use super::{Dtype, HostTensor};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::file_error::reason;
use crate::file_kind;
use crate::output::{as_file_error, replace_with};

/// The format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;
/// The key of what is no tensor.
const RESERVED: &str = "__metadata__";

/// The format's dtype; `None` for the two complex ones that it does not have. It calls a complex number of two floats C64, as
/// libtorch does.
fn stored(dtype: Dtype) -> Option<Stored> {
    Some(match dtype {
        Dtype::Bool => Stored::BOOL,
        Dtype::U8 => Stored::U8,
        Dtype::I8 => Stored::I8,
        Dtype::I16 => Stored::I16,
        Dtype::I32 => Stored::I32,
        Dtype::I64 => Stored::I64,
        Dtype::U16 => Stored::U16,
        Dtype::U32 => Stored::U32,
        Dtype::U64 => Stored::U64,
        Dtype::F16 => Stored::F16,
        Dtype::Bf16 => Stored::BF16,
        Dtype::F32 => Stored::F32,
        Dtype::F64 => Stored::F64,
        Dtype::C64 => Stored::C64,
        Dtype::F8E4m3fn => Stored::F8_E4M3,
        Dtype::F8E5m2 => Stored::F8_E5M2,
        Dtype::F8E4m3fnuz => Stored::F8_E4M3FNUZ,
        Dtype::F8E5m2fnuz => Stored::F8_E5M2FNUZ,
        Dtype::C32 | Dtype::C128 => return None,
    })
}

/// Whether such a file can hold this dtype; complex32 and complex128 it cannot.
pub fn holds(dtype: Dtype) -> bool {
    stored(dtype).is_some()
}

/// Reads one tensor; of the others only the header is looked at.
///
/// # Errors
///
/// [`Error::File`] for a file that cannot be read, [`Error::Format`] for one that is damaged, has no such key (the error
/// names those that it has) or holds a dtype there that libtorch does not know.
pub fn read(file: &Path, key: &str) -> Result<HostTensor> {
    let (mut opened, length) = open(file)?;
    one(&mut opened, length, key).map_err(|fault| fault.of(file))
}

/// Reads all tensors, in the order in which they lie in the file.
///
/// # Errors
///
/// Those of [`read`].
pub fn read_all(file: &Path) -> Result<Vec<(String, HostTensor)>> {
    let (mut opened, length) = open(file)?;
    all(&mut opened, length).map_err(|fault| fault.of(file))
}

fn all(reader: &mut (impl Read + Seek), length: u64) -> Result<Vec<(String, HostTensor)>, Fault> {
    let (begin, header) = header(reader, length)?;
    let keys = header.offset_keys().into_iter();
    keys.map(|key| Ok((key.clone(), tensor(reader, begin, &header, &key)?)))
        .collect()
}

/// The kind of a file of another format, whose first bytes these are.
fn other_kind(bytes: [u8; 8]) -> Option<&'static str> {
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t');
    file_kind::known(&bytes).or_else(|| bytes.iter().all(is_text).then_some("a text"))
}

/// Where the elements begin, and the header.
fn header(reader: &mut (impl Read + Seek), length: u64) -> Result<(u64, Metadata), Fault> {
    let foreign = |why: &str| {
        Fault::at(
            "the header's size",
            format!("not a safetensors file: {why}"),
        )
    };
    let mut size = [0; 8];
    fill(reader, &mut size, "").map_err(|_| foreign("it has less than 8 bytes"))?;
    let size = u64::from_le_bytes(size);
    let left = length.saturating_sub(8);
    if size > left.min(LONGEST_HEADER) {
        return Err(match other_kind(size.to_le_bytes()) {
            Some(what) => Fault::at(
                "the beginning",
                format!("not a safetensors file: it is {what}"),
            ),
            None => foreign(&format!("{size} bytes of header in {left} bytes")),
        });
    }
    let mut text = vec![0; usize::try_from(size).unwrap_or_default()];
    fill(reader, &mut text, "the header")?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|why| {
        let place = match (why.line(), why.column()) {
            (0, _) => "the header".to_owned(),
            (line, column) => format!("the header, line {line}, column {column}"),
        };
        let text = why.to_string();
        let why = text.rsplit_once(" at line ").map_or(&*text, |(why, _)| why);
        Fault::at(place, why)
    })?;
    if metadata.data_len() as u64 != left - size {
        let why = format!(
            "{} bytes of tensors where the header speaks of {}",
            left - size,
            metadata.data_len()
        );
        return Err(Fault::at("the tensors", why));
    }
    Ok((8 + size, metadata))
}

fn one(reader: &mut (impl Read + Seek), length: u64, key: &str) -> Result<HostTensor, Fault> {
    let (begin, header) = header(reader, length)?;
    tensor(reader, begin, &header, key)
}

fn tensor(
    reader: &mut (impl Read + Seek),
    begin: u64,
    header: &Metadata,
    key: &str,
) -> Result<HostTensor, Fault> {
    let place = format!("key {key:?}");
    let fail = |why: String| Fault::at(&*place, why);
    let Some(info) = header.info(key) else {
        return Err(fail(missing(header.offset_keys(), key)));
    };
    let TensorInfo {
        dtype,
        shape,
        data_offsets,
    } = info;
    let known = Dtype::ALL
        .into_iter()
        .find(|known| stored(*known) == Some(*dtype));
    let dtype = known.ok_or_else(|| fail(format!("libtorch has no dtype {dtype}")))?;
    let shape: Option<Vec<i64>> = shape.iter().map(|n| i64::try_from(*n).ok()).collect();
    let shape = shape.ok_or_else(|| fail("its shape is too large".to_owned()))?;
    let mut tensor = HostTensor::zeros(dtype, &shape).map_err(|why| fail(why.to_string()))?;
    if tensor.bytes().len() != data_offsets.1.saturating_sub(data_offsets.0) {
        return Err(fail("its bytes do not make its shape".to_owned()));
    }
    reader
        .seek(SeekFrom::Start(begin + data_offsets.0 as u64))
        .map_err(|why| fail(why.to_string()))?;
    fill(reader, tensor.bytes_mut(), &place)?;
    if dtype == Dtype::Bool {
        for byte in tensor.bytes_mut() {
            *byte = u8::from(*byte != 0);
        }
    }
    Ok(tensor)
}

/// Writes the file as a whole or not at all: a reader never sees half of it.
///
/// # Errors
///
/// [`Error::File`], which names the key where one is used twice or has a dtype that the format cannot hold.
pub fn save<T: Borrow<HostTensor>>(file: &Path, tensors: &[(String, T)]) -> Result<()> {
    let fail = |why: String| Error::File {
        file: file.to_owned(),
        why,
    };
    let mut given: Vec<(Stored, &str, &HostTensor)> = Vec::with_capacity(tensors.len());
    let mut seen = HashSet::new();
    for (key, tensor) in tensors {
        let tensor: &HostTensor = tensor.borrow();
        if key == RESERVED || !seen.insert(key) {
            return Err(fail(format!("a second tensor with the key {key:?}")));
        }
        let Some(dtype) = stored(tensor.dtype()) else {
            let name = tensor.dtype().name();
            return Err(fail(format!("key {key:?}: safetensors cannot hold {name}")));
        };
        given.push((dtype, key, tensor));
    }
    // The format's order: wide dtypes first, so that all data is aligned; then by name.
    given.sort_by(|left, right| right.0.cmp(&left.0).then(left.1.cmp(right.1)));
    replace_with(file, |new| write(new, &given)).map_err(|why| fail(reason(file, &why)))
}

/// Writes the tensors in this order. The crate's own function for files makes them by `tempfile` (see [`WorkFolder`]).
///
/// [`WorkFolder`]: crate::work_folder::WorkFolder
fn write(file: &Path, tensors: &[(Stored, &str, &HostTensor)]) -> std::io::Result<()> {
    let mut end = 0;
    let mut place = |bytes: &[u8]| {
        let start = end;
        end += bytes.len();
        (start, end)
    };
    let infos = tensors.iter().map(|(dtype, key, tensor)| {
        let info = TensorInfo {
            dtype: *dtype,
            shape: tensor.shape().iter().map(|n| *n as usize).collect(),
            data_offsets: place(tensor.bytes()),
        };
        ((*key).to_owned(), info)
    });
    let header = Metadata::new(None, infos.collect()).map_err(as_file_error)?;
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = BufWriter::new(File::create(file)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (_, _, tensor) in tensors {
        out.write_all(tensor.bytes())?;
    }
    out.flush()
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;

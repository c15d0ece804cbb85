//! NumPy's npy files (`np.lib.format`): a header, which `npy_header.rs` reads, and one array.

use std::io::Read;
use std::path::Path;

use super::input::{fill, open};
use super::npy_header::Header;
use super::{Dtype, HostTensor};
use crate::error::Result;
use crate::fault::Fault;
use crate::layout;

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
    let header = Header::parse(&text)?;
    let data = length.saturating_sub((8 + width + size) as u64);
    tensor(reader, &header, data)
}

/// Reads the elements; `left` bytes are there.
fn tensor(reader: &mut impl Read, header: &Header, left: u64) -> Result<HostTensor, Fault> {
    let dtype = header.kind.dtype;
    let needed = header.shape.iter().try_fold(dtype.size(), |n, size| {
        n.checked_mul(usize::try_from(*size).ok()?)
    });
    // Checked before memory is allocated: a damaged file may state a shape of any size.
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
        // The first dimension runs fastest.
        let reversed: Vec<i64> = header.shape.iter().rev().copied().collect();
        let mut strides = layout::dense_strides(&reversed);
        strides.reverse();
        let mut dense = HostTensor::zeros(dtype, &header.shape).map_err(fail)?;
        dense.gather(tensor.bytes(), 0, &strides);
        return Ok(dense);
    }
    Ok(tensor)
}

#[cfg(test)]
#[path = "npy_tests.rs"]
mod tests;

//! Tensors in CPU memory, as they cross the C ABI by DLPack.

use std::ptr::null_mut;

use graphpatch_sys::{DLManagedTensorVersioned, Dtype};
use tch::kind::Element;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};

const CPU: i32 = 1;

/// DLPack's code and bits of the kinds that tch knows.
const KINDS: [(Kind, u8, u8); 12] = [
    (Kind::Int8, 0, 8),
    (Kind::Int16, 0, 16),
    (Kind::Int, 0, 32),
    (Kind::Int64, 0, 64),
    (Kind::Uint8, 1, 8),
    (Kind::Half, 2, 16),
    (Kind::Float, 2, 32),
    (Kind::Double, 2, 64),
    (Kind::BFloat16, 4, 16),
    (Kind::ComplexFloat, 5, 64),
    (Kind::ComplexDouble, 5, 128),
    (Kind::Bool, 6, 8),
];

/// Lends numbers to one call, which does not write them.
pub fn lend<E: Element, T>(
    data: &[E],
    shape: &[i64],
    call: impl FnOnce(*mut DLManagedTensorVersioned) -> T,
) -> Result<T> {
    if i64::try_from(data.len()) != Ok(shape.iter().product()) {
        return Err(Error::argument(format!(
            "{} numbers do not fill the shape {shape:?}",
            data.len()
        )));
    }
    let known = KINDS.iter().find(|(kind, ..)| *kind == E::KIND);
    let Some(&(_, code, bits)) = known else {
        return Err(Error::argument(format!(
            "{:?} has no counterpart in DLPack",
            E::KIND
        )));
    };
    let mut lent = DLManagedTensorVersioned {
        major: 1,
        minor: 0,
        manager_ctx: null_mut(),
        // It is only lent.
        deleter: None,
        flags: 0,
        data: data.as_ptr().cast_mut().cast(),
        device_type: CPU,
        device_id: 0,
        ndim: i32::try_from(shape.len()).map_err(|_| Error::argument("too many dimensions"))?,
        dtype: Dtype {
            code,
            bits,
            lanes: 1,
        },
        shape: shape.as_ptr().cast_mut(),
        strides: null_mut(),
        byte_offset: 0,
    };
    Ok(call(&mut lent))
}

/// A tensor that a call handed over.
pub struct Owned(*mut DLManagedTensorVersioned);

impl Owned {
    /// # Safety
    ///
    /// `managed` was handed over: nobody else calls its deleter.
    pub unsafe fn new(managed: *mut DLManagedTensorVersioned) -> Self {
        Self(managed)
    }

    /// A copy as tch's tensor. The library hands over row-major tensors; they lie on the CPU, since nothing here asks otherwise.
    pub fn to_tensor(&self) -> Result<Tensor> {
        // SAFETY: whoever handed the tensor over vouches for what it says.
        let managed = unsafe { &*self.0 };
        if managed.major != 1 || managed.device_type != CPU || !managed.strides.is_null() {
            return Err(Error::argument(
                "expected a row-major tensor of DLPack 1 in CPU memory",
            ));
        }
        let Dtype { code, bits, lanes } = managed.dtype;
        let known = KINDS
            .iter()
            .find(|kind| (kind.1, kind.2, 1) == (code, bits, lanes));
        let Some(&(kind, ..)) = known else {
            return Err(Error::argument(format!(
                "tch has no kind for {:?}",
                managed.dtype
            )));
        };
        let rank = usize::try_from(managed.ndim).unwrap_or(0);
        // SAFETY: as above. A tensor without dimensions may have no shape, one without elements no data.
        unsafe {
            let shape = match rank {
                0 => &[],
                rank => std::slice::from_raw_parts(managed.shape, rank),
            };
            let elements = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
            let bytes = match elements * usize::from(bits / 8) {
                0 => &[],
                bytes => std::slice::from_raw_parts(
                    managed.data.cast::<u8>().add(managed.byte_offset as usize),
                    bytes,
                ),
            };
            Ok(Tensor::f_from_data_size(bytes, shape, kind)?)
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the tensor was handed over, so this call of its deleter is the only one.
        unsafe {
            if let Some(deleter) = (*self.0).deleter {
                deleter(self.0);
            }
        }
    }
}

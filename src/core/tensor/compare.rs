//! How far two tensors are apart.

use half::{bf16, f16};
use serde::{Serialize, Serializer};

use super::{Dtype, HostTensor};
use crate::layout;

/// The distance of two tensors of one shape. JSON has no infinite numbers: there they are the text `"inf"`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Distance {
    /// The largest distance of two elements; infinite where one is NaN or infinite and the other is not the same.
    #[serde(serialize_with = "number")]
    pub max_abs: f64,
    /// The largest distance, each divided by the larger of the two magnitudes.
    #[serde(serialize_with = "number")]
    pub max_rel: f64,
    /// The norm of the difference.
    #[serde(serialize_with = "number")]
    pub norm: f64,
    /// How many elements differ by more than the tolerance, and the index of the first of them.
    pub count: usize,
    pub first: Option<Vec<i64>>,
}

/// An element: real and imaginary part.
type Element = (f64, f64);

impl HostTensor {
    /// How far `other` is away; `None` where the shapes differ, or a dtype's elements are not to be read as numbers.
    /// Elements count as different if they are further apart than `tolerance`, absolutely and relatively.
    pub fn distance(&self, other: &HostTensor, tolerance: f64) -> Option<Distance> {
        if self.shape() != other.shape() {
            return None;
        }
        let mut distance = Distance {
            max_abs: 0.0,
            max_rel: 0.0,
            norm: 0.0,
            count: 0,
            first: None,
        };
        let mut squares = 0.0;
        for (index, (a, b)) in elements(self)?.zip(elements(other)?).enumerate() {
            let (abs, rel) = apart(a, b);
            distance.max_abs = distance.max_abs.max(abs);
            distance.max_rel = distance.max_rel.max(rel);
            squares += abs * abs;
            if abs > tolerance && rel > tolerance {
                if distance.first.is_none() {
                    let index = layout::coordinates(index as i64, self.shape());
                    distance.first = Some(index.into_vec());
                }
                distance.count += 1;
            }
        }
        distance.norm = squares.sqrt();
        Some(distance)
    }
}

fn number<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    match value.is_finite() {
        true => to.serialize_f64(*value),
        false => to.collect_str(&value),
    }
}

fn apart(a: Element, b: Element) -> (f64, f64) {
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    if same(a.0, b.0) && same(a.1, b.1) {
        return (0.0, 0.0);
    }
    let abs = (a.0 - b.0).hypot(a.1 - b.1);
    if !abs.is_finite() {
        return (f64::INFINITY, f64::INFINITY);
    }
    (abs, abs / a.0.hypot(a.1).max(b.0.hypot(b.1)))
}

fn elements(tensor: &HostTensor) -> Option<impl Iterator<Item = Element> + '_> {
    let dtype = tensor.dtype();
    if matches!(
        dtype,
        Dtype::F8E4m3fn | Dtype::F8E5m2 | Dtype::F8E4m3fnuz | Dtype::F8E5m2fnuz
    ) {
        return None;
    }
    let chunks = tensor.bytes().chunks_exact(dtype.size());
    Some(chunks.map(move |bytes| element(dtype, bytes)))
}

fn element(dtype: Dtype, bytes: &[u8]) -> Element {
    macro_rules! read {
        ($type:ty) => {
            <$type>::from_ne_bytes(bytes.try_into().unwrap_or_default())
        };
    }
    let pair = |real: Dtype| {
        let (re, im) = bytes.split_at(bytes.len() / 2);
        (element(real, re).0, element(real, im).0)
    };
    let real = match dtype {
        Dtype::Bool | Dtype::U8 => f64::from(read!(u8)),
        Dtype::I8 => f64::from(read!(i8)),
        Dtype::I16 => f64::from(read!(i16)),
        Dtype::I32 => f64::from(read!(i32)),
        Dtype::I64 => read!(i64) as f64,
        Dtype::U16 => f64::from(read!(u16)),
        Dtype::U32 => f64::from(read!(u32)),
        Dtype::U64 => read!(u64) as f64,
        Dtype::F16 => f16::from_bits(read!(u16)).to_f64(),
        Dtype::Bf16 => bf16::from_bits(read!(u16)).to_f64(),
        Dtype::F32 => f64::from(read!(f32)),
        Dtype::F64 => read!(f64),
        Dtype::C32 => return pair(Dtype::F16),
        Dtype::C64 => return pair(Dtype::F32),
        Dtype::C128 => return pair(Dtype::F64),
        Dtype::F8E4m3fn | Dtype::F8E5m2 | Dtype::F8E4m3fnuz | Dtype::F8E5m2fnuz => f64::NAN,
    };
    (real, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: Dtype, shape: &[i64], bytes: &[u8]) -> HostTensor {
        let mut tensor = HostTensor::zeros(dtype, shape).unwrap();
        tensor.bytes_mut().copy_from_slice(bytes);
        tensor
    }

    fn floats(values: &[f32]) -> HostTensor {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
        tensor(Dtype::F32, &[2, values.len() as i64 / 2], &bytes)
    }

    #[test]
    fn distances() {
        let a = floats(&[1.0, 2.0, f32::NAN, 0.0]);
        assert_eq!(a.distance(&a, 0.0).unwrap().count, 0);
        let d = a
            .distance(&floats(&[1.0, 5.0, f32::NAN, 4.0]), 0.0)
            .unwrap();
        assert_eq!((d.max_abs, d.max_rel, d.norm, d.count), (4.0, 1.0, 5.0, 2));
        assert_eq!(d.first, Some(vec![0, 1]));
        let close = a
            .distance(&floats(&[1.0 + 1e-6, 2.0, f32::NAN, 1e-6]), 1e-5)
            .unwrap();
        assert_eq!((close.count, close.first), (0, None));
        let lost = a.distance(&floats(&[1.0, 2.0, 3.0, 0.0]), 1e9).unwrap();
        assert_eq!(
            (lost.max_abs, lost.first),
            (f64::INFINITY, Some(vec![1, 0]))
        );
        assert_eq!(a.distance(&floats(&[1.0, 2.0]), 0.0), None);
    }

    #[test]
    fn every_dtype_is_read() {
        for (dtype, one) in [
            (Dtype::Bool, vec![1]),
            (Dtype::I8, vec![1]),
            (Dtype::I64, 1i64.to_ne_bytes().to_vec()),
            (Dtype::U16, 1u16.to_ne_bytes().to_vec()),
            (Dtype::F16, f16::ONE.to_ne_bytes().to_vec()),
            (Dtype::Bf16, bf16::ONE.to_ne_bytes().to_vec()),
            (Dtype::F64, 1f64.to_ne_bytes().to_vec()),
            (
                Dtype::C64,
                [0f32.to_ne_bytes(), 1f32.to_ne_bytes()].concat(),
            ),
        ] {
            let zero = HostTensor::zeros(dtype, &[1]).unwrap();
            let one = tensor(dtype, &[1], &one);
            assert_eq!(zero.distance(&one, 0.0).unwrap().max_abs, 1.0, "{dtype:?}");
        }
        let eighth = HostTensor::zeros(Dtype::F8E5m2, &[1]).unwrap();
        assert_eq!(eighth.distance(&eighth, 0.0), None);
    }
}

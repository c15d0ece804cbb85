//! A tensor's elements as ordinary numbers, for statistics and distances.

use half::{bf16, f16};

use super::{Dtype, HostTensor};

impl HostTensor {
    /// The elements as `f64`, in row-major order; a complex one as its real and its imaginary part. 64-bit integers
    /// beyond 2^53 are rounded.
    pub fn numbers(&self) -> Vec<f64> {
        let bytes = self.bytes();
        macro_rules! cast {
            ($type:ty) => {
                parts::<{ size_of::<$type>() }>(bytes)
                    .map(|part| <$type>::from_ne_bytes(part) as f64)
                    .collect()
            };
        }
        let byte = |decode: fn(u8) -> f64| bytes.iter().map(|byte| decode(*byte)).collect();
        match self.dtype() {
            Dtype::Bool | Dtype::U8 => cast!(u8),
            Dtype::I8 => cast!(i8),
            Dtype::I16 => cast!(i16),
            Dtype::I32 => cast!(i32),
            Dtype::I64 => cast!(i64),
            Dtype::U16 => cast!(u16),
            Dtype::U32 => cast!(u32),
            Dtype::U64 => cast!(u64),
            Dtype::F32 | Dtype::C64 => cast!(f32),
            Dtype::F64 | Dtype::C128 => cast!(f64),
            Dtype::F16 | Dtype::C32 => parts::<2>(bytes)
                .map(|part| f16::from_ne_bytes(part).to_f64())
                .collect(),
            Dtype::Bf16 => parts::<2>(bytes)
                .map(|part| bf16::from_ne_bytes(part).to_f64())
                .collect(),
            Dtype::F8E4m3fn => byte(|bits| float8(bits, 3, 7, |bits| bits & 0x7f == 0x7f)),
            // A float16 without its lower byte, infinities included.
            Dtype::F8E5m2 => byte(|bits| f16::from_bits(u16::from(bits) << 8).to_f64()),
            Dtype::F8E4m3fnuz => byte(|bits| float8(bits, 3, 8, |bits| bits == 0x80)),
            Dtype::F8E5m2fnuz => byte(|bits| float8(bits, 2, 16, |bits| bits == 0x80)),
        }
    }
}

fn parts<const SIZE: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; SIZE]> {
    bytes
        .chunks_exact(SIZE)
        .filter_map(|part| part.try_into().ok())
}

/// An 8-bit float without infinities: this many bits of fraction, the exponent's bias, and which bits are no number.
fn float8(bits: u8, fraction: u32, bias: i32, is_nan: fn(u8) -> bool) -> f64 {
    if is_nan(bits) {
        return f64::NAN;
    }
    let exponent = i32::from((bits & 0x7f) >> fraction);
    let digits = f64::from(bits & ((1 << fraction) - 1)) / f64::from(1 << fraction);
    let size = match exponent {
        0 => digits * 2f64.powi(1 - bias),
        _ => (1.0 + digits) * 2f64.powi(exponent - bias),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
        let mut tensor =
            HostTensor::zeros(dtype, &[(bytes.len() / dtype.size()) as i64]).expect("tensor");
        tensor.bytes_mut().copy_from_slice(bytes);
        tensor.numbers()
    }

    #[test]
    fn every_kind_of_number() {
        assert_eq!(numbers(Dtype::Bool, &[1, 0]), [1.0, 0.0]);
        assert_eq!(numbers(Dtype::I16, &(-3i16).to_ne_bytes()), [-3.0]);
        assert_eq!(numbers(Dtype::F32, &1.5f32.to_ne_bytes()), [1.5]);
        let complex = [1f32.to_ne_bytes(), (-2f32).to_ne_bytes()].concat();
        assert_eq!(numbers(Dtype::C64, &complex), [1.0, -2.0]);
        assert_eq!(
            numbers(Dtype::Bf16, &bf16::from_f32(0.5).to_ne_bytes()),
            [0.5]
        );
    }

    /// Largest and smallest values as the formats' paper and ONNX's tables give them.
    #[test]
    fn eight_bit_floats() {
        let e4m3 = numbers(Dtype::F8E4m3fn, &[0x7e, 0x01, 0x38, 0xb8, 0x7f]);
        assert_eq!(e4m3[..4], [448.0, 2f64.powi(-9), 1.0, -1.0]);
        assert!(e4m3[4].is_nan());
        let e5m2 = numbers(Dtype::F8E5m2, &[0x7b, 0x01, 0x7c]);
        assert_eq!(e5m2, [57344.0, 2f64.powi(-16), f64::INFINITY]);
        let fnuz = numbers(Dtype::F8E4m3fnuz, &[0x7f, 0x01, 0x80]);
        assert_eq!(fnuz[..2], [240.0, 2f64.powi(-10)]);
        assert!(fnuz[2].is_nan());
        let fnuz = numbers(Dtype::F8E5m2fnuz, &[0x7f, 0x01]);
        assert_eq!(fnuz, [57344.0, 2f64.powi(-17)]);
    }
}

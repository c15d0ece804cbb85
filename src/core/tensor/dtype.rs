//! Element types, named as libtorch names them.

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    U16,
    U32,
    U64,
    F16,
    Bf16,
    F32,
    F64,
    /// Pairs of the real type, 2, 4 and 8 bytes each.
    C32,
    C64,
    C128,
    F8E4m3fn,
    F8E5m2,
    F8E4m3fnuz,
    F8E5m2fnuz,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I8 => 1,
            Dtype::F8E4m3fn | Dtype::F8E5m2 | Dtype::F8E4m3fnuz | Dtype::F8E5m2fnuz => 1,
            Dtype::I16 | Dtype::U16 | Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::I32 | Dtype::U32 | Dtype::F32 | Dtype::C32 => 4,
            Dtype::I64 | Dtype::U64 | Dtype::F64 | Dtype::C64 => 8,
            Dtype::C128 => 16,
        }
    }

    /// The name in libtorch, without `torch.`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Bool => "bool",
            Dtype::U8 => "uint8",
            Dtype::I8 => "int8",
            Dtype::I16 => "int16",
            Dtype::I32 => "int32",
            Dtype::I64 => "int64",
            Dtype::U16 => "uint16",
            Dtype::U32 => "uint32",
            Dtype::U64 => "uint64",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
            Dtype::F32 => "float32",
            Dtype::F64 => "float64",
            Dtype::C32 => "complex32",
            Dtype::C64 => "complex64",
            Dtype::C128 => "complex128",
            Dtype::F8E4m3fn => "float8_e4m3fn",
            Dtype::F8E5m2 => "float8_e5m2",
            Dtype::F8E4m3fnuz => "float8_e4m3fnuz",
            Dtype::F8E5m2fnuz => "float8_e5m2fnuz",
        }
    }
}

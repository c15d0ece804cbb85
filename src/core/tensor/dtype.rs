//! Element types, named as libtorch names them. This is the one table of them.
//!
//! Every other list of dtypes comes from this one, or is compared with it: the seam's numbers when `graphpatch-torch` is
//! compiled, the kernels' numbers (`kernels/dtype.cuh`) and the adapter's table (`src/torch/adapter/dlpack_abi.h`) by tests.

/// Makes the enum, and the functions that are nothing but a column of the table.
macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $torch:literal, $code:literal, $bits:literal;)+) => {
        /// The type of a tensor's elements. Its number is that of the seam (`GpDtype` in `seam.h`) and of the kernels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Dtype {
            $($(#[$doc])* $name = $number,)+
        }

        impl Dtype {
            /// All of them, in the order of their numbers.
            pub const ALL: [Dtype; [$($number),+].len()] = [$(Dtype::$name),+];

            /// The dtype with this number.
            pub const fn from_number(number: u8) -> Option<Dtype> {
                match number {
                    $($number => Some(Dtype::$name),)+
                    _ => None,
                }
            }

            /// The name in libtorch, without `torch.`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Dtype::$name => $torch,)+
                }
            }

            /// DLPack's code of the kind of number, and the bits of one element.
            pub const fn dlpack(self) -> (u8, u8) {
                match self {
                    $(Dtype::$name => ($code, $bits),)+
                }
            }
        }
    };
}

dtypes! {
    // number, libtorch's name, DLPack's code, bits
    Bool = 1, "bool", 6, 8;
    U8 = 2, "uint8", 1, 8;
    I8 = 3, "int8", 0, 8;
    I16 = 4, "int16", 0, 16;
    I32 = 5, "int32", 0, 32;
    I64 = 6, "int64", 0, 64;
    F16 = 7, "float16", 2, 16;
    Bf16 = 8, "bfloat16", 4, 16;
    F32 = 9, "float32", 2, 32;
    F64 = 10, "float64", 2, 64;
    /// A pair of float16.
    C32 = 11, "complex32", 5, 32;
    /// A pair of float32.
    C64 = 12, "complex64", 5, 64;
    /// A pair of float64.
    C128 = 13, "complex128", 5, 128;
    U16 = 14, "uint16", 1, 16;
    U32 = 15, "uint32", 1, 32;
    U64 = 16, "uint64", 1, 64;
    F8E4m3fn = 17, "float8_e4m3fn", 10, 8;
    F8E5m2 = 18, "float8_e5m2", 12, 8;
    F8E4m3fnuz = 19, "float8_e4m3fnuz", 11, 8;
    F8E5m2fnuz = 20, "float8_e5m2fnuz", 13, 8;
}

impl Dtype {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        self.dlpack().1 as usize / 8
    }

    /// The dtype with this DLPack code and so many bits.
    pub fn from_dlpack(code: u8, bits: u8) -> Option<Dtype> {
        let mut all = Dtype::ALL.into_iter();
        all.find(|dtype| dtype.dlpack() == (code, bits))
    }
}

// Numbers go up without a gap, so that an array can be indexed by them; 0 is left for "another dtype".
const _: () = {
    let mut at = 0;
    while at < Dtype::ALL.len() {
        assert!(Dtype::ALL[at] as usize == at + 1);
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_column_names_a_dtype() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_number(dtype as u8), Some(dtype));
            let (code, bits) = dtype.dlpack();
            assert_eq!(Dtype::from_dlpack(code, bits), Some(dtype));
            assert!([1, 2, 4, 8, 16].contains(&dtype.size()), "{dtype:?}");
        }
        assert_eq!(Dtype::from_number(0), None);
        assert_eq!(Dtype::from_number(21), None);
        assert_eq!(Dtype::from_dlpack(3, 64), None);
        let names: HashSet<_> = Dtype::ALL.iter().map(|dtype| dtype.name()).collect();
        assert_eq!(names.len(), Dtype::ALL.len());
    }
}

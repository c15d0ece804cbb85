//! The arguments of a kernel, in the layout of `kernels/common.cuh`.

use graphpatch_core::tensor::Dtype;

/// Dimensions that a region may have after merging.
pub const DIMS: usize = 8;
/// Works in one launch of `gp_batch`.
pub const WORKS: usize = 8;
/// 16-byte units that a thread of a dense kernel takes at a time.
pub const UNROLL: u64 = 4;
/// Threads of a block, the most that the kernels are compiled for.
pub const THREADS: u32 = 256;

/// The operation of a kernel, with the number that the kernels use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    Zero = 0,
    Add = 1,
    Replace = 2,
}

/// How a kernel goes over its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Path {
    Dense = 0,
    Strided = 1,
    Any = 2,
}

/// Steps in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Dim {
    pub size: i64,
    pub step: i64,
    pub value_step: i64,
}

/// A patch's switch and number at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LiveState {
    pub on: u32,
    pub reserved: u32,
    pub number: [u64; 2],
}

/// The switch and number in device memory, which may change while kernels run. There are two states, and the last bit of the
/// version says which one holds. The other one is written first, then the version. A kernel that sees the version change reads
/// again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Live {
    pub version: u32,
    pub reserved: u32,
    pub states: [LiveState; 2],
}

/// One action on one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Work {
    pub data: u64,
    pub value: u64,
    pub number: [u64; 2],
    pub live: u64,
    pub units: u64,
    pub rank: u32,
    pub unit: u32,
    pub op: u8,
    pub path: u8,
    pub dtype: u8,
    pub value_dtype: u8,
    pub common: u8,
    pub reserved: [u8; 3],
    pub head: u32,
    pub tail: u32,
    pub element: u32,
    /// Unused bytes, which the kernels' compiler leaves free too.
    pub padding: u32,
    pub dims: [Dim; DIMS],
}

/// The dimension that one index list indexes into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Picked {
    pub size: i64,
    pub step: i64,
}

/// Index lists in device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Picks {
    pub lists: u64,
    pub length: u64,
    pub count: u64,
    pub list_step: [i64; DIMS],
    pub picked: [Picked; DIMS],
}

/// Works that do not touch each other's memory, in one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Batch {
    pub count: u32,
    pub end: [u32; WORKS + 1],
    pub works: [Work; WORKS],
}

const _: () = assert!(size_of::<Dim>() == 24 && size_of::<Live>() == 56);
const _: () = assert!(size_of::<Work>() == 80 + 24 * DIMS && size_of::<Picks>() == 24 + 24 * DIMS);
const _: () = assert!(size_of::<Batch>() == 40 + size_of::<Work>() * WORKS);
const _: () =
    assert!(std::mem::offset_of!(Work, dims) == 80 && std::mem::offset_of!(Work, element) == 72);
// The oldest cards take at most this many bytes of arguments in a launch.
const _: () = assert!(size_of::<Batch>() <= 4096);

impl LiveState {
    pub fn new(on: bool, number: [u64; 2]) -> LiveState {
        LiveState {
            on: on.into(),
            reserved: 0,
            number,
        }
    }

    /// The bytes as they lie in memory.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.on, self.reserved].map(u32::to_ne_bytes).concat();
        bytes.extend(self.number.map(u64::to_ne_bytes).concat());
        bytes
    }
}

impl Live {
    pub fn new(state: LiveState) -> Live {
        Live {
            version: 0,
            reserved: 0,
            states: [state; 2],
        }
    }

    /// The bytes as they lie in memory.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.version, self.reserved].map(u32::to_ne_bytes).concat();
        bytes.extend(self.states.iter().flat_map(LiveState::bytes));
        bytes
    }
}

impl Work {
    /// A work of no units.
    pub fn empty(op: Op, dtype: Dtype) -> Work {
        Work {
            data: 0,
            value: 0,
            number: [0; 2],
            live: 0,
            units: 0,
            rank: 0,
            unit: dtype.size() as u32,
            op: op as u8,
            path: Path::Strided as u8,
            dtype: dtype as u8,
            value_dtype: dtype as u8,
            common: dtype as u8,
            reserved: [0; 3],
            head: 0,
            tail: 0,
            element: dtype.size() as u32,
            padding: 0,
            dims: [Dim::default(); DIMS],
        }
    }
}

/// An entry of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Zero(Path),
    Add(Path),
    Replace(Path),
    Any,
    Batch,
}

impl Kernel {
    /// All of them; [`Kernel::index`] is a place in this list.
    pub const ALL: [Kernel; 8] = [
        Kernel::Zero(Path::Dense),
        Kernel::Zero(Path::Strided),
        Kernel::Add(Path::Dense),
        Kernel::Add(Path::Strided),
        Kernel::Replace(Path::Dense),
        Kernel::Replace(Path::Strided),
        Kernel::Any,
        Kernel::Batch,
    ];

    /// The kernel for an operation and a path.
    pub fn of(op: Op, path: Path) -> Kernel {
        match (op, path) {
            (_, Path::Any) => Kernel::Any,
            (Op::Zero, path) => Kernel::Zero(path),
            (Op::Add, path) => Kernel::Add(path),
            (Op::Replace, path) => Kernel::Replace(path),
        }
    }

    pub fn index(self) -> usize {
        Kernel::ALL
            .iter()
            .position(|known| *known == self)
            .unwrap_or(Kernel::ALL.len() - 2)
    }

    /// The entry's name in the module.
    pub fn name(self) -> &'static std::ffi::CStr {
        match self {
            Kernel::Zero(Path::Dense) => c"gp_zero_dense",
            Kernel::Zero(_) => c"gp_zero_strided",
            Kernel::Add(Path::Dense) => c"gp_add_dense",
            Kernel::Add(_) => c"gp_add_strided",
            Kernel::Replace(Path::Dense) => c"gp_replace_dense",
            Kernel::Replace(_) => c"gp_replace_strided",
            Kernel::Any => c"gp_any",
            Kernel::Batch => c"gp_batch",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers in `enum Dtype` of the kernels' source.
    #[test]
    fn the_kernels_know_the_same_dtypes() {
        let source = include_str!("../../kernels/dtype.cuh");
        let (_, behind) = source.split_once("enum Dtype : u8 {").unwrap();
        let (table, _) = behind.split_once('}').unwrap();
        let kernels: Vec<(String, usize)> = table
            .split(',')
            .map(|line| {
                let (name, number) = line.split_once('=').unwrap();
                (name.trim().to_owned(), number.trim().parse().unwrap())
            })
            .collect();
        let ours: Vec<(String, usize)> = Dtype::ALL
            .iter()
            .map(|dtype| (kernel_name(*dtype), *dtype as usize))
            .collect();
        assert_eq!(kernels, ours);
    }

    /// `F8E4m3fn` is `F8_E4M3FN` there; `bool` is a word of C++.
    fn kernel_name(dtype: Dtype) -> String {
        match format!("{dtype:?}").to_uppercase() {
            name if name == "BOOL" => "BOOL8".to_owned(),
            name if name.starts_with("F8E") => name.replacen("F8E", "F8_E", 1),
            name => name,
        }
    }
}

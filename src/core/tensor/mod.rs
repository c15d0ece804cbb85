//! Tensors in host memory, and plain numbers: what files hold, what probes keep, what patches add.
//!
//! [`HostTensor`] is dense and row-major. It is read from [`npy`] and [`safetensors`] files, and written to the latter; a
//! [`FileValue`] says where one lies. Strided memory of the host's own tensors is the business of `graphpatch_apply`.

pub mod compare;
pub mod dtype;
mod elements;
pub mod file;
pub mod host;
pub mod npy;
mod npy_header;
pub mod number;
pub mod safetensors;

pub use compare::Distance;
pub use dtype::Dtype;
pub use file::FileValue;
pub use host::HostTensor;
pub use number::Number;

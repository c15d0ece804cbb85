//! Tensors in host memory, and plain numbers: what files hold, what probes keep, what patches add.
//!
//! [`HostTensor`] is dense and row-major. [`npy`] and [`safetensors`] read it from files, and the latter writes it; a
//! [`FileValue`] says where one lies, and knows both. The crate `graphpatch-apply` works on the strided memory of the host's
//! own tensors.

pub mod compare;
pub mod dtype;
mod elements;
pub mod file;
pub mod host;
mod input;
pub mod npy;
mod npy_header;
pub mod number;
pub mod safetensors;

pub use compare::Distance;
pub use dtype::Dtype;
pub use file::FileValue;
pub use host::HostTensor;
pub use number::Number;

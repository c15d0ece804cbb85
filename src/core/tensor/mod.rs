//! Tensors in host memory, and plain numbers: what files hold, what probes keep, what patches add.
//!
//! [`HostTensor`] is dense and row-major. [`npy`], [`safetensors`], [`gguf`] and [`saved`] (files of `torch.save`) read it from
//! files, and [`safetensors`] also writes it. A [`FileValue`] names a tensor in a file of any of these formats. The crate
//! `graphpatch-apply` works on the strided memory of the host's own tensors.

pub mod compare;
pub mod dtype;
mod elements;
pub mod file;
pub mod gguf;
pub mod host;
mod input;
mod missing;
pub mod npy;
mod npy_header;
pub mod number;
mod pickle;
pub mod safetensors;
pub mod saved;

pub use compare::Distance;
pub use dtype::Dtype;
pub use file::FileValue;
pub use host::HostTensor;
pub use number::Number;

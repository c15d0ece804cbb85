//! Shared code of the kernels' tests: tensors on the emulated device, patches on them, and the same patches by the CPU code.

use std::sync::Arc;

use half::{bf16, f16};

use super::recording::{self, Call, State};
use super::work::Kernel;
use super::{Cuda, Planned, Queue, Tensor, Value};
use graphpatch_apply::{Outcome, View, cpu};
use graphpatch_core::layout;
use graphpatch_core::patch::Patch;
use graphpatch_core::patch::action::{Action, NewPatch, Pick};
use graphpatch_core::path::Slice;
use graphpatch_core::tensor::{Dtype, HostTensor};

pub fn patch(picks: Vec<Pick>, action: Action) -> Arc<Patch> {
    let zero = NewPatch::zero("x".parse().unwrap());
    Arc::new(Patch::new(
        1,
        NewPatch {
            picks,
            action,
            ..zero
        },
    ))
}

pub fn sliced(slice: &str, action: Action) -> Arc<Patch> {
    let slice: Slice = slice.parse().unwrap();
    patch(slice.0.into_iter().map(Pick::Item).collect(), action)
}

/// A tensor on the emulated device: memory of exactly its span, with room for a misaligned start.
pub struct Memory {
    pub address: u64,
    pub bytes: usize,
    pub dtype: Dtype,
    pub sizes: Vec<i64>,
    pub strides: Vec<i64>,
    pub offset: usize,
}

impl Memory {
    pub fn tensor(&self) -> Tensor<'_> {
        Tensor {
            address: self.address + self.offset as u64,
            sizes: &self.sizes,
            strides: &self.strides,
            dtype: self.dtype,
            device: 0,
            stream: 5,
        }
    }
}

/// How many elements of memory a tensor without negative strides spans.
pub fn span(sizes: &[i64], strides: &[i64]) -> usize {
    layout::span(sizes, strides).map_or(0, |(_, last)| last as usize + 1)
}

/// Bytes that are valid elements: bools are 0 or 1, and floats may be any float, NaN and infinity included.
pub fn content(dtype: Dtype, count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = Vec::new();
    for _ in 0..count {
        let bits = next();
        let value = (bits % 2001) as f64 / 16.0 - 62.5;
        match dtype {
            Dtype::Bool => out.push((bits & 1) as u8),
            Dtype::F16 => out.extend(f16::from_f64(value).to_ne_bytes()),
            Dtype::Bf16 => out.extend(bf16::from_f64(value).to_ne_bytes()),
            Dtype::F32 => out.extend((value as f32 / 3.0).to_ne_bytes()),
            Dtype::F64 => out.extend((value / 3.0).to_ne_bytes()),
            _ => out.extend((0..dtype.size()).map(|_| next() as u8)),
        }
    }
    out
}

pub struct Bench {
    pub cuda: Arc<Cuda>,
    pub state: Arc<State>,
}

impl Bench {
    pub fn new() -> Bench {
        let (cuda, state) = recording::cuda(true);
        Bench { cuda, state }
    }

    pub fn place(
        &self,
        dtype: Dtype,
        sizes: &[i64],
        strides: &[i64],
        shift: usize,
        content: &[u8],
    ) -> Memory {
        let mut emulator = self.state.emulator.lock();
        let emulator = emulator.as_mut().unwrap();
        let offset = shift * dtype.size();
        let bytes = offset + content.len();
        let address = emulator.alloc(bytes);
        emulator.write(address + offset as u64, content);
        Memory {
            address,
            bytes,
            dtype,
            sizes: sizes.to_vec(),
            strides: strides.to_vec(),
            offset,
        }
    }

    pub fn read(&self, memory: &Memory) -> Vec<u8> {
        let mut emulator = self.state.emulator.lock();
        let bytes = memory.bytes - memory.offset;
        emulator
            .as_mut()
            .unwrap()
            .read(memory.address + memory.offset as u64, bytes)
    }

    pub fn free(&self, memory: &Memory) {
        self.state
            .emulator
            .lock()
            .as_mut()
            .unwrap()
            .free(memory.address);
    }

    /// Applies the patches. Returns false if one of them is left to libtorch.
    pub fn run(
        &self,
        patches: &[&Arc<Patch>],
        memory: &Memory,
        foreign: Option<Value<'_>>,
    ) -> bool {
        let mut queue = Queue::default();
        for patch in patches {
            match queue
                .push(&self.cuda, patch, &memory.tensor(), foreign)
                .unwrap()
            {
                Planned::Queued => {}
                Planned::Elsewhere => return false,
            }
        }
        for (_, fault) in queue.flush(&self.cuda) {
            assert_eq!(fault, None);
        }
        true
    }

    pub fn kernels(&self) -> Vec<Kernel> {
        let calls = self.state.take();
        let kernel = |call: &Call| match call {
            Call::Launch { kernel, .. } => Some(*kernel),
            _ => None,
        };
        calls.iter().filter_map(kernel).collect()
    }
}

/// Applies the same patch with the CPU code, in place.
pub fn reference(
    content: &mut [u8],
    memory: &Memory,
    slice: &Slice,
    action: &Action,
) -> Option<Outcome> {
    let mut aligned = HostTensor::zeros(Dtype::U8, &[content.len() as i64]).unwrap();
    aligned.bytes_mut().copy_from_slice(content);
    // SAFETY: sizes and strides reach `content.len()` bytes; the copy is aligned to 16.
    let view = unsafe {
        View::new(
            aligned.bytes_mut().as_mut_ptr(),
            &memory.sizes,
            &memory.strides,
            memory.dtype,
        )
    };
    let outcome = cpu::apply(&view, slice, action).ok();
    content.copy_from_slice(aligned.bytes());
    outcome
}

pub fn same(dtype: Dtype, a: &[u8], b: &[u8]) -> bool {
    let nan = |bytes: &[u8]| match dtype {
        Dtype::F16 => f16::from_ne_bytes(bytes.try_into().unwrap()).is_nan(),
        Dtype::Bf16 => bf16::from_ne_bytes(bytes.try_into().unwrap()).is_nan(),
        _ => false,
    };
    let size = dtype.size();
    a.chunks(size)
        .zip(b.chunks(size))
        .all(|(x, y)| x == y || (nan(x) && nan(y)))
}

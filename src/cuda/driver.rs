//! The part of CUDA's driver that we use, as safe calls. Tests put a driver that records its calls in its place.

use std::ffi::CStr;

use super::work::{Batch, Kernel, Picks, Work};

/// An error of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: u32,
    pub text: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CUDA: {} (error {})", self.text, self.code)
    }
}

pub type Answer<T> = Result<T, Fault>;

/// One card, or one MIG part of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub name: String,
    pub capability: (i32, i32),
    pub processors: u32,
    /// Whether memory can be freed in the order of a stream, as drivers from CUDA 11.2 on can do.
    pub pools: bool,
}

/// A launch: an entry of the module, a one-dimensional grid, and the arguments.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    pub kernel: Kernel,
    pub grid: u32,
    pub block: u32,
    pub stream: usize,
    pub arguments: Arguments<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum Arguments<'a> {
    Work(&'a Work),
    Any(&'a Work, &'a Picks),
    Batch(&'a Batch),
}

/// The driver. Handles are numbers. From `load` on, all calls but `is_capturing` and `relax` need a current context.
pub trait Driver: Send + Sync {
    /// The version as CUDA writes it: 12040 for CUDA 12.4.
    fn version(&self) -> Answer<i32>;
    fn devices(&self) -> Answer<u32>;
    fn facts(&self, device: u32) -> Answer<Facts>;
    /// Whether the device is in use already, by libtorch for example.
    fn active(&self, device: u32) -> bool;
    /// The context that the CUDA runtime, and so libtorch, uses.
    fn retain(&self, device: u32) -> Answer<usize>;
    fn current(&self) -> usize;
    fn push(&self, context: usize) -> Answer<()>;
    fn pop(&self);
    /// The context in which work for the stream is done.
    fn context_of(&self, stream: usize) -> Answer<usize>;

    /// Loads a module. Returns its entries in the order of `Kernel::ALL`.
    fn load(&self, image: &CStr) -> Answer<[usize; Kernel::ALL.len()]>;
    /// A stream that waits for no other.
    fn stream(&self) -> Answer<usize>;
    fn is_capturing(&self, stream: usize) -> Answer<bool>;
    /// Lets this thread do what captures of other threads would forbid it. `relax(false)` ends that.
    fn relax(&self, on: bool);
    /// Allocates memory that later work of `stream` may use or, without a stream, any work.
    fn alloc(&self, bytes: usize, stream: Option<usize>) -> Answer<u64>;
    /// Frees memory when the earlier work of `stream` is done, which must be the stream of `alloc`. Without a stream, the host
    /// waits for all work of the device.
    fn free(&self, address: u64, stream: Option<usize>);
    /// Copies bytes to the device, and waits until the copy is done.
    fn upload(&self, address: u64, bytes: &[u8], stream: usize) -> Answer<()>;
    /// A mark that can be set in a stream.
    fn event(&self) -> Answer<usize>;
    /// Sets the mark after the work that the stream has now.
    fn record(&self, event: usize, stream: usize) -> Answer<()>;
    /// Makes the stream's later work wait for the mark; the host does not wait.
    fn wait(&self, stream: usize, event: usize) -> Answer<()>;
    /// Drops the mark. Work that waits for it still does.
    fn drop_event(&self, event: usize);
    fn launch(&self, function: usize, launch: &Launch<'_>) -> Answer<()>;
}

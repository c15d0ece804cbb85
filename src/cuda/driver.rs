//! The part of CUDA's driver that we use, as safe calls, so that tests can put a recording one in its place.

use std::ffi::CStr;

use super::work::{Batch, Kernel, Picks, Work};

/// What the driver answered instead of success.
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
    /// Whether memory is given back in the order of a stream: by drivers from CUDA 11.2 on.
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

/// The driver. Handles are numbers; a context must be current for all but the first five calls.
pub trait Driver: Send + Sync {
    /// 12040 for CUDA 12.4.
    fn version(&self) -> Answer<i32>;
    fn devices(&self) -> Answer<u32>;
    fn facts(&self, device: u32) -> Answer<Facts>;
    /// Whether somebody (libtorch) uses the device already.
    fn active(&self, device: u32) -> bool;
    /// The context that the CUDA runtime, and so libtorch, uses.
    fn retain(&self, device: u32) -> Answer<usize>;
    fn current(&self) -> usize;
    fn push(&self, context: usize) -> Answer<()>;
    fn pop(&self);
    /// The context that work for the stream is done in.
    fn context_of(&self, stream: usize) -> Answer<usize>;

    /// Loads a module; the entries in the order of `Kernel::ALL`.
    fn load(&self, image: &CStr) -> Answer<[usize; Kernel::ALL.len()]>;
    /// A stream that waits for no other.
    fn stream(&self) -> Answer<usize>;
    fn is_capturing(&self, stream: usize) -> Answer<bool>;
    /// Lets this thread do what captures of other threads would forbid it; undone by the second call.
    fn relax(&self, on: bool);
    /// Memory that work for `stream` may use from here on; without a stream, any work.
    fn alloc(&self, bytes: usize, stream: Option<usize>) -> Answer<u64>;
    /// Gives memory back when the work before it in `stream` is done. Without a stream the whole device is waited for.
    /// The stream is that of `alloc`.
    fn free(&self, address: u64, stream: Option<usize>);
    /// Copies to the device, and waits until it is there.
    fn upload(&self, address: u64, bytes: &[u8], stream: usize) -> Answer<()>;
    /// A mark that can be set in a stream.
    fn event(&self) -> Answer<usize>;
    /// Sets the mark behind the work that the stream has now.
    fn record(&self, event: usize, stream: usize) -> Answer<()>;
    /// Has the stream's later work wait for the mark; the host does not wait.
    fn wait(&self, stream: usize, event: usize) -> Answer<()>;
    /// Gives the mark back; whoever waits for it still does.
    fn drop_event(&self, event: usize);
    fn launch(&self, function: usize, launch: &Launch<'_>) -> Answer<()>;
}

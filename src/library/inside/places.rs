//! Places that calls of a program's own `forward` functions are led to. Each place knows which function was called. If the call is
//! one on a module that is known, and the result comes back in memory, [`called`] calls the function in between; otherwise the place
//! jumps to the function, as if it had been called.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use graphpatch_locks::OnceLock;
use graphpatch_torch::{self as torch, ModuleCall};

/// How many functions there can be.
pub(super) const PLACES: usize = 1024;
/// How long the code of a place is.
const SIZE: usize = 16;
/// How many words of the stack are passed on to a function.
const STACK: usize = 16;
/// How many words the parameters of a function may take, beside the result's address and the object.
pub(super) const MOST_WORDS: usize = 4 + STACK;

core::arch::global_asm!(
    ".text",
    ".p2align 4",
    ".globl graphpatch_places", // other parts of this library may refer to it,
    ".hidden graphpatch_places", // but no other library
    "graphpatch_places:",
    ".rept {places}",
    ".p2align 4",
    "endbr64",
    "lea r11, [rip]", // an address in the place
    "jmp {arrive}",
    ".endr",
    places = const PLACES,
    arrive = sym arrive,
);

unsafe extern "C" {
    safe static graphpatch_places: u8;
}

/// Asks [`lead`] where to go on, with all argument registers as they were.
#[unsafe(naked)]
unsafe extern "C" fn arrive() {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "push rax",
        ".cfi_adjust_cfa_offset 56",
        "sub rsp, 128",
        ".cfi_adjust_cfa_offset 128",
        "movups [rsp], xmm0",
        "movups [rsp + 16], xmm1",
        "movups [rsp + 32], xmm2",
        "movups [rsp + 48], xmm3",
        "movups [rsp + 64], xmm4",
        "movups [rsp + 80], xmm5",
        "movups [rsp + 96], xmm6",
        "movups [rsp + 112], xmm7",
        "mov rdi, r11",
        "call {lead}",
        "mov r11, rax",
        "movups xmm0, [rsp]",
        "movups xmm1, [rsp + 16]",
        "movups xmm2, [rsp + 32]",
        "movups xmm3, [rsp + 48]",
        "movups xmm4, [rsp + 64]",
        "movups xmm5, [rsp + 80]",
        "movups xmm6, [rsp + 96]",
        "movups xmm7, [rsp + 112]",
        "add rsp, 128",
        ".cfi_adjust_cfa_offset -128",
        "pop rax",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        ".cfi_adjust_cfa_offset -56",
        "jmp r11",
        ".cfi_endproc",
        lead = sym lead,
    );
}

/// What a function is known to return.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Returns {
    Unknown = 0,
    Tensor = 1,
    Values = 2,
}

/// A function whose calls come to a place.
struct Function {
    /// Where it can be called.
    original: AtomicUsize,
    returns: AtomicU8,
}

fn functions() -> &'static [Function] {
    static FUNCTIONS: OnceLock<Vec<Function>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let function = || Function {
            original: AtomicUsize::new(0),
            returns: AtomicU8::new(Returns::Unknown as u8),
        };
        std::iter::repeat_with(function).take(PLACES).collect()
    })
}

/// The address of a place's code.
pub(super) fn address(place: usize) -> usize {
    (&raw const graphpatch_places).addr() + place * SIZE
}

/// Calls that come to the place are of the function that can be called at `original`.
pub(super) fn set_original(place: usize, original: usize) {
    if let Some(function) = functions().get(place) {
        function.original.store(original, Ordering::Release);
    }
}

thread_local! {
    /// The call that [`lead`] sends to [`called`]. It needs no destructor, so it is there at any moment of the thread's life.
    static LED: Cell<(usize, u64)> = const { Cell::new((0, 0)) };
}

/// Where the call goes on: in [`called`], or in the function itself.
extern "C" fn lead(inside: usize, module: usize) -> usize {
    let place = inside.wrapping_sub(address(0)) / SIZE;
    let Some(function) = functions().get(place) else {
        std::process::abort(); // there are no more places than functions
    };
    let original = function.original.load(Ordering::Acquire);
    if !torch::is_flat() {
        return original;
    }
    let number = ModuleCall::enter(module).keep();
    if number == 0 {
        return original;
    }
    LED.set((place, number));
    called as *const () as usize
}

/// What a function may return in registers, if it returns nothing in memory.
#[repr(C)]
struct Registers {
    integer: usize,
    float: f64,
}

/// The words of the stack that a function may have been called with.
#[derive(Clone, Copy)]
#[repr(C)]
struct Stack([usize; STACK]);

#[rustfmt::skip]
type Forward = unsafe extern "C-unwind" fn(
    usize, usize, usize, usize, usize, usize,
    f64, f64, f64, f64, f64, f64, f64, f64,
    Stack,
) -> Registers;

/// Calls the function, with everything that it may have been called with.
#[allow(clippy::too_many_arguments, reason = "all argument registers")]
#[rustfmt::skip]
unsafe extern "C-unwind" fn called(
    result: usize, module: usize, c: usize, d: usize, e: usize, f: usize,
    x0: f64, x1: f64, x2: f64, x3: f64, x4: f64, x5: f64, x6: f64, x7: f64,
    stack: Stack,
) -> Registers {
    let (place, number) = LED.get();
    let call = ModuleCall::take_over(number);
    let Some(function) = functions().get(place) else {
        std::process::abort(); // `lead` has found it
    };
    let original = function.original.load(Ordering::Acquire);
    // SAFETY: where `redirect` has moved the function's beginning to. Its arguments fit into what is passed on.
    let original = unsafe { std::mem::transmute::<usize, Forward>(original) };
    let behind = word_behind(result, &raw const call);
    // SAFETY: the caller's own arguments.
    let answer = unsafe { original(result, module, c, d, e, f, x0, x1, x2, x3, x4, x5, x6, x7, stack) };
    if answer.integer == result && function.gives_a_tensor(behind, word_behind(result, &raw const call)) {
        // SAFETY: the function has returned, and its result is one word. The adapter looks whether that is a tensor.
        unsafe { call.output(std::ptr::with_exposed_provenance_mut::<c_void>(result), false) };
    }
    answer
}

/// The word behind the result's first one, if the result lies in the frame of a caller, so that it can be read. `here` is an address
/// in our own frame.
fn word_behind(result: usize, here: *const ModuleCall) -> Option<usize> {
    const NEAR: usize = 1 << 20;
    let is_near = result > here.addr()
        && result - here.addr() < NEAR
        && result.is_multiple_of(size_of::<usize>());
    // SAFETY: a word of the stack, on which there are frames above the result's.
    is_near.then(|| unsafe {
        std::ptr::with_exposed_provenance::<usize>(result)
            .add(1)
            .read_volatile()
    })
}

impl Function {
    /// Whether the result is one word. No symbol says what a function returns, but a function with a longer result writes into the
    /// word behind it. The first call of which that is known decides.
    fn gives_a_tensor(&self, before: Option<usize>, after: Option<usize>) -> bool {
        let known = self.returns.load(Ordering::Acquire);
        if known != Returns::Unknown as u8 {
            return known == Returns::Tensor as u8;
        }
        let (Some(before), Some(after)) = (before, after) else {
            return false;
        };
        let found = match before == after {
            true => Returns::Tensor,
            false => Returns::Values,
        };
        self.returns.store(found as u8, Ordering::Release);
        found == Returns::Tensor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stand_one_behind_the_other() {
        assert_eq!(address(0) % SIZE, 0);
        for place in [0, 1, PLACES - 1] {
            // SAFETY: the code of a place of ours.
            let code = unsafe { std::slice::from_raw_parts(address(place) as *const u8, 4) };
            assert_eq!(code, [0xf3, 0x0f, 0x1e, 0xfa]);
        }
    }
}

//! The return addresses of the calling thread.

use std::ffi::{c_int, c_void};

use smallvec::SmallVec;

/// Frames beyond so many are left out: the outermost ones of a deep recursion.
const DEEPEST: usize = 128;

/// Return addresses, innermost first. They mean something as long as what they point into stays loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack(pub(super) Box<[usize]>);

/// What the unwinder hands to its callback; opaque.
#[repr(C)]
struct Context {
    _private: [u8; 0],
}

type Visit = extern "C" fn(*mut Context, *mut c_void) -> c_int;

// Of libgcc_s, which every Rust program is linked to, and which libtorch itself uses for the text of its errors.
unsafe extern "C" {
    fn _Unwind_Backtrace(visit: Visit, user: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut Context) -> usize;
}

const GO_ON: c_int = 0;
const STOP: c_int = 5;

extern "C" fn visit(context: *mut Context, user: *mut c_void) -> c_int {
    // SAFETY: `user` is the list that `here` lends for the walk; the context is the unwinder's for this call.
    let (found, address) = unsafe {
        (
            &mut *user.cast::<SmallVec<[usize; DEEPEST]>>(),
            _Unwind_GetIP(context),
        )
    };
    if address == 0 || found.len() == DEEPEST {
        return STOP;
    }
    found.push(address);
    GO_ON
}

impl Stack {
    /// Where the calling thread is.
    pub fn here() -> Stack {
        let mut found = SmallVec::<[usize; DEEPEST]>::new();
        // SAFETY: the callback has the asked-for signature and does not unwind; the list, which has room for all that
        // is put there, outlives the call.
        unsafe { _Unwind_Backtrace(visit, (&raw mut found).cast()) };
        Stack(found.as_slice().into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

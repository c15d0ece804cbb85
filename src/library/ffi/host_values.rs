//! Values that a host shows: inputs and outputs of the innermost scope, and what patches made of their leaves.

use std::ffi::{c_char, c_void};

use super::arguments::{answer, list, text, wrong};
use super::sized::{self, Grows};
use super::{Status, guard, structure};
use graphpatch_core::error::Result;
use graphpatch_core::tensor::Number;
use graphpatch_session::record::Tag;
use graphpatch_torch::{self as torch, HostValue, Leaf};

/// A leaf of a value that was shown, as its patches left it. Since 0.1.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gp_leaf {
    /// To be set by the caller: sizeof(gp_leaf).
    pub size: usize,
    /// Whether it is another one than was shown; if not, all that follows is 0.
    pub changed: bool,
    /// What kind of number it is now: 'b' a bool and 'i' an integer (in `integer`), 'f' a float (in `real`). 0: none.
    pub number: c_char,
    /// A tensor: its at::TensorImpl, borrowed until the thread shows its next value. NULL for a number.
    pub tensor: *const c_void,
    /// The number, where `number` is 'b' or 'i'.
    pub integer: i64,
    /// The number, where `number` is 'f'.
    pub real: f64,
}

// SAFETY: repr(C), a usize in front, a member of eight bytes at the end.
unsafe impl Grows for gp_leaf {
    const FIRST: usize = 40;
}

/// Shows input number `index` of the innermost scope, before the module's code reads it. `structure` says what it is,
/// in preorder: `T` a tensor (the next one of `tensors`; NULL for an undefined one), `N` None, `B0;` and `B1;` a bool,
/// `I3;` an integer, `F0.5;` a float, `S5:hello` a string, `O4:Type` anything else by its type, and `(2;`, `[2;`, `{2;`
/// a tuple, list or dict with so many elements after it; a dict's elements have their key in front, as `3:key`.
/// `changed` receives how many leaves its patches changed: gp_scope_leaf has them. GP_STATUS_PARSE; GP_STATUS_REFUSED
/// for a patch that cannot be applied.
///
/// Thread: its own. NULL: tensors with `n` 0, and any of them. Errors: GP_STATUS_TORCH, GP_STATUS_PARSE,
/// GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `structure` is NULL or a C string; `tensors` points to `n` live at::TensorImpl of this process's libtorch; `changed` is
/// NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_input(
    index: u32,
    structure: *const c_char,
    tensors: *const *const c_void,
    n: usize,
    changed: *mut u32,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe { show(HostValue::Input(index), structure, tensors, n, changed) })
}

/// Shows all inputs of the innermost scope at once: `structure` is a tuple of them, in order. Leaves are counted over
/// all of them. Otherwise as gp_scope_input.
///
/// Thread: its own. NULL: tensors with `n` 0, and any of them. Errors: GP_STATUS_TORCH, GP_STATUS_PARSE,
/// GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// As gp_scope_input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_inputs(
    structure: *const c_char,
    tensors: *const *const c_void,
    n: usize,
    changed: *mut u32,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe { show(HostValue::Inputs, structure, tensors, n, changed) })
}

/// Shows what the innermost scope returns, before its caller sees it. `owned` says that the program holds each tensor
/// in one place only and will take the changed one in its place, so that it may be changed where it lies. Otherwise as
/// gp_scope_input.
///
/// Thread: its own. NULL: tensors with `n` 0, and any of them. Errors: GP_STATUS_TORCH, GP_STATUS_PARSE,
/// GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// As gp_scope_input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_output(
    structure: *const c_char,
    tensors: *const *const c_void,
    n: usize,
    owned: bool,
    changed: *mut u32,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe { show(HostValue::Output { owned }, structure, tensors, n, changed) })
}

/// # Safety
///
/// As gp_scope_input.
unsafe fn show(
    shown: HostValue,
    structure: *const c_char,
    tensors: *const *const c_void,
    n: usize,
    changed: *mut u32,
) -> Result<()> {
    // SAFETY: by this function's contract.
    unsafe {
        answer(changed, "changed", 0)?;
        let tensors = list(tensors, n, "tensors")?;
        let elements = structure::parse(text(structure, "structure")?, tensors)?;
        let tuple = elements
            .first()
            .is_some_and(|first| first.tag == Tag::Tuple);
        if matches!(shown, HostValue::Inputs) && !tuple {
            return Err(wrong("structure", "is no tuple of the scope's inputs"));
        }
        answer(changed, "changed", torch::show(shown, &elements)?)
    }
}

/// Leaf number `index`, in preorder and counting everything that is no container, of the value that this thread showed
/// last. GP_STATUS_ARGUMENT when it has not so many.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written, as many bytes as its `size` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_leaf(index: usize, out: *mut gp_leaf) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        sized::check(out, "out")?;
        let why = || format!("is {index}, more than the value last shown has leaves");
        let leaf = torch::leaf(index)?.ok_or_else(|| wrong("index", why()))?;
        let mut made = gp_leaf {
            size: 0,
            changed: !matches!(leaf, Leaf::Unchanged),
            tensor: std::ptr::null(),
            number: 0,
            integer: 0,
            real: 0.0,
        };
        match leaf {
            Leaf::Tensor(tensor) => made.tensor = tensor,
            Leaf::Number(Number::Bool(value)) => {
                (made.number, made.integer) = (b'b' as c_char, value.into());
            }
            Leaf::Number(Number::Int(value)) => {
                (made.number, made.integer) = (b'i' as c_char, value);
            }
            Leaf::Number(Number::Float(value)) => {
                (made.number, made.real) = (b'f' as c_char, value)
            }
            Leaf::Number(Number::Complex(..)) | Leaf::Unchanged => {}
        }
        sized::fill(out, "out", made)
    })
}

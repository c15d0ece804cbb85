//! Hosts that tell of their modules by calls, as Python and C++ do: what a module is, when it is called, and with what.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::guard::{answer, null, reference, text};
use super::session::gp_session;
use super::sized::{self, Grows};
use super::{Status, guard, structure};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::tensor::Number;
use graphpatch_session::record::Tag;
use graphpatch_session::thread::{self, Opened};
use graphpatch_session::{Root, Scope, Snapshot, Wants};
use graphpatch_torch::{self as torch, Leaf, Shown};

/// A module that runs are calls of, and all its parameters. Any number of runs on any thread may use one. Since 0.1.0.
pub struct gp_root(Arc<Root>);

/// A module as it is called from another one. Any number of calls on any thread may use one. Since 0.1.0.
pub struct gp_scope(Arc<Scope>);

/// Where a run stood, for a part of it that is computed again. Any thread. Since 0.1.0.
pub struct gp_snapshot(Arc<Snapshot>);

/// What is wanted of a run or a scope, as bits of a number. From bit 16 on the number holds the scope's place among the
/// patches, counted from 1: equal places of a session whose patches did not change get equal answers. Since 0.1.0.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum gp_wants {
    /// Show its inputs: gp_scope_input.
    Inputs = 1,
    /// Show its output: gp_scope_output.
    Output = 2,
    /// Something in it or below it matters: tell of calls in it.
    Inside = 4,
    /// Of a run: gp_run_parameters.
    Parameters = 8,
    /// The run is recorded.
    Record = 16,
    /// Its operations are intercepted. Calls in it must be told of, whether they matter or not.
    Operations = 32,
    /// No call of this module from the same scope matters, as long as the patches stay as they are.
    Ignored = 64,
}

// The header's numbers are the session's.
const _: () = {
    assert!(gp_wants::Inputs as u32 == Wants::INPUTS);
    assert!(gp_wants::Output as u32 == Wants::OUTPUT);
    assert!(gp_wants::Inside as u32 == Wants::INSIDE);
    assert!(gp_wants::Parameters as u32 == Wants::PARAMETERS);
    assert!(gp_wants::Record as u32 == Wants::RECORD);
    assert!(gp_wants::Operations as u32 == Wants::OPERATIONS);
    assert!(gp_wants::Ignored as u32 == Wants::IGNORED);
    assert!(Wants::SITE_SHIFT == 16);
};

fn wants(wants: Option<Wants>) -> u32 {
    wants.map_or(0, Wants::told)
}

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

/// Texts that the caller lends.
///
/// # Safety
///
/// `list` is NULL, if `n` is 0, or points to `n` C strings.
unsafe fn texts(list: *const *const c_char, n: usize, name: &'static str) -> Result<Vec<String>> {
    if list.is_null() && n != 0 {
        return Err(null(name));
    }
    // SAFETY: by this function's contract.
    (0..n)
        .map(|at| unsafe { text(*list.add(at), name) }.map(str::to_owned))
        .collect()
}

/// Loads the adapter for the process's libtorch, as gp_session_attach does, without attaching a session: sessions that
/// gp_run_open names need no more.
///
/// Thread: any. Errors: GP_STATUS_TORCH, GP_STATUS_ADAPTER. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_torch_load() -> Status {
    guard(torch::start)
}

/// A root: `name` names its graph, `class_name` is for people, `inputs` are the names of its forward's arguments, and
/// `parameters` the attribute paths ("layers.0.weight") of all parameters and buffers below it. The inside of an
/// `opaque` one (compiled code) is not looked at. `out` receives a new root; free it with gp_root_free.
///
/// Thread: any. NULL: inputs and parameters with their number 0. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// Texts are NULL or C strings, lists NULL or as long as said; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_root_new(
    name: *const c_char,
    class_name: *const c_char,
    inputs: *const *const c_char,
    n_inputs: usize,
    parameters: *const *const c_char,
    n_parameters: usize,
    opaque: bool,
    out: *mut *mut gp_root,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let class_name = text(class_name, "class_name")?;
        let scope = Scope::new("", "", class_name, texts(inputs, n_inputs, "inputs")?);
        let scope = scope.opaque(opaque);
        let parameters = texts(parameters, n_parameters, "parameters")?;
        let root = Root::new(Arc::new(scope), text(name, "name")?, parameters);
        give(out, gp_root(Arc::new(root)))
    })
}

/// Hands a new object over.
///
/// # Safety
///
/// `out` is NULL or may be written.
unsafe fn give<T>(out: *mut *mut T, value: T) -> Result<()> {
    let made = Box::into_raw(Box::new(value));
    // SAFETY: by this function's contract; on error nobody has seen the pointer.
    unsafe { answer(out, "out", made).inspect_err(|_| drop(Box::from_raw(made))) }
}

/// Frees a root; runs of it go on. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
///
/// # Safety
///
/// `root` came from gp_root_new and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_root_free(root: *mut gp_root) {
    if !root.is_null() {
        guard(|| {
            // SAFETY: by this function's contract.
            drop(unsafe { Box::from_raw(root) });
            Ok(())
        });
    }
}

/// A scope: `module_path` is the module's attribute path below the nearest enclosing module that is called,
/// `absolute_path` the one below the root; the rest is as in gp_root_new. `out` receives a new scope; free it with
/// gp_scope_free.
///
/// Thread: any. NULL: inputs with `n_inputs` 0. Errors: none of its own. Since 0.1.0.
///
/// # Safety
///
/// Texts are NULL or C strings, `inputs` NULL or as long as said; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_new(
    module_path: *const c_char,
    absolute_path: *const c_char,
    class_name: *const c_char,
    inputs: *const *const c_char,
    n_inputs: usize,
    opaque: bool,
    out: *mut *mut gp_scope,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let scope = Scope::new(
            text(module_path, "module_path")?,
            text(absolute_path, "absolute_path")?,
            text(class_name, "class_name")?,
            texts(inputs, n_inputs, "inputs")?,
        );
        give(out, gp_scope(Arc::new(scope.opaque(opaque))))
    })
}

/// Frees a scope; calls of it go on. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
///
/// # Safety
///
/// `scope` came from gp_scope_new and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_free(scope: *mut gp_scope) {
    if !scope.is_null() {
        guard(|| {
            // SAFETY: by this function's contract.
            drop(unsafe { Box::from_raw(scope) });
            Ok(())
        });
    }
}

/// Begins a run of `root` on this thread, until gp_run_end, for `session`, or for the attached one if that is NULL.
/// `wants` receives bits of gp_wants; 0: nothing is wanted, and no run began (gp_run_end must not be called). `plan`
/// (may be NULL) receives a number that changes with the patches that runs begin with; 0 without any. A run of a named
/// session suspends one that is open on this thread; where nothing is wanted of it, what it does is the open run's.
/// GP_STATUS_STATE where a run is open and `session` is NULL; GP_STATUS_TORCH before the adapter was loaded
/// (gp_torch_load, gp_session_attach), as all calls below.
///
/// Thread: its own. NULL: session, plan. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `session` and `root` are NULL or live; `wants` and `plan` are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_open(
    session: *const gp_session,
    root: *const gp_root,
    wants: *mut u32,
    plan: *mut u64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let session = session.as_ref().map(|session| &session.0);
        let root = reference(root, "root")?;
        answer(wants, "wants", 0)?;
        began(thread::open_run(session, &root.0)?, wants, plan)
    })
}

/// What a caller gets to know of a run.
///
/// # Safety
///
/// `wants` and `plan` are NULL or may be written.
unsafe fn began(run: Option<Opened>, wants: *mut u32, plan: *mut u64) -> Result<()> {
    // SAFETY: by this function's contract.
    unsafe {
        if !plan.is_null() {
            plan.write(run.map_or(0, |run| run.plan));
        }
        answer(wants, "wants", self::wants(run.map(|run| run.wants)))
    }
}

/// Which tensors the root's parameters are in this run: their at::TensorImpl, in the order of gp_root_new; NULL for one
/// that is not there. To be called behind gp_run_open, where it is wanted.
///
/// Thread: its own. NULL: tensors with `n` 0, and any of them. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `tensors` points to `n` pointers, each NULL or to a live at::TensorImpl of this process's libtorch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_parameters(tensors: *const *const c_void, n: usize) -> Status {
    guard(|| {
        if tensors.is_null() && n != 0 {
            return Err(null("tensors"));
        }
        let tensors = match n {
            0 => &[],
            // SAFETY: by this function's contract.
            _ => unsafe { std::slice::from_raw_parts(tensors, n) },
        };
        // SAFETY: by this function's contract.
        unsafe { torch::run_parameters(tensors) }
    })
}

/// Where this thread's run stands, for code of it that runs elsewhere: again later (activation checkpointing), or on
/// another thread. `out` receives a new snapshot, to be freed with gp_snapshot_free, or NULL outside a run.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_snapshot(out: *mut *mut gp_snapshot) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        answer(out, "out", std::ptr::null_mut())?;
        match thread::snapshot()? {
            Some(snapshot) => give(out, gp_snapshot(snapshot)),
            None => Ok(()),
        }
    })
}

/// Frees a snapshot. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
///
/// # Safety
///
/// `snapshot` came from gp_run_snapshot and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_snapshot_free(snapshot: *mut gp_snapshot) {
    if !snapshot.is_null() {
        guard(|| {
            // SAFETY: by this function's contract.
            drop(unsafe { Box::from_raw(snapshot) });
            Ok(())
        });
    }
}

/// Begins, on this thread and until gp_run_end, a run that stands where the other one stood: in the same scopes, with
/// the same names given, under the same patches. With `record`, and if the other one is recorded, what it does is added
/// to the graph. `wants` is the innermost scope's, `plan` as in gp_run_open; `wants` is 0 where nothing is wanted and
/// no run began.
///
/// Thread: its own. NULL: plan. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `snapshot` is NULL or live; `wants` and `plan` are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_run_resume(
    snapshot: *const gp_snapshot,
    record: bool,
    wants: *mut u32,
    plan: *mut u64,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let snapshot = reference(snapshot, "snapshot")?;
        answer(wants, "wants", 0)?;
        began(thread::resume(&snapshot.0, record)?, wants, plan)
    })
}

/// A module is called from the innermost scope; gp_scope_leave ends the call. `wants` receives bits of gp_wants, 0
/// outside a run.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH, GP_STATUS_REFUSED, GP_STATUS_STATE. Since 0.1.0.
///
/// # Safety
///
/// `scope` is NULL or live; `wants` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_open(scope: *const gp_scope, wants: *mut u32) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let scope = reference(scope, "scope")?;
        answer(wants, "wants", 0)?;
        answer(wants, "wants", self::wants(thread::open_scope(&scope.0)?))
    })
}

/// Instead of gp_scope_open: the next TorchScript module called on this thread, which tells of its calls itself, is
/// called as `scope`, which must live so long. `depth` receives what gp_scope_unwind takes.
///
/// Thread: its own. NULL: refused. Errors: GP_STATUS_TORCH. Since 0.1.0.
///
/// # Safety
///
/// `scope` is NULL or live until the module's code has begun or gp_scope_unwind was called; `depth` is NULL or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_scope_script(scope: *const gp_scope, depth: *mut u32) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let scope = reference(scope, "scope")?;
        answer(depth, "depth", 0)?;
        answer(depth, "depth", thread::call_next(&scope.0)?)
    })
}

/// A call announced by gp_scope_script is over: leaves what an exception left open in it.
///
/// Thread: its own. Errors: GP_STATUS_TORCH. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_scope_unwind(depth: u32) -> Status {
    guard(|| thread::unwind(depth))
}

/// Shows input number `index` of the innermost scope, before the module's code reads it. `structure` says what it is,
/// in preorder: `T` a tensor (the next one of `tensors`; NULL for an undefined one), `N` None, `B0;` and `B1;` a bool,
/// `I3;` an integer, `F0.5;` a float, `S5:hello` a string, `O4:Type` anything else by its type, and `(2;`, `[2;`, `{2;`
/// a tuple, list or dict with so many elements behind it; a dict's elements have their key in front, as `3:key`.
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
    guard(|| unsafe { show(Shown::Input(index), structure, tensors, n, changed) })
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
    guard(|| unsafe { show(Shown::Inputs, structure, tensors, n, changed) })
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
    guard(|| unsafe { show(Shown::Output { owned }, structure, tensors, n, changed) })
}

/// # Safety
///
/// As gp_scope_input.
unsafe fn show(
    shown: Shown,
    structure: *const c_char,
    tensors: *const *const c_void,
    n: usize,
    changed: *mut u32,
) -> Result<()> {
    // SAFETY: by this function's contract.
    unsafe {
        answer(changed, "changed", 0)?;
        if tensors.is_null() && n != 0 {
            return Err(null("tensors"));
        }
        let tensors = match n {
            0 => &[],
            _ => std::slice::from_raw_parts(tensors, n),
        };
        let elements = structure::parse(text(structure, "structure")?, tensors)?;
        let tuple = elements
            .first()
            .is_some_and(|first| first.tag == Tag::Tuple);
        if matches!(shown, Shown::Inputs) && !tuple {
            return Err(Error::Argument {
                name: "structure",
                why: "is no tuple of the scope's inputs".into(),
            });
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
        let leaf = torch::leaf(index)?.ok_or_else(|| Error::Argument {
            name: "index",
            why: format!("is {index}, more than the value last shown has leaves"),
        })?;
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

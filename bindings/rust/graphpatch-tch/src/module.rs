//! Scopes for modules that are written in Rust. libtorch does not know of them, so the program reports each call: the module, its
//! inputs and its result. It goes on with these values as the patches left them.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::ptr::null_mut;

use graphpatch_sys::{
    gp_leaf, gp_root, gp_root_free, gp_root_new, gp_run_decline, gp_run_end, gp_run_open,
    gp_run_parameters, gp_scope, gp_scope_free, gp_scope_input, gp_scope_leaf, gp_scope_leave,
    gp_scope_new, gp_scope_open, gp_scope_output, gp_status, gp_wants,
};
use tch::Tensor;

use crate::error::{Error, Result, c_text, check};
use crate::session::Session;
use crate::torch::{impl_of, tensor_at};

/// The module whose calls are runs, with the names of its parameters, such as a VarStore's.
pub struct Root {
    root: *mut gp_root,
    inputs: usize,
    parameters: Vec<Tensor>,
}

// SAFETY: any number of runs on any thread may use a root, says the header, and tensors may be read on any thread.
unsafe impl Send for Root {}
unsafe impl Sync for Root {}

impl Root {
    /// `inputs` are the names of the arguments of its calls.
    pub fn new(class: &str, inputs: &[&str], variables: HashMap<String, Tensor>) -> Result<Self> {
        let (names, parameters): (Vec<_>, Vec<_>) = variables.into_iter().unzip();
        let (class, texts, names) = (c_text(class)?, c_texts(inputs)?, c_texts(&names)?);
        let (texts, names) = (pointers(&texts), pointers(&names));
        let mut root = null_mut();
        // SAFETY: texts and lists live for the call.
        check(unsafe {
            let class = class.as_ptr();
            let (inputs, n) = (texts.as_ptr(), texts.len());
            gp_root_new(
                class,
                class,
                inputs,
                n,
                names.as_ptr(),
                names.len(),
                false,
                &mut root,
            )
        })?;
        Ok(Self {
            root,
            inputs: inputs.len(),
            parameters,
        })
    }

    /// Calls `forward` as a run.
    pub fn run<const N: usize>(
        &self,
        session: &Session,
        inputs: [&Tensor; N],
        forward: impl FnOnce([Tensor; N]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let given = expect(self.inputs, inputs)?;
        let mut wants = 0;
        // SAFETY: both live; `wants` may be written.
        check(unsafe { gp_run_open(session.as_ptr(), self.root, &mut wants, null_mut()) })?;
        if wants == 0 {
            // SAFETY: ended on this thread when it is dropped.
            unsafe { gp_run_decline(true) };
            let _declined = Open(declined);
            return forward(given);
        }
        let _open = Open(gp_run_end);
        if wants & gp_wants::GP_WANTS_PARAMETERS.0 != 0 {
            let parameters: Vec<*const c_void> = self.parameters.iter().map(impl_of).collect();
            // SAFETY: the tensors live as long as the root.
            check(unsafe { gp_run_parameters(parameters.as_ptr(), parameters.len()) })?;
        }
        told(wants, given, forward)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // SAFETY: freed once; runs of it go on.
        unsafe { gp_root_free(self.root) }
    }
}

/// A module that is called from another one.
pub struct Scope {
    scope: *mut gp_scope,
    inputs: usize,
}

// SAFETY: any number of calls on any thread may use a scope, says the header.
unsafe impl Send for Scope {}
unsafe impl Sync for Scope {}

impl Scope {
    /// `path` is where it is in the model, such as `layers.0.up`; `inputs` are the names of the arguments of its calls. A module
    /// whose caller is itself a scope is named by its path below that one: `within` is the caller's path, empty for the root's.
    pub fn new(within: &str, path: &str, class: &str, inputs: &[&str]) -> Result<Self> {
        let prefix = format!("{within}.");
        let below = match within {
            "" => Some(path),
            _ => path.strip_prefix(&prefix),
        };
        let below =
            below.ok_or_else(|| Error::argument(format!("{path} is not below {within}")))?;
        let (below, path, class) = (c_text(below)?, c_text(path)?, c_text(class)?);
        let texts = c_texts(inputs)?;
        let texts = pointers(&texts);
        let mut scope = null_mut();
        // SAFETY: texts and lists live for the call.
        check(unsafe {
            let (below, path, class) = (below.as_ptr(), path.as_ptr(), class.as_ptr());
            gp_scope_new(
                below,
                path,
                class,
                texts.as_ptr(),
                texts.len(),
                false,
                &mut scope,
            )
        })?;
        Ok(Self {
            scope,
            inputs: inputs.len(),
        })
    }

    /// Calls `forward` as this module.
    pub fn call<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        forward: impl FnOnce([Tensor; N]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let given = expect(self.inputs, inputs)?;
        let mut wants = 0;
        // SAFETY: the scope lives; `wants` may be written.
        check(unsafe { gp_scope_open(self.scope, &mut wants) })?;
        let _open = Open(gp_scope_leave);
        told(wants, given, forward)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: freed once; calls of it go on.
        unsafe { gp_scope_free(self.scope) }
    }
}

/// Closes a run or a scope when it is dropped, also when tch panics.
struct Open(unsafe extern "C" fn() -> gp_status);

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: it was opened on this thread.
        unsafe { (self.0)() };
    }
}

unsafe extern "C" fn declined() -> gp_status {
    // SAFETY: ends what began on this thread.
    unsafe { gp_run_decline(false) }
}

fn c_texts(texts: &[impl AsRef<str>]) -> Result<Vec<CString>> {
    texts.iter().map(|text| c_text(text.as_ref())).collect()
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

/// The tensors of a call, of which there must be as many as names were given.
fn expect<const N: usize>(names: usize, inputs: [&Tensor; N]) -> Result<[Tensor; N]> {
    if names != N {
        return Err(Error::argument(format!(
            "{N} inputs were given, but {names} have a name"
        )));
    }
    Ok(inputs.map(Tensor::shallow_clone))
}

/// Shows the inputs, calls `forward` with what patches left of them, and shows what it returns.
fn told<const N: usize>(
    wants: u32,
    mut inputs: [Tensor; N],
    forward: impl FnOnce([Tensor; N]) -> Result<Tensor>,
) -> Result<Tensor> {
    if wants & gp_wants::GP_WANTS_INPUTS.0 != 0 {
        for (index, input) in (0..).zip(&mut inputs) {
            // SAFETY: here and below: the tensor lives, `changed` may be written.
            *input = shown(input, |tensor, changed| unsafe {
                gp_scope_input(index, c"T".as_ptr(), tensor, 1, changed)
            })?;
        }
    }
    let output = forward(inputs)?;
    if wants & gp_wants::GP_WANTS_OUTPUT.0 == 0 {
        return Ok(output);
    }
    shown(&output, |tensor, changed| unsafe {
        gp_scope_output(c"T".as_ptr(), tensor, 1, false, changed)
    })
}

/// Shows a value that is one tensor, and returns it as the patches left it.
fn shown(
    value: &Tensor,
    show: impl FnOnce(*const *const c_void, *mut u32) -> gp_status,
) -> Result<Tensor> {
    let mut changed = 0;
    check(show(&impl_of(value), &mut changed))?;
    if changed == 0 {
        return Ok(value.shallow_clone());
    }
    let mut leaf = gp_leaf {
        size: size_of::<gp_leaf>(),
        ..Default::default()
    };
    // SAFETY: the tensor is borrowed until the thread shows its next value, and taken now.
    unsafe {
        check(gp_scope_leaf(0, &mut leaf))?;
        Ok(tensor_at(leaf.tensor))
    }
}

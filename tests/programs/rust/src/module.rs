//! Scopes for modules that are written in Rust. libtorch does not know of them, so the program reports each call: the module,
//! its input and its result. The program then continues with these values as the patches left them.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::ptr::null_mut;

use tch::Tensor;

use crate::session::{Result, Session, c_text, check};
use crate::spec::{impl_of, tensor_at};
use crate::sys::*;

/// The module whose calls are runs, with the names of its parameters, such as a VarStore's.
pub struct Root {
    root: *mut gp_root,
    parameters: Vec<Tensor>,
}

impl Root {
    pub fn new(class: &str, variables: HashMap<String, Tensor>) -> Result<Self> {
        let (names, parameters): (Vec<_>, Vec<_>) = variables.into_iter().unzip();
        let names = names
            .iter()
            .map(|name| c_text(name))
            .collect::<Result<Vec<CString>>>()?;
        let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let (class, mut root) = (c_text(class)?, null_mut());
        let inputs = [c"x".as_ptr()];
        // SAFETY: texts and lists live for the call.
        check(unsafe {
            let (class, n) = (class.as_ptr(), names.len());
            gp_root_new(
                class,
                class,
                inputs.as_ptr(),
                1,
                names.as_ptr(),
                n,
                false,
                &mut root,
            )
        })?;
        Ok(Self { root, parameters })
    }

    /// Calls `forward` as a run.
    pub fn run(
        &self,
        session: &Session,
        x: &Tensor,
        forward: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut wants = 0;
        // SAFETY: both live; `wants` may be written.
        check(unsafe { gp_run_open(session.as_ptr(), self.root, &mut wants, null_mut()) })?;
        if wants == 0 {
            return forward(x);
        }
        let _open = Open(|| unsafe { gp_run_end() });
        if wants & gp_wants::GP_WANTS_PARAMETERS.0 != 0 {
            let parameters: Vec<*const c_void> = self.parameters.iter().map(impl_of).collect();
            check(unsafe { gp_run_parameters(parameters.as_ptr(), parameters.len()) })?;
        }
        told(wants, x, forward)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        unsafe { gp_root_free(self.root) }
    }
}

/// A module that is called from another one; `path` is where it is in that one.
pub struct Scope(*mut gp_scope);

impl Scope {
    pub fn new(path: &str, class: &str) -> Result<Self> {
        let (path, class, mut scope) = (c_text(path)?, c_text(class)?, null_mut());
        let inputs = [c"input".as_ptr()];
        // SAFETY: texts and lists live for the call.
        check(unsafe {
            let (path, class) = (path.as_ptr(), class.as_ptr());
            gp_scope_new(path, path, class, inputs.as_ptr(), 1, false, &mut scope)
        })?;
        Ok(Self(scope))
    }

    /// Calls `forward` as this module.
    pub fn call(&self, input: &Tensor, forward: impl FnOnce(&Tensor) -> Tensor) -> Result<Tensor> {
        let mut wants = 0;
        // SAFETY: the scope lives; `wants` may be written.
        check(unsafe { gp_scope_open(self.0, &mut wants) })?;
        let _open = Open(|| unsafe { gp_scope_leave() });
        told(wants, input, |input| Ok(forward(input)))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        unsafe { gp_scope_free(self.0) }
    }
}

/// Closes a run or a scope when it is dropped, also when tch panics.
struct Open(fn() -> gp_status);

impl Drop for Open {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn told(wants: u32, x: &Tensor, forward: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let mut input = x.shallow_clone();
    if wants & gp_wants::GP_WANTS_INPUTS.0 != 0 {
        // SAFETY: here and below: the tensor lives, `changed` may be written.
        input = shown(input, |tensor, changed| unsafe {
            gp_scope_input(0, c"T".as_ptr(), tensor, 1, changed)
        })?;
    }
    let output = forward(&input)?;
    if wants & gp_wants::GP_WANTS_OUTPUT.0 == 0 {
        return Ok(output);
    }
    shown(output, |tensor, changed| unsafe {
        gp_scope_output(c"T".as_ptr(), tensor, 1, false, changed)
    })
}

/// Shows a value that is one tensor, and returns it as the patches left it.
fn shown(
    value: Tensor,
    show: impl FnOnce(*const *const c_void, *mut u32) -> gp_status,
) -> Result<Tensor> {
    let mut changed = 0;
    check(show(&impl_of(&value), &mut changed))?;
    if changed == 0 {
        return Ok(value);
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

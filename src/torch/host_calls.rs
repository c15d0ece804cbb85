//! Calls of a host (C++, Python) that need libtorch: showing its values, and the addresses of its parameters. All its other calls go to the session ([`graphpatch_session::thread`]).

use std::ffi::c_void;
use std::sync::Arc;

use graphpatch_locks::{Lazy, Mutex};
use rustc_hash::FxHashMap;

use super::seam_generated as raw;
use super::table::{adapter, missing};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::tensor::Number;
use graphpatch_session::record::{Element, Tag};
use graphpatch_session::{Root, Scope, thread};

/// Roots and scopes of hosts that name them by text alone. Others hold those that are in use, so each table may be emptied.
static ROOTS: Lazy<Mutex<FxHashMap<String, Arc<Root>>>> = Lazy::new(Default::default);
static SCOPES: Lazy<Mutex<FxHashMap<String, Arc<Scope>>>> = Lazy::new(Default::default);

/// A table is emptied when it has this many entries, since a program may make up names without end.
const MOST_NAMES: usize = 4096;

fn known<T>(
    table: &Mutex<FxHashMap<String, Arc<T>>>,
    name: &str,
    make: impl FnOnce() -> T,
) -> Arc<T> {
    let mut table = table.lock();
    if let Some(found) = table.get(name) {
        return found.clone();
    }
    if table.len() >= MOST_NAMES {
        table.clear();
    }
    let made = Arc::new(make());
    table.insert(name.to_owned(), made.clone());
    made
}

/// The adapter's answer as a result: empty text means success.
fn checked(answer: raw::GpStr) -> Result<()> {
    if answer.size == 0 || answer.data.is_null() {
        return Ok(());
    }
    // SAFETY: the adapter's text stays until its next call on this thread.
    let text = unsafe { std::slice::from_raw_parts(answer.data.cast::<u8>(), answer.size) };
    let text = String::from_utf8_lossy(text).into_owned();
    Err(match text.strip_prefix("graphpatch: ") {
        Some(why) => Error::Refused(why.to_owned()),
        None => Error::State(text),
    })
}

/// Begins a run of the root `name` on this thread, for the attached session.
///
/// # Errors
///
/// As [`thread::open_run`].
pub fn run_begin(name: &str) -> Result<()> {
    let root = known(&ROOTS, name, || {
        let scope = Scope::new("", "", name, Vec::new());
        Root::new(Arc::new(scope), name, Vec::new())
    });
    thread::open_run(None, &root).map(drop)
}

/// Enters a scope by its module's attribute path.
///
/// # Errors
///
/// As [`thread::open_scope`].
pub fn scope_enter(path: &str) -> Result<()> {
    let scope = known(&SCOPES, path, || Scope::new(path, path, "", Vec::new()));
    thread::open_scope(&scope).map(drop)
}

/// Sets which tensors the parameters of this thread's root are: `at::TensorImpl`s in the root's order, NULL where there is
/// none.
///
/// # Safety
///
/// Each that is not NULL points to a live `at::TensorImpl` of this process's libtorch.
///
/// # Errors
///
/// [`Error::Torch`] before the adapter was loaded.
pub unsafe fn run_parameters(identities: &[*const c_void]) -> Result<()> {
    let keep = adapter()?.keep_addresses.ok_or_else(missing)?;
    // SAFETY: the table's call; the tensors are alive by this function's contract.
    unsafe { keep(identities.as_ptr(), identities.len()) };
    thread::with_run(|run| run.set_parameters(identities.iter().map(|identity| identity.addr())));
    Ok(())
}

/// Which value of the innermost scope a host shows.
#[derive(Clone, Copy, Debug)]
pub enum HostValue {
    /// The argument at this index.
    Input(u32),
    /// All arguments, as a tuple.
    Inputs,
    /// The scope's result; for `owned` see `value` in seam.h.
    Output { owned: bool },
}

fn text(text: &str) -> raw::GpStr {
    raw::GpStr {
        data: text.as_ptr().cast(),
        size: text.len(),
    }
}

fn item(element: &Element<'_>) -> raw::GpItem {
    let mut item = raw::GpItem {
        count: element.count as u32,
        identity: std::ptr::with_exposed_provenance(element.identity),
        key: text(element.key),
        text: text(element.text),
        device_index: -1,
        ..raw::GpItem::default()
    };
    let tag = match element.tag {
        Tag::Tensor => raw::GP_TENSOR,
        Tag::Undefined => raw::GP_UNDEFINED,
        Tag::None => raw::GP_NONE,
        Tag::Bool => raw::GP_BOOL,
        Tag::Int => raw::GP_INT,
        Tag::Float => raw::GP_FLOAT,
        Tag::Complex => raw::GP_COMPLEX,
        Tag::Str => raw::GP_STR,
        Tag::Tuple => raw::GP_TUPLE,
        Tag::List => raw::GP_LIST,
        Tag::Dict => raw::GP_DICT,
        Tag::Other => raw::GP_OTHER,
    };
    item.tag = tag as u8;
    item.number.tag = tag as u8;
    match element.number {
        Number::Bool(value) => item.number.i = value.into(),
        Number::Int(value) => item.number.i = value,
        Number::Float(value) => item.number.re = value,
        Number::Complex(re, im) => (item.number.re, item.number.im) = (re, im),
    }
    item
}

/// Shows a value of the present scope, whose tensors are `at::TensorImpl`s. Returns how many leaves its patches changed.
///
/// # Safety
///
/// Each tensor's identity is the address of a live `at::TensorImpl` of this process's libtorch.
pub unsafe fn show(shown: HostValue, elements: &[Element<'_>]) -> Result<u32> {
    let show = adapter()?.value.ok_or_else(missing)?;
    let (kind, index, owned) = match shown {
        HostValue::Input(index) => (raw::GP_VALUE_INPUT, index, false),
        HostValue::Inputs => (raw::GP_VALUE_INPUTS, 0, false),
        HostValue::Output { owned } => (raw::GP_VALUE_OUTPUT, 0, owned),
    };
    let items: Vec<raw::GpItem> = elements.iter().map(item).collect();
    let mut changed = 0;
    // SAFETY: the table's call; the items borrow from `elements`, and the tensors are as this function's contract says.
    checked(unsafe {
        show(
            kind,
            index,
            items.as_ptr(),
            items.len(),
            owned.into(),
            &raw mut changed,
        )
    })?;
    Ok(changed)
}

/// A leaf of the value that this thread showed last.
#[derive(Clone, Copy, Debug)]
pub enum Leaf {
    Unchanged,
    /// An `at::TensorImpl`, alive until the thread shows its next value.
    Tensor(*const c_void),
    Number(Number),
}

/// Leaf number `index`, in preorder, of the value that this thread showed last; `None` if the value has fewer leaves.
pub fn leaf(index: usize) -> Result<Option<Leaf>> {
    let mut leaf = raw::GpLeaf::default();
    // SAFETY: the table's call; the place for the answer is ours.
    let known = unsafe { adapter()?.leaf.ok_or_else(missing)?(index, &raw mut leaf) };
    Ok((known != 0).then_some(match u32::from(leaf.number.tag) {
        _ if leaf.changed == 0 => Leaf::Unchanged,
        _ if !leaf.tensor.is_null() => Leaf::Tensor(leaf.tensor),
        raw::GP_BOOL => Leaf::Number(Number::Bool(leaf.number.i != 0)),
        raw::GP_FLOAT => Leaf::Number(Number::Float(leaf.number.re)),
        _ => Leaf::Number(Number::Int(leaf.number.i)),
    }))
}

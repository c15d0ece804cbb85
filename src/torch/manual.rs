//! Runs, scopes and values that a program tells of by calls (C++, Python), by way of the adapter.

use std::ffi::c_void;
use std::sync::Arc;

use graphpatch_locks::{Lazy, Mutex};
use rustc_hash::FxHashMap;

use super::seam_generated as raw;
use super::table::{adapter, missing};
use graphpatch_core::error::{Error, Result};
use graphpatch_core::tensor::Number;
use graphpatch_session::record::{Element, Tag};
use graphpatch_session::run::{Interest, Snapshot};
use graphpatch_session::{Root, Scope, Session};

/// Roots and scopes by name; they are few and live as long as the process.
static ROOTS: Lazy<Mutex<FxHashMap<String, Arc<Root>>>> = Lazy::new(Default::default);
static SCOPES: Lazy<Mutex<FxHashMap<String, Arc<Scope>>>> = Lazy::new(Default::default);

fn known<T>(
    table: &Mutex<FxHashMap<String, Arc<T>>>,
    name: &str,
    make: impl FnOnce() -> T,
) -> Arc<T> {
    let mut table = table.lock();
    match table.get(name) {
        Some(found) => found.clone(),
        None => {
            let made = Arc::new(make());
            table.insert(name.to_owned(), made.clone());
            made
        }
    }
}

/// The adapter's answer: empty text is success.
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

/// What frame flags say; `None` where nothing is wanted.
fn interest(flags: u32) -> Option<Interest> {
    let has = |flag| flags & flag != 0;
    let site = flags >> raw::GP_FRAME_SITE_SHIFT;
    (flags != 0).then(|| Interest {
        arm: has(raw::GP_FRAME_ARM),
        cold: has(raw::GP_FRAME_COLD),
        operands: has(raw::GP_FRAME_OPERANDS),
        inputs: has(raw::GP_FRAME_INPUTS),
        output: has(raw::GP_FRAME_OUTPUT),
        record: has(raw::GP_FRAME_RECORD),
        ignored: has(raw::GP_FRAME_IGNORED),
        parameters: has(raw::GP_FRAME_PARAMETERS),
        site: site.checked_sub(1),
        source: has(raw::GP_FRAME_SOURCE),
    })
}

/// A run that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// What is wanted of its innermost scope.
    pub interest: Interest,
    /// [`graphpatch_core::patch::Plan::serial`]; 0 without patches.
    pub plan: u64,
}

fn opened(
    open: impl FnOnce(&raw::GpAdapter, *mut raw::GpOpened) -> Option<raw::GpStr>,
) -> Result<Option<Opened>> {
    let mut answer = raw::GpOpened::default();
    checked(open(adapter()?, &raw mut answer).ok_or_else(missing)?)?;
    Ok(interest(answer.flags).map(|interest| Opened {
        interest,
        plan: answer.plan,
    }))
}

/// Begins a run of the root `name` on this thread, for the attached session.
pub fn run_begin(name: &str) -> Result<()> {
    let root = known(&ROOTS, name, || {
        let scope = Scope::new("", "", name, Vec::new());
        Root::new(Arc::new(scope), name, Vec::new())
    });
    open_run(None, &root).map(drop)
}

/// Begins a run of `root` on this thread, for `session` or the attached one. `None`: nothing is wanted of it.
pub fn open_run(session: Option<&Arc<Session>>, root: &Arc<Root>) -> Result<Option<Opened>> {
    let session = session.map_or(std::ptr::null(), Arc::as_ptr);
    // SAFETY: the table's call; both are alive for it, and the run takes references of its own.
    opened(|adapter, answer| unsafe {
        let root = Arc::as_ptr(root).cast_mut().cast();
        Some(adapter.run_begin?(root, session.cast(), answer))
    })
}

/// Where this thread's run stands; `None` outside one, and where nothing is patched.
pub fn snapshot() -> Result<Option<Arc<Snapshot>>> {
    // SAFETY: the table's call; the pointer is `run_snapshot`'s of seam.rs, handed over.
    Ok(unsafe {
        let made = adapter()?.run_snapshot.ok_or_else(missing)?();
        (!made.is_null()).then(|| Arc::from_raw(made.cast::<Snapshot>().cast_const()))
    })
}

/// Begins, on this thread, a run that stands where the other one stood; see [`graphpatch_session::Run::resume`].
pub fn resume(from: &Arc<Snapshot>, record: bool) -> Result<Option<Opened>> {
    // SAFETY: the table's call; the snapshot is alive for it.
    opened(|adapter, answer| unsafe {
        Some(adapter.run_resume?(
            Arc::as_ptr(from).cast(),
            record.into(),
            answer,
        ))
    })
}

/// Ends this thread's run, and goes on with the one that it suspended.
pub fn run_end() -> Result<()> {
    // SAFETY: the table's call.
    checked(unsafe { adapter()?.run_end.ok_or_else(missing)?() })
}

/// The tensors that the parameters of this thread's root are, in the root's order: `at::TensorImpl`s, NULL for none.
pub fn run_parameters(identities: &[*const c_void]) -> Result<()> {
    let give = adapter()?.run_parameters.ok_or_else(missing)?;
    // SAFETY: the table's call, which only compares the pointers.
    unsafe { give(identities.as_ptr(), identities.len()) };
    Ok(())
}

/// Enters a scope by its module's attribute path.
pub fn scope_enter(path: &str) -> Result<()> {
    let scope = known(&SCOPES, path, || Scope::new(path, path, "", Vec::new()));
    open_scope(&scope).map(drop)
}

/// Enters a scope. `None`: outside a run.
pub fn open_scope(scope: &Arc<Scope>) -> Result<Option<Interest>> {
    let enter = adapter()?.scope_enter.ok_or_else(missing)?;
    let mut flags = 0;
    // SAFETY: the table's call; the run takes a reference of its own.
    checked(unsafe { enter(Arc::as_ptr(scope).cast_mut().cast(), &raw mut flags) })?;
    Ok(interest(flags))
}

/// Leaves the innermost scope.
pub fn scope_leave() -> Result<()> {
    // SAFETY: the table's call.
    checked(unsafe { adapter()?.scope_leave.ok_or_else(missing)?() })
}

/// The next call of a TorchScript module inside this thread's run is one of `scope`. Returns how many scopes are open.
///
/// # Safety
///
/// `scope` lives until that call has begun, or [`scope_unwind`] was called.
pub unsafe fn scope_next(scope: &Arc<Scope>) -> Result<u32> {
    let adapter = adapter()?;
    let (next, depth) = (adapter.scope_next, adapter.scope_depth);
    // SAFETY: the table's calls; the scope lives by this function's contract.
    unsafe {
        next.ok_or_else(missing)?(Arc::as_ptr(scope).cast_mut().cast());
        Ok(depth.ok_or_else(missing)?())
    }
}

/// Leaves the scopes above the first `depth` ones, which an exception left open.
pub fn scope_unwind(depth: u32) -> Result<()> {
    // SAFETY: the table's call.
    unsafe { adapter()?.scope_unwind.ok_or_else(missing)?(depth) };
    Ok(())
}

/// Which value of the present scope is shown.
#[derive(Clone, Copy, Debug)]
pub enum Shown {
    /// The argument at this index.
    Input(u32),
    /// All arguments, as a tuple.
    Inputs,
    /// What it returns; `owned` as seam.h says of `value`.
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
pub unsafe fn show(shown: Shown, elements: &[Element<'_>]) -> Result<u32> {
    let show = adapter()?.value.ok_or_else(missing)?;
    let (kind, index, owned) = match shown {
        Shown::Input(index) => (raw::GP_VALUE_INPUT, index, false),
        Shown::Inputs => (raw::GP_VALUE_INPUTS, 0, false),
        Shown::Output { owned } => (raw::GP_VALUE_OUTPUT, 0, owned),
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

/// Leaf number `index`, in preorder, of the value that this thread showed last; `None` if it has not so many.
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

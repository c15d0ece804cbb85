//! Python objects with a few fields that both Rust and the Python package read and write: a scope that is open on a thread
//! ([`FRAME`]), and what is known of a module that is called from another one ([`KNOWN`]). The package's classes `Frame` and
//! `Scope` derive from them.

use std::ffi::{CStr, c_int, c_void};
use std::mem::{offset_of, size_of};

use super::object::{Object, Result};
use super::raw::{self, Member, PyObject, Slot, Spec, Visit, python};

/// How many fields a record has for objects.
const PLACES: usize = 8;

/// An object of either kind.
#[repr(C)]
#[derive(Debug)]
pub struct Record {
    base: PyObject,
    objects: [Option<Object>; PLACES],
    numbers: [u64; 2],
}

/// A kind of record: the name of its type, and the names of its fields.
pub struct Kind {
    name: &'static CStr,
    objects: &'static [&'static CStr],
    numbers: [&'static CStr; 2],
}

/// A scope that is open; `Frame` in `_thread.py` describes its fields.
pub const FRAME: Kind = Kind {
    name: c"libgraphpatch._native.FrameBase",
    objects: &[
        c"root", c"module", c"outer", c"ignored", c"cold", c"seen", c"tree",
    ],
    numbers: [c"wants", c"plan"],
};

/// The places of a frame.
pub mod frame {
    pub const ROOT: usize = 0;
    pub const MODULE: usize = 1;
    pub const IGNORED: usize = 3;
    pub const COLD: usize = 4;
    pub const TREE: usize = 6;
    pub const WANTS: usize = 0;
    pub const PLAN: usize = 1;
}

/// A module as it is called from another one; `Scope` in `_scope.py` describes its fields.
pub const KNOWN: Kind = Kind {
    name: c"libgraphpatch._native.ScopeBase",
    objects: &[
        c"module",
        c"kind",
        c"holder",
        c"held_as",
        c"forward",
        c"signature",
        c"arguments",
    ],
    numbers: [c"address", c"is_plain"],
};

/// The places of a scope.
pub mod known {
    pub const MODULE: usize = 0;
    pub const KIND: usize = 1;
    pub const HOLDER: usize = 2;
    pub const HELD_AS: usize = 3;
    pub const FORWARD: usize = 4;
    pub const SIGNATURE: usize = 5;
    pub const ARGUMENTS: usize = 6;
    pub const ADDRESS: usize = 0;
    pub const IS_PLAIN: usize = 1;
}

impl Record {
    /// The record that an object is.
    ///
    /// # Safety
    ///
    /// Its type is one of the two, or derives from one.
    pub unsafe fn of(object: &Object) -> &Record {
        // SAFETY: by this function's contract.
        unsafe { &*object.address().cast::<Record>() }
    }

    pub fn object(&self, place: usize) -> Option<&Object> {
        self.objects.get(place)?.as_ref()
    }

    pub fn number(&self, place: usize) -> u64 {
        self.numbers.get(place).copied().unwrap_or(0)
    }
}

/// A new record of a class that derives from one of the two. Its constructor is not called.
///
/// # Safety
///
/// `class` is such a class.
pub unsafe fn make(
    class: &Object,
    objects: [Option<Object>; PLACES],
    numbers: [u64; 2],
) -> Result<Object> {
    // SAFETY: a class that Python made; the allocation is cleared, so its places are empty.
    let made = unsafe { Object::made(python().PyType_GenericAlloc(class.address(), 0)) }?;
    // SAFETY: nobody else has seen it; by this function's contract it begins like this.
    let record = unsafe { &mut *made.address().cast::<Record>() };
    record.objects = objects;
    record.numbers = numbers;
    Ok(made)
}

/// The type of a kind of record.
pub fn make_type(kind: &Kind) -> Result<Object> {
    let place = |index: usize| offset_of!(Record, objects) + index * size_of::<Option<Object>>();
    let member = |name: &CStr, kind: c_int, offset: usize| Member {
        name: name.as_ptr(),
        kind,
        offset: offset as isize,
        flags: 0,
        about: std::ptr::null(),
    };
    let mut members: Vec<Member> = (kind.objects.iter().enumerate())
        .map(|(index, name)| member(name, raw::MEMBER_OBJECT, place(index)))
        .collect();
    for (index, name) in kind.numbers.iter().enumerate() {
        let offset = offset_of!(Record, numbers) + index * size_of::<u64>();
        members.push(member(name, raw::MEMBER_UNSIGNED, offset));
    }
    members.push(Member {
        name: std::ptr::null(),
        ..member(c"", 0, 0)
    });
    let slots = [
        (raw::TP_TRAVERSE, traverse as *mut c_void),
        (raw::TP_CLEAR, clear as *mut c_void),
        (raw::TP_DEALLOC, deallocate as *mut c_void),
        // Some versions of CPython read the members as long as the type lives, so they are never freed.
        (raw::TP_MEMBERS, members.leak().as_mut_ptr().cast()),
    ];
    let flags = raw::FLAG_DEFAULT | raw::FLAG_BASE | raw::FLAG_GC;
    new_type(kind.name, size_of::<Record>(), flags, &slots)
}

/// A type of these slots.
pub fn new_type(
    name: &CStr,
    size: usize,
    flags: u32,
    slots: &[(c_int, *mut c_void)],
) -> Result<Object> {
    let slot = |&(id, value): &(c_int, *mut c_void)| Slot { id, value };
    let end = &(0, std::ptr::null_mut());
    let mut slots: Vec<Slot> = slots.iter().chain([end]).map(slot).collect();
    let mut spec = Spec {
        name: name.as_ptr(),
        size: size as c_int,
        item: 0,
        flags,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: a whole description, which is read during the call only; names are static.
    unsafe { Object::made(python().PyType_FromSpec(&raw mut spec)) }
}

/// Tells the garbage collector of what a record holds.
unsafe extern "C" fn traverse(record: *mut PyObject, visit: Visit, to: *mut c_void) -> c_int {
    // SAFETY: Python calls it with a record and a visitor of its own.
    unsafe {
        let kind = (*record).kind;
        visit_all(
            (*record.cast::<Record>()).objects.iter().flatten(),
            kind,
            visit,
            to,
        )
    }
}

/// Visits an object's type and all other objects that it holds.
///
/// # Safety
///
/// The visitor is Python's.
pub unsafe fn visit_all<'a>(
    held: impl Iterator<Item = &'a Object>,
    kind: *mut PyObject,
    visit: Visit,
    to: *mut c_void,
) -> c_int {
    let held = held.map(Object::address);
    for object in std::iter::once(kind).chain(held) {
        // SAFETY: by this function's contract; the objects are alive.
        let answer = unsafe { visit(object, to) };
        if answer != 0 {
            return answer;
        }
    }
    0
}

unsafe extern "C" fn clear(record: *mut PyObject) -> c_int {
    // SAFETY: Python calls it with a record. Each place is empty before what it held is let go, which may run code.
    unsafe {
        for place in 0..PLACES {
            let places = &raw mut (*record.cast::<Record>()).objects;
            let held = (*places).get_mut(place).and_then(Option::take);
            drop(held);
        }
    }
    0
}

unsafe extern "C" fn deallocate(record: *mut PyObject) {
    // SAFETY: Python calls it with a record that nobody holds.
    unsafe {
        python().PyObject_GC_UnTrack(record.cast());
        clear(record);
        free(record);
    }
}

/// Gives back an object's memory and its reference to its type.
///
/// # Safety
///
/// It is not used any more, and what it held was let go.
pub unsafe fn free(object: *mut PyObject) {
    // SAFETY: by this function's contract; every type has such a slot.
    unsafe {
        let kind = (*object).kind;
        let slot = python().PyType_GetSlot(kind, raw::TP_FREE);
        let free: unsafe extern "C" fn(*mut c_void) = std::mem::transmute(slot);
        free(object.cast());
        python().Py_DecRef(kind);
    }
}

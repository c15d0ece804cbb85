//! gp_spec: a patch before it is registered, for what text cannot say.

use std::ffi::c_char;
use std::sync::Arc;

use super::arguments::text;
use super::dlpack::{self, DLManagedTensorVersioned};
use super::handle::{Boxed, Handle, exclusive, free, give, reference};
use super::slots::Kind;
use super::value::gp_value;
use super::{Status, guard};
use graphpatch_core::patch::action::{Action, NewPatch, Pick};
use graphpatch_core::patch::kept::Kept;
use graphpatch_core::path::{Item, Slice};

/// A patch that is not registered yet: a path, an index and what to do. One thread at a time. Since 0.1.0.
pub struct gp_spec {
    _opaque: [u8; 0],
}

impl Handle for gp_spec {
    const NAME: &'static str = "spec";
    const KIND: Kind = Kind::Spec;
    type Value = NewPatch;
    type Owner = Boxed;
}

/// A spec that zeroes the whole value at `path`. `out` receives a new spec; free it with gp_spec_free.
///
/// Thread: any. NULL: refused. Errors: GP_STATUS_PARSE. Since 0.1.0.
///
/// # Safety
///
/// `path` is NULL or a C string; `out` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_new(path: *const c_char, out: *mut *mut gp_spec) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let path = text(path, "path")?.parse()?;
        give(out, Box::new(NewPatch::zero(path)))
    })
}

/// Frees a spec; patches that were registered from it stay. NULL is fine.
///
/// Thread: the last. NULL: fine. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_spec_free(spec: *mut gp_spec) {
    free(spec);
}

/// Appends to the index what `slice` says ("[3, ::2]").
///
/// Thread: one at a time. NULL: refused. Errors: GP_STATUS_PARSE. Since 0.1.0.
///
/// # Safety
///
/// `slice` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_slice(spec: *mut gp_spec, slice: *const c_char) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let slice: Slice = text(slice, "slice")?.parse()?;
        exclusive(spec)?
            .picks
            .extend(slice.0.into_iter().map(Pick::Item));
        Ok(())
    })
}

/// Appends an integer to the index; negative ones count from the end.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_spec_index(spec: *mut gp_spec, index: i64) -> Status {
    guard(|| {
        exclusive(spec)?.picks.push(Pick::Item(Item::Index(index)));
        Ok(())
    })
}

/// Appends a tensor to the index: int32 or int64 indices, which broadcast against the other index tensors, or a bool
/// mask (uint8 is a mask too, as in libtorch). As gp_value_dlpack says of `tensor` and `take`. GP_STATUS_REFUSED for
/// another dtype.
///
/// Thread: one at a time. NULL: refused. Errors: GP_STATUS_REFUSED. Since 0.1.0.
///
/// # Safety
///
/// `tensor` is NULL or a valid managed tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gp_spec_index_tensor(
    spec: *mut gp_spec,
    tensor: *mut DLManagedTensorVersioned,
    take: bool,
) -> Status {
    // SAFETY: by this function's contract.
    guard(|| unsafe {
        let tensor = Arc::new(dlpack::read(tensor, take, "tensor")?);
        exclusive(spec)?.picks.push(Pick::tensor(tensor)?);
        Ok(())
    })
}

/// The spec zeroes.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_spec_zero(spec: *mut gp_spec) -> Status {
    guard(|| {
        exclusive(spec)?.action = Action::Zero;
        Ok(())
    })
}

/// The spec adds `value`.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_spec_add(spec: *mut gp_spec, value: *const gp_value) -> Status {
    guard(|| {
        exclusive(spec)?.action = Action::Add(reference(value)?.clone());
        Ok(())
    })
}

/// The spec writes `value`.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_spec_replace(spec: *mut gp_spec, value: *const gp_value) -> Status {
    guard(|| {
        exclusive(spec)?.action = Action::Replace(reference(value)?.clone());
        Ok(())
    })
}

/// The spec keeps a copy of the last value. It takes no index.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_spec_probe(spec: *mut gp_spec) -> Status {
    guard(|| {
        exclusive(spec)?.action = Action::Keep(Arc::new(Kept::last()));
        Ok(())
    })
}

/// The spec keeps a copy of every value, in order; of the first `limit` ones, if that is not 0. It takes no index.
///
/// Thread: one at a time. NULL: refused. Errors: none of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_spec_record(spec: *mut gp_spec, limit: u64) -> Status {
    guard(|| {
        let limit = (limit != 0).then_some(limit);
        exclusive(spec)?.action = Action::Keep(Arc::new(Kept::all(limit)));
        Ok(())
    })
}

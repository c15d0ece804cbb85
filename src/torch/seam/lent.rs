//! The structs that the adapter lends for a call, as safe values.

use crate::seam_generated as raw;
use graphpatch_apply::View;
use graphpatch_core::graph::SourceLine;
use graphpatch_core::tensor::Dtype;
use graphpatch_core::tensor::Number;
use graphpatch_session::record::{Element, Tag};

/// Text that the adapter lends for the call.
///
/// # Safety
///
/// `text` is as `seam.h` says of a GpStr, and outlives `'a`.
pub(super) unsafe fn text<'a>(text: raw::GpStr) -> &'a str {
    if text.data.is_null() || text.size == 0 {
        return "";
    }
    // SAFETY: by this function's contract.
    let bytes = unsafe { std::slice::from_raw_parts(text.data.cast::<u8>(), text.size) };
    std::str::from_utf8(bytes).unwrap_or("?")
}

/// A NUL-terminated name of the adapter's own. It is read for every recorded value, so its UTF-8 is not checked again.
///
/// # Safety
///
/// `name` is NULL or points to static ASCII text.
pub(super) unsafe fn static_text(name: *const std::ffi::c_char) -> &'static str {
    if name.is_null() {
        return "";
    }
    // SAFETY: by this function's contract.
    unsafe { str::from_utf8_unchecked(std::ffi::CStr::from_ptr(name).to_bytes()) }
}

/// A C array; NULL is fine when it is empty.
///
/// # Safety
///
/// `data` points to `n` elements that outlive `'a`.
pub(super) unsafe fn array<'a, T>(data: *const T, n: usize) -> &'a [T] {
    if data.is_null() || n == 0 {
        return &[];
    }
    // SAFETY: by this function's contract.
    unsafe { std::slice::from_raw_parts(data, n) }
}

/// The same, to be written.
///
/// # Safety
///
/// `data` points to `n` elements that outlive `'a` and that nobody else reads or writes meanwhile.
pub(super) unsafe fn array_mut<'a, T>(data: *mut T, n: usize) -> &'a mut [T] {
    if data.is_null() || n == 0 {
        return &mut [];
    }
    // SAFETY: by this function's contract.
    unsafe { std::slice::from_raw_parts_mut(data, n) }
}

pub(super) fn borrowed(text: &str) -> raw::GpStr {
    raw::GpStr {
        data: text.as_ptr().cast(),
        size: text.len(),
    }
}

/// Calls `act` with the adapter's items as elements.
///
/// # Safety
///
/// `items` points to `n` items as `seam.h` says, lent for the call.
pub(super) unsafe fn with_elements<T>(
    items: *const raw::GpItem,
    n: usize,
    act: impl FnOnce(&[Element<'_>]) -> T,
) -> T {
    // SAFETY: by this function's contract.
    let items = unsafe { array(items, n) };
    // Nearly every value is one tensor. Elements are large, so they are not moved.
    if let [item] = items {
        // SAFETY: as above.
        return act(&[unsafe { element(item) }]);
    }
    // SAFETY: as above.
    let all = items.iter().map(|item| unsafe { element(item) });
    act(&all.collect::<Vec<Element<'_>>>())
}

/// # Safety
///
/// The item is as `seam.h` says, and what it points to outlives `'a`.
unsafe fn element<'a>(item: &'a raw::GpItem) -> Element<'a> {
    let tag = match u32::from(item.tag) {
        raw::GP_TENSOR => Tag::Tensor,
        raw::GP_UNDEFINED => Tag::Undefined,
        raw::GP_BOOL => Tag::Bool,
        raw::GP_INT => Tag::Int,
        raw::GP_FLOAT => Tag::Float,
        raw::GP_COMPLEX => Tag::Complex,
        raw::GP_STR => Tag::Str,
        raw::GP_TUPLE => Tag::Tuple,
        raw::GP_LIST => Tag::List,
        raw::GP_DICT => Tag::Dict,
        raw::GP_OTHER => Tag::Other,
        _ => Tag::None,
    };
    let number = match tag {
        Tag::Bool => Number::Bool(item.number.i != 0),
        Tag::Float => Number::Float(item.number.re),
        Tag::Complex => Number::Complex(item.number.re, item.number.im),
        _ => Number::Int(item.number.i),
    };
    let rank = match tag {
        Tag::Tensor => item.count as usize,
        _ => 0,
    };
    // SAFETY: `sizes` has the tensor's rank; names are static, texts lent (seam.h).
    unsafe {
        Element {
            tag,
            count: item.count as usize,
            sizes: array(item.sizes, rank),
            identity: item.identity.addr(),
            dtype: match dtype(item.dtype) {
                Some(known) if tag == Tag::Tensor => known.name(),
                _ => static_text(item.dtype_name),
            },
            device: static_text(item.device),
            device_index: (item.device_index >= 0).then_some(item.device_index),
            layout: static_text(item.layout),
            key: text(item.key),
            text: text(item.text),
            number,
        }
    }
}

/// The adapter's frames as source places.
///
/// # Safety
///
/// `frames` points to `n` frames as `seam.h` says, lent for the call.
pub(super) unsafe fn frames(frames: *const raw::GpFrame, n: usize) -> Vec<SourceLine> {
    // SAFETY: by this function's contract.
    let frames = unsafe { array(frames, n) };
    // SAFETY: each text is lent for the call.
    let own = |lent: raw::GpStr| unsafe { text(lent) }.trim().to_owned();
    let frame = |frame: &raw::GpFrame| SourceLine {
        file: own(frame.file),
        line: frame.line,
        function: own(frame.function),
        text: own(frame.text),
    };
    frames.iter().map(frame).collect()
}

/// Asserts that a dtype of ours has the seam's number, and that no dtype is left out.
macro_rules! same_numbers {
    ($($dtype:ident = $number:ident),+ $(,)?) => {
        const _: () = {
            $(assert!(Dtype::$dtype as u32 == raw::$number);)+
            assert!(Dtype::ALL.len() == [$(raw::$number),+].len());
            assert!(Dtype::from_number(raw::GP_DTYPE_OTHER as u8).is_none());
        };

        /// The seam's names.
        #[cfg(test)]
        const SEAM_NAMES: &[(&str, Dtype)] = &[$((stringify!($number), Dtype::$dtype)),+];
    };
}

same_numbers!(
    Bool = GP_BOOL8,
    U8 = GP_U8,
    I8 = GP_I8,
    I16 = GP_I16,
    I32 = GP_I32,
    I64 = GP_I64,
    F16 = GP_F16,
    Bf16 = GP_BF16,
    F32 = GP_F32,
    F64 = GP_F64,
    C32 = GP_C32,
    C64 = GP_C64,
    C128 = GP_C128,
    U16 = GP_U16,
    U32 = GP_U32,
    U64 = GP_U64,
    F8E4m3fn = GP_F8_E4M3FN,
    F8E5m2 = GP_F8_E5M2,
    F8E4m3fnuz = GP_F8_E4M3FNUZ,
    F8E5m2fnuz = GP_F8_E5M2FNUZ,
);

/// The dtype with the seam's number.
pub(super) fn dtype(code: u8) -> Option<Dtype> {
    Dtype::from_number(code)
}

pub(super) fn dtype_code(dtype: Dtype) -> u8 {
    dtype as u8
}

/// The adapter's tensor as a view; `None` for a dtype that we do not know.
///
/// # Safety
///
/// `tensor` is as `seam.h` says, and its memory is this call's alone.
pub(super) unsafe fn view<'a>(tensor: &'a raw::GpTensor) -> Option<View<'a>> {
    let rank = tensor.rank as usize;
    // SAFETY: by this function's contract.
    dtype(tensor.dtype).map(|dtype| unsafe {
        View::new(
            tensor.data.cast(),
            array(tensor.sizes, rank),
            array(tensor.strides, rank),
            dtype,
        )
    })
}

#[cfg(test)]
#[path = "lent_tests.rs"]
mod tests;

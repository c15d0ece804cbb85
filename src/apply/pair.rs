//! Actions with a tensor as their value, for values of the very dtype of the place. All other pairs of dtypes are
//! libtorch's, which knows how to convert and when to refuse.

use half::{bf16, f16};
use smallvec::SmallVec;

use super::Outcome;
use super::place::zip_row;
use super::view::View;
use graphpatch_core::path::Region;
use graphpatch_core::tensor::{Dtype, HostTensor};

type Dims = SmallVec<[(usize, isize, isize); 8]>;

/// The value's strides, broadcast to the region; 0 where it repeats. `None` where libtorch would refuse.
fn broadcast(region: &Region, value: &HostTensor, strip_ones: bool) -> Option<Dims> {
    let mut shape = value.shape();
    // An assignment takes a value with more dimensions if the first ones are 1; an in-place sum does not.
    while strip_ones && shape.len() > region.sizes.len() && shape[0] == 1 {
        shape = &shape[1..];
    }
    let missing = region.sizes.len().checked_sub(shape.len())?;
    let mut dims = Dims::new();
    let mut step = value.shape().iter().product::<i64>();
    for (d, (size, stride)) in region.sizes.iter().zip(&region.strides).enumerate() {
        let of_value = d.checked_sub(missing).map_or(1, |at| shape[at]);
        if d >= missing {
            step /= of_value.max(1);
        }
        let value_stride = match of_value {
            1 => 0,
            same if same == *size => step,
            _ => return None,
        };
        dims.push((*size as usize, *stride as isize, value_stride as isize));
    }
    Some(dims)
}

/// Merges neighbouring dimensions in which both sides go on evenly, after putting the smallest steps innermost.
fn merge(mut dims: Dims) -> Dims {
    dims.retain(|dim| dim.0 != 1);
    dims.sort_by_key(|dim| std::cmp::Reverse(dim.1.unsigned_abs()));
    let mut merged = Dims::new();
    for (size, a, b) in dims {
        let n = size as isize;
        match merged.last_mut() {
            Some(outer) if outer.1 == a * n && outer.2 == b * n => *outer = (outer.0 * size, a, b),
            _ => merged.push((size, a, b)),
        }
    }
    if merged.is_empty() {
        merged.push((1, 1, 1));
    }
    merged
}

/// Puts the dimension in which the value's elements are neighbours next to the innermost one.
fn pull(dims: &mut Dims) {
    let last = dims.len() - 1;
    if dims[last].2 != 1
        && let Some(at) = dims[..last].iter().position(|dim| dim.2 == 1)
    {
        let dim = dims.remove(at);
        dims.insert(last - 1, dim);
    }
}

/// Elements on each side of a block, so that the cache lines of both tensors in it stay near.
const BLOCK: usize = 32;

/// Combines every element of the region with the value's element for it.
fn combine<T: Copy>(
    view: &View<'_>,
    region: &Region,
    dims: Dims,
    value: &HostTensor,
    with: impl Fn(T, T) -> T + Copy,
) {
    if dims.iter().any(|dim| dim.0 == 0) {
        return;
    }
    let Some(start) = view.element::<T>(region.offset) else {
        return;
    };
    let mut dims = merge(dims);
    pull(&mut dims);
    if dims.len() == 1 {
        dims.insert(0, (1, 0, 0));
    }
    let source = value.bytes().as_ptr().cast::<T>();
    let (outer, inner) = dims.split_at(dims.len() - 2);
    let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, outer.len());
    let (mut at, mut from) = (0isize, 0isize);
    loop {
        let (place, other) = (start.wrapping_offset(at), source.wrapping_offset(from));
        // SAFETY: the region lies inside the view, whose memory is the caller's alone and aligned (`View::new`); the
        // value's strides were made for its own elements, and its memory is aligned for every dtype. The two do not
        // overlap: one is the host's, the other ours.
        unsafe { plane(place, other, inner[0], inner[1], with) };
        let mut d = outer.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            let (size, step_a, step_b) = outer[d];
            index[d] += 1;
            at += step_a;
            from += step_b;
            if index[d] < size {
                break;
            }
            at -= step_a * size as isize;
            from -= step_b * size as isize;
            index[d] = 0;
        }
    }
}

/// Combines two dimensions: row by row where the rows run alike, else block by block.
///
/// # Safety
///
/// Both pointers reach their elements at all steps; nobody else uses those of `place`, and the two do not overlap.
unsafe fn plane<T: Copy>(
    place: *mut T,
    value: *const T,
    rows: (usize, isize, isize),
    columns: (usize, isize, isize),
    with: impl Fn(T, T) -> T + Copy,
) {
    let (n, a, b) = rows;
    let (m, c, d) = columns;
    if (c, d) == (1, 1) {
        for i in 0..n as isize {
            // SAFETY: by this function's contract, for one row of neighbours on both sides.
            let (row, other) = unsafe {
                (
                    std::slice::from_raw_parts_mut(place.wrapping_offset(i * a), m),
                    std::slice::from_raw_parts(value.wrapping_offset(i * b), m),
                )
            };
            zip_row(row, other, with);
        }
        return;
    }
    // Where the value's neighbours lie along a row as well, rows are as good as it gets.
    let (tall, wide) = if b == 1 { (BLOCK, BLOCK) } else { (1, m) };
    for top in (0..n).step_by(tall) {
        for left in (0..m).step_by(wide) {
            for i in top as isize..n.min(top + tall) as isize {
                let mut element = place.wrapping_offset(i * a + left as isize * c);
                let mut other = value.wrapping_offset(i * b + left as isize * d);
                for _ in left..m.min(left + wide) {
                    // SAFETY: by this function's contract, for one element.
                    unsafe { element.write(with(element.read(), other.read())) };
                    element = element.wrapping_offset(c);
                    other = other.wrapping_offset(d);
                }
            }
        }
    }
}

/// `tensor[slice] = value`.
pub(super) fn replace(view: &View<'_>, region: &Region, value: &HostTensor) -> Outcome {
    let Some(dims) = (value.dtype() == view.dtype)
        .then(|| broadcast(region, value, true))
        .flatten()
    else {
        return Outcome::Unsupported;
    };
    match view.dtype.size() {
        1 => combine(view, region, dims, value, |_: u8, new| new),
        2 => combine(view, region, dims, value, |_: u16, new| new),
        4 => combine(view, region, dims, value, |_: u32, new| new),
        8 if view.dtype != Dtype::C64 => combine(view, region, dims, value, |_: u64, new| new),
        8 => combine(view, region, dims, value, |_: [u32; 2], new| new),
        _ => combine(view, region, dims, value, |_: [u64; 2], new| new),
    }
    Outcome::Done
}

/// `tensor[slice] += value`.
pub(super) fn add(view: &View<'_>, region: &Region, value: &HostTensor) -> Outcome {
    let Some(dims) = (value.dtype() == view.dtype)
        .then(|| broadcast(region, value, false))
        .flatten()
    else {
        return Outcome::Unsupported;
    };
    macro_rules! int {
        ($type:ty) => {
            combine(view, region, dims, value, <$type>::wrapping_add)
        };
    }
    match view.dtype {
        Dtype::F32 => combine(view, region, dims, value, |a: f32, b| a + b),
        Dtype::F64 => combine(view, region, dims, value, |a: f64, b| a + b),
        // 16-bit floats are added in 32 bits and rounded once, as libtorch does.
        Dtype::F16 => combine(view, region, dims, value, |a: f16, b: f16| {
            f16::from_f32(a.to_f32() + b.to_f32())
        }),
        Dtype::Bf16 => combine(view, region, dims, value, |a: bf16, b: bf16| {
            bf16::from_f32(a.to_f32() + b.to_f32())
        }),
        Dtype::U8 => int!(u8),
        Dtype::I8 => int!(i8),
        Dtype::I16 => int!(i16),
        Dtype::I32 => int!(i32),
        Dtype::I64 => int!(i64),
        _ => return Outcome::Unsupported,
    }
    Outcome::Done
}

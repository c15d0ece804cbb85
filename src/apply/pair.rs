//! Actions with a tensor as their value, for a value of the same dtype as the view. All other pairs of dtypes are left to
//! libtorch, which knows how to convert them and when to refuse.

use half::{bf16, f16};

use super::Outcome;
use super::rows::zip_row;
use super::view::View;
use graphpatch_core::layout::{self, Axes, Axis, LeadingOnes, Region};
use graphpatch_core::tensor::{Dtype, HostTensor};

/// The region's dimensions, each with the steps of the region and of the value. `None` where libtorch would refuse.
fn paired(region: &Region, value: &HostTensor, leading: LeadingOnes) -> Option<Axes<2>> {
    let steps = layout::broadcast(&region.sizes, value.shape(), None, leading)?;
    let axes = region.axes().into_iter().zip(steps);
    Some(
        axes.map(|(axis, step)| Axis {
            size: axis.size,
            steps: [axis.steps[0], step],
        })
        .collect(),
    )
}

/// Moves the dimension in which the value's elements are neighbours next to the innermost one.
fn pull(axes: &mut Axes<2>) {
    let last = axes.len() - 1;
    if axes[last].steps[1] != 1
        && let Some(at) = axes[..last].iter().position(|axis| axis.steps[1] == 1)
    {
        let axis = axes.remove(at);
        axes.insert(last - 1, axis);
    }
}

/// The elements on each side of a block. It is small enough that the cache lines of both tensors in it stay in the cache.
const BLOCK: usize = 32;

/// Combines every element of the region with the value's element for it.
fn combine<T: Copy>(
    view: &View<'_>,
    region: &Region,
    axes: Axes<2>,
    value: &HostTensor,
    with: impl Fn(T, T) -> T + Copy,
) {
    let Some(start) = view.element::<T>(region.offset) else {
        return;
    };
    let mut axes = layout::at_least_one(layout::merge_sorted(axes), 1);
    pull(&mut axes);
    if axes.len() == 1 {
        let alone = Axis {
            size: 1,
            steps: [0, 0],
        };
        axes.insert(0, alone);
    }
    let source = value.bytes().as_ptr().cast::<T>();
    let (outer, inner) = axes.split_at(axes.len() - 2);
    if layout::is_empty(inner) {
        return;
    }
    layout::walk(outer, |[at, from]| {
        let target = start.wrapping_offset(at as isize);
        let other = source.wrapping_offset(from as isize);
        // SAFETY: the region lies inside the view, whose memory is the caller's alone and aligned (`View::new`). The
        // value's steps were made for its own elements, and its memory is aligned for every dtype. The two do not
        // overlap: one is the host's, the other ours.
        unsafe { plane(target, other, inner[0], inner[1], with) };
    });
}

/// Combines two dimensions: row by row where the rows run alike, else block by block.
///
/// # Safety
///
/// Both pointers reach their elements at all steps; nobody else uses those of `target`, and the two do not overlap.
unsafe fn plane<T: Copy>(
    target: *mut T,
    value: *const T,
    rows: Axis<2>,
    columns: Axis<2>,
    with: impl Fn(T, T) -> T + Copy,
) {
    let (n, m) = (rows.size as usize, columns.size as usize);
    let [a, b] = rows.steps.map(|step| step as isize);
    let [c, d] = columns.steps.map(|step| step as isize);
    if (c, d) == (1, 1) {
        for i in 0..n as isize {
            // SAFETY: by this function's contract, for one row of neighbours on both sides.
            let (row, other) = unsafe {
                (
                    std::slice::from_raw_parts_mut(target.wrapping_offset(i * a), m),
                    std::slice::from_raw_parts(value.wrapping_offset(i * b), m),
                )
            };
            zip_row(row, other, with);
        }
        return;
    }
    // Where the value's neighbours lie along a row as well, whole rows are fastest.
    let (tall, wide) = if b == 1 { (BLOCK, BLOCK) } else { (1, m) };
    for top in (0..n).step_by(tall) {
        for left in (0..m).step_by(wide) {
            for i in top as isize..n.min(top + tall) as isize {
                let mut element = target.wrapping_offset(i * a + left as isize * c);
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
    let Some(axes) = (value.dtype() == view.dtype)
        .then(|| paired(region, value, LeadingOnes::Dropped))
        .flatten()
    else {
        return Outcome::Unsupported;
    };
    match view.dtype.size() {
        1 => combine(view, region, axes, value, |_: u8, new| new),
        2 => combine(view, region, axes, value, |_: u16, new| new),
        4 => combine(view, region, axes, value, |_: u32, new| new),
        8 if view.dtype != Dtype::C64 => combine(view, region, axes, value, |_: u64, new| new),
        8 => combine(view, region, axes, value, |_: [u32; 2], new| new),
        _ => combine(view, region, axes, value, |_: [u64; 2], new| new),
    }
    Outcome::Done
}

/// `tensor[slice] += value`.
pub(super) fn add(view: &View<'_>, region: &Region, value: &HostTensor) -> Outcome {
    let Some(axes) = (value.dtype() == view.dtype)
        .then(|| paired(region, value, LeadingOnes::Refused))
        .flatten()
    else {
        return Outcome::Unsupported;
    };
    macro_rules! int {
        ($type:ty) => {
            combine(view, region, axes, value, <$type>::wrapping_add)
        };
    }
    match view.dtype {
        Dtype::F32 => combine(view, region, axes, value, |a: f32, b| a + b),
        Dtype::F64 => combine(view, region, axes, value, |a: f64, b| a + b),
        // 16-bit floats are added in 32 bits and rounded once, as libtorch does.
        Dtype::F16 => combine(view, region, axes, value, |a: f16, b: f16| {
            f16::from_f32(a.to_f32() + b.to_f32())
        }),
        Dtype::Bf16 => combine(view, region, axes, value, |a: bf16, b: bf16| {
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

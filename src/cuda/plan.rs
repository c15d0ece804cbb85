//! From a region and an action to the launches that apply it: merged dimensions, units, and the kernel's path. This file only
//! computes numbers and calls no driver.

use smallvec::SmallVec;

use super::work::{DIMS, Dim, Kernel, Op, Path, Work};
use graphpatch_core::layout::{self, Axis, LeadingOnes, Region};
use graphpatch_core::tensor::Dtype;

/// The index of the memory's steps, in bytes, among an axis' steps.
pub const MEMORY: usize = 0;
/// The index of the value's steps, in bytes.
pub const VALUE: usize = 1;
/// The index of the index lists' steps, in entries.
pub const LISTS: usize = 2;

/// The dimensions of a region, with steps for [`MEMORY`], [`VALUE`] and [`LISTS`].
pub type Axes = layout::Axes<3>;

/// A tensor in device memory that is the value of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    pub address: u64,
    pub dtype: Dtype,
    pub sizes: &'a [i64],
    /// In elements; `None` for a row-major tensor.
    pub strides: Option<&'a [i64]>,
}

/// An action on a region, in the terms of the kernels.
#[derive(Clone, Copy, Debug)]
pub struct RegionAction<'a> {
    pub op: Op,
    pub dtype: Dtype,
    /// In the form in which the kernels take it.
    pub number: [u64; 2],
    /// The address of the patch's switch and number in device memory, or 0.
    pub live: u64,
    pub value: Option<Value<'a>>,
    /// For an add with a tensor: the dtype in which libtorch would add.
    pub common: Dtype,
}

/// A planned launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub kernel: Kernel,
    pub work: Work,
    /// The steps of the index lists on the remaining axes, for [`super::work::Picks`].
    pub list_step: [i64; DIMS],
}

pub type Steps = SmallVec<[Step; 1]>;

/// The axes of a region of elements of `size` bytes.
pub fn axes(region: &Region, size: usize) -> Axes {
    let axes = region.axes().into_iter();
    axes.map(|Axis { size: n, steps }| Axis {
        size: n,
        steps: [steps[0].wrapping_mul(size as i64), 0, 0],
    })
    .collect()
}

/// Gives the axes the value's steps, broadcast to them. `None` where libtorch would refuse.
pub fn broadcast(axes: &mut Axes, value: &Value<'_>, leading: LeadingOnes) -> Option<()> {
    let shape: layout::Dims = axes.iter().map(|axis| axis.size).collect();
    let steps = layout::broadcast(&shape, value.sizes, value.strides, leading)?;
    for (axis, step) in axes.iter_mut().zip(steps) {
        axis.steps[VALUE] = step.wrapping_mul(value.dtype.size() as i64);
    }
    Some(())
}

/// The launches of an action on the region that begins at `address`; none for an empty region. With `picked`, index lists say
/// where the elements lie. `None` if the kernels do not support that many dimensions, or the alignment.
pub fn plan(action: &RegionAction<'_>, address: u64, region: &Axes, picked: bool) -> Option<Steps> {
    let mut steps = Steps::new();
    if layout::is_empty(region) {
        return Some(steps);
    }
    let axes = layout::merge_sorted(region.iter().copied());
    if axes.len() > DIMS || !address.is_multiple_of(action.dtype.size() as u64) {
        return None;
    }
    let mut work = work(action, address)?;
    let one_dtype = action.common == action.dtype
        && action.value.is_none_or(|value| value.dtype == action.dtype);
    if picked || !one_dtype {
        work.path = Path::Any as u8;
        split(&work, Kernel::Any, &axes, &mut steps);
        return Some(steps);
    }
    let axes = layout::at_least_one(axes, action.dtype.size() as i64);
    if let Some(flat) = flat(work, &axes) {
        let kernel = Kernel::of(action.op, Path::Dense);
        steps.push(Step {
            kernel,
            work: flat,
            list_step: [0; DIMS],
        });
        return Some(steps);
    }
    let axes = in_units(&mut work, axes)?;
    split(
        &work,
        Kernel::of(action.op, Path::Strided),
        &axes,
        &mut steps,
    );
    Some(steps)
}

/// The work on memory at `address`, without its dimensions. `None` for a value that is not aligned for its dtype.
fn work(action: &RegionAction<'_>, address: u64) -> Option<Work> {
    let mut work = Work::empty(action.op, action.dtype);
    work.data = address;
    work.number = action.number;
    work.live = action.live;
    work.common = action.common as u8;
    if let Some(value) = &action.value {
        if !value.address.is_multiple_of(value.dtype.size() as u64) {
            return None;
        }
        work.value = value.address;
        work.value_dtype = value.dtype as u8;
    }
    Some(work)
}

/// Whether the elements of an axis are neighbours in memory, and those of the value too where there is one.
fn is_row(work: &Work, axis: &Axis<3>) -> bool {
    let element = i64::from(work.element);
    axis.steps[MEMORY] == element && (work.value == 0 || axis.steps[VALUE] == element)
}

/// The work on one row of neighbours, in units of 16 bytes, with single elements before the first unit and after the last one.
/// `None` for anything else, and if memory and value are aligned differently.
fn flat(mut work: Work, axes: &[Axis<3>]) -> Option<Work> {
    let [row] = axes else {
        return None;
    };
    let aligned_alike = work.value == 0 || work.value % 16 == work.data % 16;
    if !is_row(&work, row) || !aligned_alike {
        return None;
    }
    let (element, elements) = (u64::from(work.element), row.size as u64);
    let head = ((16 - work.data % 16) % 16 / element).min(elements);
    work.path = Path::Dense as u8;
    work.unit = 16;
    work.head = head as u32;
    work.units = (elements - head) * element / 16;
    work.tail = (elements - head - work.units * 16 / element) as u32;
    Some(work)
}

/// Counts the axes in the largest units that fit, and notes the unit in the work: 16 bytes if all rows of neighbours begin and
/// end at multiples of 16 bytes, else elements. `None` for elements of 16 bytes with a value that is not aligned to 16 bytes.
fn in_units(work: &mut Work, mut axes: Axes) -> Option<Axes> {
    let element = i64::from(work.element);
    let even = |n: i64| n % 16 == 0;
    let (inner, outer) = axes.split_last_mut()?;
    let wide = is_row(work, inner)
        && element < 16
        && (work.data | work.value).is_multiple_of(16)
        && even(inner.size * element)
        && outer
            .iter()
            .all(|axis| even(axis.steps[MEMORY]) && (work.value == 0 || even(axis.steps[VALUE])));
    if wide {
        work.unit = 16;
        inner.size = inner.size * element / 16;
        inner.steps[MEMORY] = 16;
        inner.steps[VALUE] = 16;
    } else if element < 16 || work.value.is_multiple_of(16) {
        work.unit = work.element;
    } else {
        return None;
    }
    Some(axes)
}

/// Pushes the work on these axes. The kernels count units in 32 bits: larger regions are cut along their outermost
/// dimensions.
fn split(work: &Work, kernel: Kernel, axes: &[Axis<3>], steps: &mut Steps) {
    const MOST: i64 = u32::MAX as i64;
    let units = |axes: &[Axis<3>]| {
        axes.iter()
            .fold(1i64, |n, axis| n.saturating_mul(axis.size))
    };
    if units(axes) <= MOST {
        steps.push(step(work, kernel, axes, units(axes)));
        return;
    }
    let outer = axes[0];
    let chunk = (MOST / units(&axes[1..])).clamp(1, outer.size);
    let mut from = 0;
    while from < outer.size {
        let size = chunk.min(outer.size - from);
        let mut part = *work;
        part.data = part.data.wrapping_add_signed(from * outer.steps[MEMORY]);
        if part.value != 0 {
            part.value = part.value.wrapping_add_signed(from * outer.steps[VALUE]);
        }
        let mut cut: Axes = axes.into();
        cut[0].size = size;
        if size == 1 {
            cut.remove(0);
        }
        split(&part, kernel, &cut, steps);
        from += size;
    }
}

/// The launch of a work with these dimensions.
fn step(work: &Work, kernel: Kernel, axes: &[Axis<3>], units: i64) -> Step {
    let mut work = *work;
    let mut list_step = [0; DIMS];
    work.units = units as u64;
    work.rank = axes.len() as u32;
    for (d, Axis { size, steps }) in axes.iter().enumerate() {
        work.dims[d] = Dim {
            size: *size,
            step: steps[MEMORY],
            value_step: steps[VALUE],
        };
        list_step[d] = steps[LISTS];
    }
    Step {
        kernel,
        work,
        list_step,
    }
}

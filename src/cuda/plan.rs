//! From a region and an action to the works that do it: merged dimensions, the unit, the path. Numbers only, no driver.

use smallvec::SmallVec;

use super::work::{DIMS, Dim, Kernel, Op, Path, Work, code};
use graphpatch_core::path::Region;
use graphpatch_core::tensor::Dtype;

/// One dimension of a region. Steps of memory in bytes, of index lists in entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Axis {
    pub size: i64,
    pub step: i64,
    pub value_step: i64,
    pub list_step: i64,
}

pub type Axes = SmallVec<[Axis; 8]>;

/// A tensor as a value, in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    pub address: u64,
    pub dtype: Dtype,
    pub sizes: &'a [i64],
    /// In elements; empty: row-major.
    pub strides: &'a [i64],
}

/// What is done to a region.
#[derive(Clone, Copy, Debug)]
pub struct Deed<'a> {
    pub op: Op,
    pub dtype: Dtype,
    /// In the form that the kernels take it.
    pub number: [u64; 2],
    /// Its place in device memory, or 0.
    pub live: u64,
    pub value: Option<Value<'a>>,
    /// An add with a tensor: the dtype that libtorch would add in.
    pub common: Dtype,
}

/// One launch to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub kernel: Kernel,
    pub work: Work,
    /// Of the axes that are left, for [`super::work::Picks`].
    pub list_step: [i64; DIMS],
}

pub type Steps = SmallVec<[Step; 1]>;

/// The axes of a region of elements of `size` bytes.
pub fn axes(region: &Region, size: usize) -> Axes {
    let pairs = region.sizes.iter().zip(&region.strides);
    pairs
        .map(|(n, stride)| Axis {
            size: *n,
            step: stride.wrapping_mul(size as i64),
            ..Axis::default()
        })
        .collect()
}

/// Gives the axes the value's steps, broadcast to them. `None` where libtorch would refuse.
pub fn broadcast(axes: &mut Axes, value: &Value<'_>, strip_ones: bool) -> Option<()> {
    let (mut sizes, mut strides) = (value.sizes, value.strides);
    // An assignment takes a value with more dimensions if the first ones are 1; an in-place sum does not.
    while strip_ones && sizes.len() > axes.len() && sizes[0] == 1 {
        sizes = &sizes[1..];
        strides = strides.get(1..).unwrap_or_default();
    }
    let missing = axes.len().checked_sub(sizes.len())?;
    let bytes = value.dtype.size() as i64;
    let mut dense = bytes;
    for (d, axis) in axes.iter_mut().enumerate().skip(missing).rev() {
        let size = sizes[d - missing];
        let step = strides
            .get(d - missing)
            .map_or(dense, |stride| stride * bytes);
        axis.value_step = match size {
            1 => 0,
            same if same == axis.size => step,
            _ => return None,
        };
        dense = dense.wrapping_mul(size);
    }
    Some(())
}

/// Merges neighbours in which all goes on evenly, smallest steps innermost.
fn merge(axes: &Axes) -> Axes {
    let mut sorted: Axes = axes.iter().copied().filter(|axis| axis.size != 1).collect();
    sorted.sort_by_key(|axis| std::cmp::Reverse(axis.step.unsigned_abs()));
    let mut merged = Axes::new();
    for axis in sorted {
        let goes_on = |outer: i64, inner: i64| outer == inner.wrapping_mul(axis.size);
        match merged.last_mut() {
            Some(outer)
                if goes_on(outer.step, axis.step)
                    && goes_on(outer.value_step, axis.value_step)
                    && goes_on(outer.list_step, axis.list_step) =>
            {
                *outer = Axis {
                    size: outer.size * axis.size,
                    ..axis
                };
            }
            _ => merged.push(axis),
        }
    }
    merged
}

/// The launches for a deed on the region that begins at `address`; none for an empty one. `picked`: index lists say
/// where else its elements lie. `None`: more dimensions, or another alignment, than the kernels know.
pub fn plan(deed: &Deed<'_>, address: u64, region: &Axes, picked: bool) -> Option<Steps> {
    let mut steps = Steps::new();
    if region.iter().any(|axis| axis.size == 0) {
        return Some(steps);
    }
    let mut axes = merge(region);
    let element = deed.dtype.size() as u64;
    if axes.len() > DIMS || !address.is_multiple_of(element) {
        return None;
    }
    let mut work = Work::empty(deed.op, deed.dtype);
    work.data = address;
    work.number = deed.number;
    work.live = deed.live;
    let mut plain = !picked;
    if let Some(value) = &deed.value {
        if !value.address.is_multiple_of(value.dtype.size() as u64) {
            return None;
        }
        work.value = value.address;
        work.value_dtype = code(value.dtype);
        plain &= value.dtype == deed.dtype;
    }
    if deed.op == Op::Add {
        work.common = code(deed.common);
        plain &= deed.common == deed.dtype;
    }
    if !plain {
        work.path = Path::Any as u8;
        split(&work, Kernel::Any, &axes, &mut steps);
        return Some(steps);
    }
    if axes.is_empty() {
        let (step, value_step) = (element as i64, element as i64);
        axes.push(Axis {
            size: 1,
            step,
            value_step,
            list_step: 0,
        });
    }
    let rows = |axis: &Axis| {
        axis.step == element as i64 && (work.value == 0 || axis.value_step == element as i64)
    };
    let inner = axes[axes.len() - 1];
    if axes.len() == 1
        && rows(&inner)
        && let Some(flat) = flat(work, inner.size as u64)
    {
        let kernel = Kernel::of(deed.op, Path::Dense);
        steps.push(Step {
            kernel,
            work: flat,
            list_step: [0; DIMS],
        });
        return Some(steps);
    }
    // Rows of neighbours that all begin and end at multiples of 16 bytes are walked in units of 16 bytes.
    let even = |n: i64| n % 16 == 0;
    let outer = &axes[..axes.len() - 1];
    if rows(&inner)
        && element < 16
        && (address | work.value).is_multiple_of(16)
        && even(inner.size * element as i64)
        && outer
            .iter()
            .all(|axis| even(axis.step) && (work.value == 0 || even(axis.value_step)))
    {
        work.unit = 16;
        let last = axes.len() - 1;
        axes[last].size = inner.size * element as i64 / 16;
        axes[last].step = 16;
        axes[last].value_step = 16;
    } else if element == 16 && work.value.is_multiple_of(16) || element < 16 {
        work.unit = element as u32;
    } else {
        return None;
    }
    split(&work, Kernel::of(deed.op, Path::Strided), &axes, &mut steps);
    Some(steps)
}

/// `elements` neighbours in units of 16 bytes; `None` if the value is aligned otherwise than the data.
fn flat(mut work: Work, elements: u64) -> Option<Work> {
    let element = u64::from(work.element);
    let head = ((16 - work.data % 16) % 16 / element).min(elements);
    if work.value != 0 && (work.value % 16) != work.data % 16 {
        return None;
    }
    work.path = Path::Dense as u8;
    work.unit = 16;
    work.head = head as u32;
    work.units = (elements - head) * element / 16;
    work.tail = (elements - head - work.units * 16 / element) as u32;
    Some(work)
}

/// The kernels count units in 32 bits: larger regions are cut along their outermost dimensions.
fn split(work: &Work, kernel: Kernel, axes: &[Axis], steps: &mut Steps) {
    const MOST: i64 = u32::MAX as i64;
    let units = axes
        .iter()
        .fold(1i64, |n, axis| n.saturating_mul(axis.size));
    if units <= MOST {
        let mut work = *work;
        let mut list_step = [0; DIMS];
        work.units = units as u64;
        work.rank = axes.len() as u32;
        for (d, axis) in axes.iter().enumerate() {
            let Axis {
                size,
                step,
                value_step,
                ..
            } = *axis;
            work.dims[d] = Dim {
                size,
                step,
                value_step,
            };
            list_step[d] = axis.list_step;
        }
        steps.push(Step {
            kernel,
            work,
            list_step,
        });
        return;
    }
    let (outer, rest) = (axes[0], &axes[1..]);
    let below = rest
        .iter()
        .fold(1i64, |n, axis| n.saturating_mul(axis.size));
    let chunk = (MOST / below).clamp(1, outer.size);
    let mut from = 0;
    while from < outer.size {
        let size = chunk.min(outer.size - from);
        let mut part = *work;
        part.data = part.data.wrapping_add_signed(from * outer.step);
        if part.value != 0 {
            part.value = part.value.wrapping_add_signed(from * outer.value_step);
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

//! Indexing by tensors: integer indices and masks as lists that a kernel walks. The lists do not depend on the value's
//! shape, so that they go to the device once. `None` in here is left to libtorch, which does it or says why not.

use smallvec::SmallVec;

use super::plan::{Axes, Axis};
use super::work::{DIMS, Picked};
use graphpatch_core::patch::action::Pick;
use graphpatch_core::path::Slice;
use graphpatch_core::path::slice::Item;
use graphpatch_core::tensor::{Dtype, HostTensor};

/// The index tensors of one patch, broadcast against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lists {
    /// Their common shape.
    shape: Vec<i64>,
    pub length: usize,
    /// One behind the other.
    pub entries: Vec<i64>,
    /// Smallest and largest entry of each list.
    bounds: Vec<(i64, i64)>,
    /// The index, an index tensor as many whole dimensions.
    slice: Slice,
    /// Where in the slice's items each list is, and the size that a mask asks for.
    at: Vec<(usize, Option<i64>)>,
    /// Whether no element is picked twice.
    pub unique: bool,
}

/// Where the picked elements of one tensor lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// In elements.
    pub offset: i64,
    pub axes: Axes,
    pub picked: [Picked; DIMS],
    pub count: usize,
}

struct List {
    shape: Vec<i64>,
    entries: Vec<i64>,
    mask: Option<i64>,
}

/// The lists of one index tensor: several for a mask of several dimensions.
fn lists_of(tensor: &HostTensor) -> Option<Vec<List>> {
    let shape = tensor.shape();
    let bytes = tensor.bytes();
    let mask = match tensor.dtype() {
        Dtype::I64 => false,
        Dtype::I32 => false,
        Dtype::Bool | Dtype::U8 => true,
        _ => return None,
    };
    if !mask {
        let entries = match tensor.dtype() {
            Dtype::I64 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| i64::from_ne_bytes(*b))
                .collect(),
            _ => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| i32::from_ne_bytes(*b).into())
                .collect(),
        };
        return Some(vec![List {
            shape: shape.to_vec(),
            entries,
            mask: None,
        }]);
    }
    if shape.is_empty() {
        return None;
    }
    let hits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut step: usize = bytes.len();
    let lists = shape.iter().map(|size| {
        step /= (*size).max(1) as usize;
        let coordinate = |hit: &usize| (hit / step.max(1)) as i64 % size.max(&1);
        List {
            shape: vec![hits.len() as i64],
            entries: hits.iter().map(coordinate).collect(),
            mask: Some(*size),
        }
    });
    Some(lists.collect())
}

/// The shape that both broadcast to.
fn common(a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    let rank = a.len().max(b.len());
    let size = |shape: &[i64], d: usize| {
        (d + shape.len())
            .checked_sub(rank)
            .map_or(1, |at| shape[at])
    };
    (0..rank)
        .map(|d| match (size(a, d), size(b, d)) {
            (x, 1) => Some(x),
            (1, y) => Some(y),
            (x, y) => (x == y).then_some(x),
        })
        .collect()
}

/// A list's entries, broadcast to `shape`.
fn spread(list: &List, shape: &[i64], length: usize) -> Vec<i64> {
    let missing = shape.len() - list.shape.len();
    let mut out = Vec::with_capacity(length);
    for position in 0..length {
        let (mut rest, mut step, mut at) = (position, 1usize, 0usize);
        for d in (0..shape.len()).rev() {
            let here = rest % shape[d] as usize;
            rest /= shape[d] as usize;
            if d >= missing {
                let size = list.shape[d - missing] as usize;
                at += if size == 1 { 0 } else { here * step };
                step *= size;
            }
        }
        out.push(list.entries[at]);
    }
    out
}

impl Lists {
    pub fn new(picks: &[Pick]) -> Option<Lists> {
        let (mut items, mut lists) = (Vec::new(), Vec::new());
        let whole = Item::Range {
            start: None,
            stop: None,
            step: None,
        };
        for pick in picks {
            match pick {
                Pick::Item(item) => items.push(*item),
                // A tensor without dimensions is an index like any other.
                Pick::Tensor(tensor) => {
                    for list in lists_of(tensor)? {
                        if list.shape.is_empty() {
                            items.push(Item::Index(*list.entries.first()?));
                        } else {
                            lists.push((items.len(), list));
                            items.push(whole);
                        }
                    }
                }
            }
        }
        if lists.is_empty() || lists.len() > DIMS {
            return None;
        }
        let mut shape = Vec::new();
        for (_, list) in &lists {
            shape = common(&shape, &list.shape)?;
        }
        let length = shape.iter().product::<i64>() as usize;
        let spreads: Vec<Vec<i64>> = lists
            .iter()
            .map(|(_, list)| spread(list, &shape, length))
            .collect();
        let bound = |list: &Vec<i64>| {
            (
                list.iter().copied().min().unwrap_or(0),
                list.iter().copied().max().unwrap_or(-1),
            )
        };
        let bounds: Vec<(i64, i64)> = spreads.iter().map(bound).collect();
        // -1 and size - 1 are one element.
        let mixed = bounds.iter().any(|(low, high)| *low < 0 && *high >= 0);
        let mut tuples: Vec<SmallVec<[i64; 4]>> = (0..length)
            .map(|at| spreads.iter().map(|list| list[at]).collect())
            .collect();
        tuples.sort_unstable();
        let unique = !mixed && tuples.windows(2).all(|pair| pair[0] != pair[1]);
        Some(Lists {
            shape,
            length,
            entries: spreads.concat(),
            bounds,
            slice: Slice(items),
            at: lists
                .into_iter()
                .map(|(at, list)| (at, list.mask))
                .collect(),
            unique,
        })
    }

    /// Which dimension of the sliced tensor each item of the slice is.
    fn dimension(&self, item: usize, rank: usize) -> usize {
        let uses_dim = |item: &&Item| matches!(item, Item::Index(_) | Item::Range { .. });
        let mut left = rank.saturating_sub(self.slice.0.iter().filter(uses_dim).count());
        let before = self.slice.0[..item].iter().map(|item| match item {
            Item::Index(_) => 0,
            Item::Range { .. } | Item::NewAxis => 1,
            Item::Ellipsis => std::mem::take(&mut left),
        });
        before.sum()
    }

    /// The picked elements of a tensor of these sizes and strides, with elements of `size` bytes.
    pub fn place(&self, sizes: &[i64], strides: &[i64], size: usize) -> Option<Place> {
        let region = self.slice.region(sizes, strides).ok()?;
        let mut axes = super::plan::axes(&region, size);
        let mut picked = [Picked::default(); DIMS];
        let mut taken: SmallVec<[usize; 8]> = SmallVec::new();
        for (k, (item, mask)) in self.at.iter().enumerate() {
            let d = self.dimension(*item, sizes.len());
            let axis = axes.get(d)?;
            let (low, high) = self.bounds[k];
            if mask.is_some_and(|size| size != axis.size) || low < -axis.size || high >= axis.size {
                return None;
            }
            picked[k] = Picked {
                size: axis.size,
                step: axis.step,
            };
            taken.push(d);
        }
        // The lists' dimensions stand where the indexed ones were, or in front if these were not neighbours.
        let neighbours = taken.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let at = if neighbours { taken[0] } else { 0 };
        for d in taken.iter().rev() {
            axes.remove(*d);
        }
        let mut step = self.length as i64;
        for (n, size) in self.shape.iter().enumerate() {
            step /= size.max(&1);
            axes.insert(
                at + n,
                Axis {
                    size: *size,
                    list_step: step,
                    ..Axis::default()
                },
            );
        }
        Some(Place {
            offset: region.offset,
            axes,
            picked,
            count: self.at.len(),
        })
    }
}

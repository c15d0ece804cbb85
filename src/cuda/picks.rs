//! Indexing by tensors: integer indices and masks as lists that a kernel walks. The lists do not depend on the value's shape,
//! so they are uploaded once. Where a function here answers `None`, the index is left to libtorch, which applies it or says why
//! it cannot.

use smallvec::SmallVec;

use super::plan::{self, Axes, LISTS, MEMORY};
use super::work::{DIMS, Picked};
use graphpatch_core::layout::{self, Axis, Dims, LeadingOnes};
use graphpatch_core::patch::action::Pick;
use graphpatch_core::path::{Item, Slice};
use graphpatch_core::tensor::{Dtype, HostTensor};

/// The index tensors of one patch, broadcast against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lists {
    /// The shape that all lists have.
    shape: Dims,
    pub length: usize,
    /// The entries of all lists, one list after the other.
    pub entries: Vec<i64>,
    /// Smallest and largest entry of each list.
    bounds: Vec<(i64, i64)>,
    /// The index as a slice, in which each list has an item that takes a whole dimension.
    slice: Slice,
    /// For each list, the number of its item in the slice and, for a mask, the size that the dimension must have.
    items: Vec<(usize, Option<i64>)>,
    /// Whether no element is picked twice.
    pub unique: bool,
}

/// Where the picked elements of one tensor lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickedRegion {
    /// In elements.
    pub offset: i64,
    pub axes: Axes,
    pub picked: [Picked; DIMS],
    pub count: usize,
}

/// The entries of one index tensor, or of one dimension of a mask.
struct List {
    shape: Dims,
    entries: Vec<i64>,
    /// The size of the mask's dimension.
    mask: Option<i64>,
}

/// The lists of one index tensor: one for integers, and one for each dimension of a mask.
fn lists_of(tensor: &HostTensor) -> Option<Vec<List>> {
    let bytes = tensor.bytes();
    let entries = match tensor.dtype() {
        Dtype::I64 => words(bytes, i64::from_ne_bytes),
        Dtype::I32 => words(bytes, |word| i32::from_ne_bytes(word).into()),
        Dtype::Bool | Dtype::U8 => return mask_lists(tensor),
        _ => return None,
    };
    Some(vec![List {
        shape: tensor.shape().into(),
        entries,
        mask: None,
    }])
}

fn words<const SIZE: usize>(bytes: &[u8], read: fn([u8; SIZE]) -> i64) -> Vec<i64> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| read(*word)).collect()
}

/// The lists of a mask: the coordinates of its set elements, one list for each of its dimensions.
fn mask_lists(mask: &HostTensor) -> Option<Vec<List>> {
    let shape = mask.shape();
    if shape.is_empty() {
        return None;
    }
    let bytes = mask.bytes();
    let hits: Vec<Dims> = (0..bytes.len())
        .filter(|at| bytes[*at] != 0)
        .map(|at| layout::coordinates(at as i64, shape))
        .collect();
    let lists = shape.iter().enumerate().map(|(d, size)| List {
        shape: SmallVec::from_slice(&[hits.len() as i64]),
        entries: hits.iter().map(|hit| hit[d]).collect(),
        mask: Some(*size),
    });
    Some(lists.collect())
}

impl List {
    /// The entries, broadcast to `shape`.
    fn spread(&self, shape: &[i64]) -> Option<Vec<i64>> {
        let steps = layout::broadcast(shape, &self.shape, None, LeadingOnes::Refused)?;
        let mut out = Vec::new();
        layout::walk(&layout::axes(shape, &steps), |[at]| {
            out.extend(self.entries.get(at as usize));
        });
        Some(out)
    }
}

/// Lists, each with the number of its item in the slice.
type Numbered = Vec<(usize, List)>;

/// The index as a slice that takes a whole dimension for each list, and the lists.
fn items_and_lists(picks: &[Pick]) -> Option<(Vec<Item>, Numbered)> {
    const WHOLE: Item = Item::Range {
        start: None,
        stop: None,
        step: None,
    };
    let (mut items, mut lists) = (Vec::new(), Numbered::new());
    for pick in picks {
        let tensor = match pick {
            Pick::Tensor(tensor) => tensor,
            Pick::Item(item) => {
                items.push(*item);
                continue;
            }
        };
        for list in lists_of(tensor)? {
            // A tensor without dimensions is an index like any other.
            if list.shape.is_empty() {
                items.push(Item::Index(*list.entries.first()?));
            } else {
                lists.push((items.len(), list));
                items.push(WHOLE);
            }
        }
    }
    Some((items, lists))
}

/// Whether no element is picked twice by these lists.
fn is_unique(lists: &[Vec<i64>], bounds: &[(i64, i64)], length: usize) -> bool {
    // -1 and size - 1 are the same element, but the size is not known here, so lists with both kinds of entries are not unique.
    if bounds.iter().any(|(low, high)| *low < 0 && *high >= 0) {
        return false;
    }
    let mut tuples: Vec<SmallVec<[i64; 4]>> = (0..length)
        .map(|at| lists.iter().map(|list| list[at]).collect())
        .collect();
    tuples.sort_unstable();
    tuples.windows(2).all(|pair| pair[0] != pair[1])
}

impl Lists {
    /// The lists of an index. `None` also for an index without tensors.
    pub fn new(picks: &[Pick]) -> Option<Lists> {
        let (items, lists) = items_and_lists(picks)?;
        if lists.is_empty() || lists.len() > DIMS {
            return None;
        }
        let mut shape = Dims::new();
        for (_, list) in &lists {
            shape = layout::common_shape(&shape, &list.shape)?;
        }
        let length = shape.iter().product::<i64>();
        // Kernels count in 32 bits, and a list is never split over several launches.
        let length = u32::try_from(length).ok()? as usize;
        let spread: Vec<Vec<i64>> = lists
            .iter()
            .map(|(_, list)| list.spread(&shape))
            .collect::<Option<_>>()?;
        let bound = |list: &Vec<i64>| {
            let (low, high) = (list.iter().min(), list.iter().max());
            low.copied().zip(high.copied()).unwrap_or((0, -1))
        };
        let bounds: Vec<(i64, i64)> = spread.iter().map(bound).collect();
        let numbers = lists.iter().map(|(item, list)| (*item, list.mask));
        Some(Lists {
            unique: is_unique(&spread, &bounds, length),
            items: numbers.collect(),
            entries: spread.concat(),
            slice: Slice(items),
            shape,
            length,
            bounds,
        })
    }

    /// The picked elements of a tensor of these sizes and strides, with elements of `size` bytes.
    pub fn region(&self, sizes: &[i64], strides: &[i64], size: usize) -> Option<PickedRegion> {
        let selection = self.slice.select(sizes, strides).ok()?;
        let region = selection.region();
        let mut axes = plan::axes(&region, size);
        let mut picked = [Picked::default(); DIMS];
        let mut taken: SmallVec<[usize; 8]> = SmallVec::new();
        for (k, (item, mask)) in self.items.iter().enumerate() {
            let d = selection.dimension(*item)?;
            let axis = axes.get(d)?;
            let (low, high) = self.bounds[k];
            if mask.is_some_and(|size| size != axis.size) || low < -axis.size || high >= axis.size {
                return None;
            }
            picked[k] = Picked {
                size: axis.size,
                step: axis.steps[MEMORY],
            };
            taken.push(d);
        }
        // The lists' dimensions stand where the indexed dimensions were or, if these were not neighbours, in front.
        let neighbours = taken.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let at = if neighbours { taken[0] } else { 0 };
        for d in taken.iter().rev() {
            axes.remove(*d);
        }
        let list_steps = layout::dense_strides(&self.shape);
        for (n, (size, step)) in self.shape.iter().zip(list_steps).enumerate() {
            let mut steps = [0; 3];
            steps[LISTS] = step;
            axes.insert(at + n, Axis { size: *size, steps });
        }
        Some(PickedRegion {
            offset: region.offset,
            axes,
            picked,
            count: self.items.len(),
        })
    }
}

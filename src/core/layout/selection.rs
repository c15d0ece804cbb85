//! What a slice selects of a tensor's dimensions, and the strided region of memory that this is.

use smallvec::SmallVec;

use super::{Axes, Dims, IndexRange, axes};
use crate::error::Error;
use crate::path::{Item, Slice};

/// A strided part of a tensor, in elements; `offset` counts from the tensor's own first element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    pub offset: i64,
    pub sizes: Dims,
    pub strides: Dims,
}

impl Region {
    /// How many elements the region has.
    pub fn numel(&self) -> i64 {
        self.sizes.iter().fold(1, |n, size| n.wrapping_mul(*size))
    }

    /// The region's dimensions.
    pub fn axes(&self) -> Axes<1> {
        axes(&self.sizes, &self.strides)
    }
}

/// What is taken of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// One index of a dimension of the tensor, which the result does not have any more.
    Index(IndexRange),
    /// Indices of a dimension of the tensor.
    Range(IndexRange),
    /// Nothing: a dimension of size 1 that the tensor does not have.
    NewAxis,
}

/// A slice of a tensor of known sizes and strides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub(super) sizes: Dims,
    pub(super) strides: Dims,
    selected: List,
}

/// What is selected, in the order of dimensions, each with the number of the slice's item that selects it. The number is `None`
/// for a dimension that an ellipsis stands for, or that comes after the last item.
type List = SmallVec<[(Option<usize>, Selected); 8]>;

impl Slice {
    /// The region that `tensor[self]` is of a tensor of these sizes and strides: the offset, sizes and strides that
    /// PyTorch's view has.
    ///
    /// # Errors
    ///
    /// [`Error::Slice`] where the slice does not fit.
    pub fn region(&self, sizes: &[i64], strides: &[i64]) -> Result<Region, Error> {
        Ok(self.select(sizes, strides)?.region())
    }

    /// What `tensor[self]` takes of each dimension of a tensor of these sizes and strides.
    ///
    /// An ellipsis stands for the dimensions which the other items leave, and, as in PyTorch, a second one is accepted where
    /// nothing behind it needs a dimension (where something does, PyTorch reads a size past the end of the shape; here that
    /// is refused).
    ///
    /// # Errors
    ///
    /// [`Error::Slice`] where the slice does not fit.
    pub fn select(&self, sizes: &[i64], strides: &[i64]) -> Result<Selection, Error> {
        let fail = |why: String| Error::Slice {
            slice: self.to_string(),
            shape: sizes.to_vec(),
            why,
        };
        if sizes.len() != strides.len() {
            return Err(fail(format!(
                "{} strides were given for {} sizes",
                strides.len(),
                sizes.len()
            )));
        }
        Ok(Selection {
            sizes: sizes.into(),
            strides: strides.into(),
            selected: selected(&self.0, sizes).map_err(fail)?,
        })
    }
}

/// What the items take of each dimension; the error says why they do not fit.
fn selected(items: &[Item], sizes: &[i64]) -> Result<List, String> {
    let uses_dim = |item: &&Item| matches!(item, Item::Index(_) | Item::Range { .. });
    let named = items.iter().filter(uses_dim).count();
    let rank = sizes.len();
    let Some(unnamed) = rank.checked_sub(named) else {
        return Err(format!("too many indices for tensor of dimension {rank}"));
    };
    let mut out = List::new();
    // The tensor's dimension that comes next; beyond the last one after a second ellipsis.
    let mut next = 0;
    for (number, item) in items.iter().enumerate() {
        let past_the_end = match item {
            Item::Index(_) | Item::Range { .. } => next >= rank,
            Item::NewAxis => next > rank,
            Item::Ellipsis => false,
        };
        if past_the_end {
            return Err("too many ellipses: no dimension is left behind the last one".to_owned());
        }
        let taken = match *item {
            Item::Index(index) => {
                let size = sizes[next];
                let one = IndexRange::one(index, size).ok_or_else(|| {
                    format!("index {index} is out of bounds for dimension {next} with size {size}")
                })?;
                Selected::Index(one)
            }
            Item::Range { start, stop, step } => Selected::Range(
                IndexRange::clamped(start, stop, step, sizes[next])
                    .ok_or("step must be greater than zero")?,
            ),
            Item::NewAxis => Selected::NewAxis,
            Item::Ellipsis => {
                let covered = sizes.iter().skip(next).take(unnamed);
                out.extend(covered.map(|size| (None, Selected::Range(IndexRange::whole(*size)))));
                next += unnamed;
                continue;
            }
        };
        next += usize::from(taken != Selected::NewAxis);
        out.push((Some(number), taken));
    }
    let rest = sizes.iter().skip(next);
    out.extend(rest.map(|size| (None, Selected::Range(IndexRange::whole(*size)))));
    Ok(out)
}

impl Selection {
    /// The memory that is selected.
    pub fn region(&self) -> Region {
        let mut region = Region {
            offset: 0,
            sizes: Dims::new(),
            strides: Dims::new(),
        };
        let mut dims = self.sizes.iter().zip(&self.strides).peekable();
        for (_, selected) in &self.selected {
            let indices = match selected {
                Selected::NewAxis => {
                    // PyTorch's unsqueeze gives it the stride of a dimension around the next one.
                    let stride = dims.peek().map_or(1, |(n, step)| n.wrapping_mul(**step));
                    region.sizes.push(1);
                    region.strides.push(stride);
                    continue;
                }
                Selected::Index(indices) | Selected::Range(indices) => indices,
            };
            let stride = dims.next().map_or(0, |(_, stride)| *stride);
            region.offset = region
                .offset
                .wrapping_add(indices.start.wrapping_mul(stride));
            if matches!(selected, Selected::Range(_)) {
                region.sizes.push(indices.len);
                region.strides.push(stride.wrapping_mul(indices.step));
            }
        }
        region
    }

    /// The indices that are taken of each of the tensor's own dimensions.
    pub fn indices(&self) -> impl Iterator<Item = IndexRange> {
        self.selected
            .iter()
            .filter_map(|(_, selected)| match selected {
                Selected::Index(indices) | Selected::Range(indices) => Some(*indices),
                Selected::NewAxis => None,
            })
    }

    /// The result's dimension that item number `item` of the slice stands for. `None` where it stands for none.
    pub fn dimension(&self, item: usize) -> Option<usize> {
        let mut dims = self
            .selected
            .iter()
            .filter(|(_, selected)| !matches!(selected, Selected::Index(_)));
        dims.position(|(by, _)| *by == Some(item))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{dense_strides, walk};
    use super::*;
    use crate::path::slice::tests::any_item;
    use proptest::prelude::*;

    fn region(text: &str, sizes: &[i64]) -> Result<Region, Error> {
        text.parse::<Slice>()
            .unwrap()
            .region(sizes, &dense_strides(sizes))
    }

    fn why(text: &str, sizes: &[i64]) -> String {
        match region(text, sizes) {
            Err(Error::Slice { why, .. }) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Offset, shape and stride as torch 2.11 has them for `torch.empty(2, 3, 4)[slice]`. (600 random slices of random
    /// strided tensors were compared once by script: the same views, and the same ones refused.)
    #[test]
    fn same_views_as_torch() {
        for (text, offset, sizes, strides) in [
            ("", 0, &[2, 3, 4][..], &[12, 4, 1][..]),
            ("[...]", 0, &[2, 3, 4], &[12, 4, 1]),
            ("[..., ...]", 0, &[2, 3, 4], &[12, 4, 1]),
            ("[None, ..., None]", 0, &[1, 2, 3, 4, 1], &[24, 12, 4, 1, 1]),
            ("[5:]", 24, &[0, 3, 4], &[12, 4, 1]),
            ("[1:0]", 12, &[0, 3, 4], &[12, 4, 1]),
            ("[1:, None, 7:]", 24, &[1, 1, 0, 4], &[12, 12, 4, 1]),
            ("[:, None, None, 1]", 4, &[2, 1, 1, 4], &[12, 12, 12, 1]),
            ("[..., None, 0]", 0, &[2, 3, 1], &[12, 4, 4]),
            ("[-1, ..., ::2]", 12, &[3, 2], &[4, 2]),
        ] {
            let found = region(text, &[2, 3, 4]).unwrap();
            assert_eq!(
                (found.offset, &*found.sizes, &*found.strides),
                (offset, sizes, strides),
                "{text}"
            );
        }
        assert_eq!(&*region("[None, None]", &[]).unwrap().sizes, &[1, 1]);
    }

    /// With torch's words, but counting the tensor's own dimensions, where torch counts items.
    #[test]
    fn refuses_as_torch_does() {
        let shape = [2, 3, 4];
        assert_eq!(
            why("[0, 5]", &shape),
            "index 5 is out of bounds for dimension 1 with size 3"
        );
        assert_eq!(
            why("[..., -5]", &shape),
            "index -5 is out of bounds for dimension 2 with size 4"
        );
        assert_eq!(
            why("[None, 7]", &shape),
            "index 7 is out of bounds for dimension 0 with size 2"
        );
        assert_eq!(
            why("[0, 0, 0, 0]", &shape),
            "too many indices for tensor of dimension 3"
        );
        assert_eq!(
            why("[0]", &[]),
            "too many indices for tensor of dimension 0"
        );
        assert_eq!(
            why("[0]", &[0]),
            "index 0 is out of bounds for dimension 0 with size 0"
        );
        assert!(why("[..., 0, ..., 1:]", &shape).starts_with("too many ellipses"));
        assert!(why("[..., ..., None]", &shape).starts_with("too many ellipses"));
        let step = Slice(vec![Item::Range {
            start: None,
            stop: None,
            step: Some(-1),
        }]);
        assert!(step.region(&shape, &dense_strides(&shape)).is_err());
        assert!(Slice::whole().region(&shape, &[1]).is_err());
    }

    /// The indices that one item takes of a dimension, by counting.
    fn taken(item: Option<&Item>, size: i64) -> Option<Vec<i64>> {
        match item {
            Some(Item::Index(i)) => (0..size)
                .find(|n| n == i || n - size == *i)
                .map(|n| vec![n]),
            Some(Item::Range { start, stop, step }) => {
                let from = start.map_or(0, |n| if n < 0 { n + size } else { n });
                let to = stop.map_or(size, |n| if n < 0 { n + size } else { n });
                let from = from.max(0);
                Some(
                    (0..size)
                        .filter(|n| *n >= from && *n < to && (n - from) % step.unwrap_or(1) == 0)
                        .collect(),
                )
            }
            _ => Some((0..size).collect()),
        }
    }

    /// The elements that a slice with at most one ellipsis takes, in order.
    fn naive(slice: &Slice, sizes: &[i64], strides: &[i64]) -> Option<Vec<i64>> {
        let items: Vec<&Item> = slice.0.iter().filter(|i| **i != Item::NewAxis).collect();
        let hole = items
            .iter()
            .position(|i| **i == Item::Ellipsis)
            .unwrap_or(items.len());
        let behind: Vec<&Item> = items.iter().skip(hole + 1).copied().collect();
        let rank = sizes.len();
        if hole + behind.len() > rank {
            return None;
        }
        let mut offsets = vec![0];
        for d in 0..rank {
            let item = if d < hole {
                Some(items[d])
            } else {
                (d + behind.len()).checked_sub(rank).map(|i| behind[i])
            };
            let indices = taken(item, sizes[d])?;
            offsets = offsets
                .iter()
                .flat_map(|o| indices.iter().map(move |i| o + i * strides[d]))
                .collect();
        }
        Some(offsets)
    }

    fn elements(region: &Region) -> Vec<i64> {
        let mut offsets = Vec::new();
        walk(&region.axes(), |[at]| offsets.push(region.offset + at));
        offsets
    }

    #[test]
    fn items_know_their_dimensions() {
        let slice: Slice = "[None, 1, ..., ::2, None]".parse().unwrap();
        let selection = slice.select(&[2, 3, 4, 5], &[60, 20, 5, 1]).unwrap();
        let dims: Vec<_> = (0..6).map(|item| selection.dimension(item)).collect();
        assert_eq!(dims, [Some(0), None, None, Some(3), Some(4), None]);
        assert_eq!(&*selection.region().sizes, &[1, 3, 4, 3, 1]);
        let lens: Vec<i64> = selection.indices().map(|indices| indices.len).collect();
        assert_eq!(lens, [1, 3, 4, 3]);
    }

    proptest! {
        #[test]
        fn region_is_the_naive_one(
            dims in prop::collection::vec((0..5i64, -3..30i64), 0..4),
            items in prop::collection::vec(any_item(), 0..6),
        ) {
            let (sizes, strides): (Vec<_>, Vec<_>) = dims.into_iter().unzip();
            let slice = Slice(items);
            prop_assume!(slice.0.iter().filter(|i| **i == Item::Ellipsis).count() < 2);
            let found = slice.region(&sizes, &strides).ok().map(|r| elements(&r));
            prop_assert_eq!(found, naive(&slice, &sizes, &strides));
        }

        #[test]
        fn no_slice_panics(
            sizes in prop::collection::vec(0..i64::MAX, 0..4),
            start in any::<Option<i64>>(), stop in any::<Option<i64>>(), step in any::<Option<i64>>(), index in any::<i64>(),
        ) {
            let strides = vec![i64::MAX; sizes.len()];
            let slice = Slice(vec![Item::NewAxis, Item::Range { start, stop, step }, Item::Ellipsis, Item::Index(index), Item::Ellipsis]);
            let _ = slice.region(&sizes, &strides);
        }
    }
}

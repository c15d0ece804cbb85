//! What a slice selects of one strided tensor.

use smallvec::SmallVec;

use super::slice::{Item, Slice};
use crate::error::Error;

/// A strided part of a tensor, in elements; `offset` counts from the tensor's own first element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    pub offset: i64,
    pub sizes: SmallVec<[i64; 8]>,
    pub strides: SmallVec<[i64; 8]>,
}

impl Region {
    /// How many elements the region has.
    pub fn numel(&self) -> i64 {
        self.sizes.iter().fold(1, |n, size| n.wrapping_mul(*size))
    }
}

impl Slice {
    /// The region that `tensor[self]` is of a tensor of these sizes and strides.
    ///
    /// Offset, sizes and strides are those that PyTorch's view has. An ellipsis stands for the dimensions which the
    /// other items leave, and, as in PyTorch, a second one is accepted where nothing behind it needs a dimension (where
    /// something does, PyTorch reads a size past the end of the shape; here that is refused).
    pub fn region(&self, sizes: &[i64], strides: &[i64]) -> Result<Region, Error> {
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
        let uses_dim = |item: &&Item| matches!(item, Item::Index(_) | Item::Range { .. });
        let specified = self.0.iter().filter(uses_dim).count();
        let Some(left) = sizes.len().checked_sub(specified) else {
            return Err(fail(format!(
                "too many indices for tensor of dimension {}",
                sizes.len()
            )));
        };
        let mut region = Region {
            offset: 0,
            sizes: sizes.into(),
            strides: strides.into(),
        };
        // `at` is the dimension of the result that the next item stands for, `of` the tensor's own.
        let (mut at, mut of) = (0, 0);
        for item in &self.0 {
            let rank = region.sizes.len();
            let needed = if *item == Item::NewAxis { at } else { at + 1 };
            if *item != Item::Ellipsis && needed > rank {
                return Err(fail(
                    "too many ellipses: no dimension is left behind the last one".to_owned(),
                ));
            }
            match *item {
                Item::Index(index) => {
                    let (size, stride) = (region.sizes.remove(at), region.strides.remove(at));
                    let positive = if index < 0 {
                        index.saturating_add(size)
                    } else {
                        index
                    };
                    if !(0..size).contains(&positive) {
                        return Err(fail(format!(
                            "index {index} is out of bounds for dimension {of} with size {size}"
                        )));
                    }
                    region.offset = region.offset.wrapping_add(positive.wrapping_mul(stride));
                    of += 1;
                }
                Item::Range { start, stop, step } => {
                    let step = step.unwrap_or(1);
                    if step <= 0 {
                        return Err(fail("step must be greater than zero".to_owned()));
                    }
                    let size = region.sizes[at];
                    let clamp = |n: i64| {
                        if n < 0 {
                            n.saturating_add(size).max(0)
                        } else {
                            n.min(size)
                        }
                    };
                    let start = start.map_or(0, clamp);
                    let length = stop.map_or(size, clamp).saturating_sub(start);
                    region.sizes[at] = if length > 0 {
                        1 + (length - 1) / step
                    } else {
                        0
                    };
                    region.offset = region
                        .offset
                        .wrapping_add(start.wrapping_mul(region.strides[at]));
                    region.strides[at] = region.strides[at].wrapping_mul(step);
                    at += 1;
                    of += 1;
                }
                Item::Ellipsis => {
                    at += left;
                    of += left;
                }
                Item::NewAxis => {
                    let stride = if at < rank {
                        region.sizes[at].wrapping_mul(region.strides[at])
                    } else {
                        1
                    };
                    region.sizes.insert(at, 1);
                    region.strides.insert(at, stride);
                    at += 1;
                }
            }
        }
        Ok(region)
    }
}

#[cfg(test)]
mod tests {
    use super::super::slice::tests::any_item;
    use super::*;
    use proptest::prelude::*;

    fn contiguous(sizes: &[i64]) -> Vec<i64> {
        let mut strides = vec![1; sizes.len()];
        for d in (1..sizes.len()).rev() {
            strides[d - 1] = strides[d] * sizes[d].max(1);
        }
        strides
    }

    fn region(text: &str, sizes: &[i64]) -> Result<Region, Error> {
        text.parse::<Slice>()
            .unwrap()
            .region(sizes, &contiguous(sizes))
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
        assert!(step.region(&shape, &contiguous(&shape)).is_err());
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
        let mut offsets = vec![region.offset];
        for (size, stride) in region.sizes.iter().zip(&region.strides) {
            offsets = offsets
                .iter()
                .flat_map(|o| (0..*size).map(move |i| o + i * stride))
                .collect();
        }
        offsets
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

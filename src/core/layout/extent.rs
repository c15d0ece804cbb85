//! Which part of a tensor is touched, in just enough detail to prove that two parts have no element in common.

use smallvec::SmallVec;

use super::{Dims, IndexRange, Selection};

/// What part of one tensor is touched. The tensor's elements do not share memory with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    address: u64,
    sizes: Dims,
    strides: Dims,
    indices: SmallVec<[IndexRange; 8]>,
}

impl Extent {
    /// The selected part of the tensor that begins at `address`.
    pub fn new(address: u64, selection: &Selection) -> Extent {
        Extent {
            address,
            sizes: selection.sizes.clone(),
            strides: selection.strides.clone(),
            indices: selection.indices().collect(),
        }
    }

    /// Whether the two parts certainly have no element in common. False for parts of different tensors, since these may share
    /// memory.
    pub fn misses(&self, other: &Extent) -> bool {
        let same = self.address == other.address
            && self.sizes == other.sizes
            && self.strides == other.strides;
        let mut pairs = self.indices.iter().zip(&other.indices);
        same && pairs.any(|(a, b)| a.misses(*b))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{dense_strides, walk};
    use super::*;
    use crate::path::slice::tests::any_item;
    use crate::path::{Item, Slice};
    use proptest::prelude::*;

    fn extent(sizes: &[i64], slice: &str) -> Extent {
        let slice: Slice = slice.parse().unwrap();
        let strides = dense_strides(sizes);
        Extent::new(4096, &slice.select(sizes, &strides).unwrap())
    }

    #[test]
    fn columns_and_heads_do_not_meet() {
        for (a, b, misses) in [
            ("[..., 0]", "[..., 1]", true),
            ("[..., :2]", "[..., 2:]", true),
            ("[..., ::2]", "[..., 1::2]", true),
            ("[..., ::2]", "[..., 2::4]", false),
            ("[0]", "[1, ..., 3]", true),
            ("", "[1]", false),
            ("[..., -1]", "[:, None, 2]", false),
            ("[1:1]", "", true),
            ("[..., -1]", "[0, 0, 3]", false),
        ] {
            let sizes = [2, 3, 4];
            assert_eq!(
                extent(&sizes, a).misses(&extent(&sizes, b)),
                misses,
                "{a} {b}"
            );
        }
    }

    #[test]
    fn nothing_is_said_of_two_tensors() {
        let (a, b) = (extent(&[2, 6], "[0]"), extent(&[4, 3], "[1]"));
        assert!(!a.misses(&b));
        assert!(a.misses(&extent(&[2, 6], "[1]")));
    }

    proptest! {
        #[test]
        fn never_says_apart_of_what_meets(
            sizes in prop::collection::vec(1..5i64, 1..4),
            a in prop::collection::vec(any_item(), 0..4), b in prop::collection::vec(any_item(), 0..4),
        ) {
            let strides = dense_strides(&sizes);
            let part = |items: Vec<Item>| Slice(items).select(&sizes, &strides).ok();
            let Some((a, b)) = part(a).zip(part(b)) else { return Ok(()) };
            let elements = |selection: &Selection| {
                let region = selection.region();
                let mut found = Vec::new();
                walk(&region.axes(), |[at]| found.push(region.offset + at));
                found
            };
            let others = elements(&b);
            let meet = elements(&a).iter().any(|at| others.contains(at));
            prop_assert!(!(meet && Extent::new(0, &a).misses(&Extent::new(0, &b))));
        }
    }
}

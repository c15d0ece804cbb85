//! Which memory a patch touches, as far as it takes to know that two patches do not touch the same.

use smallvec::SmallVec;

use graphpatch_core::path::Slice;
use graphpatch_core::path::slice::Item;

/// Indices `start, start + step, …`, `len` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: i64,
    step: i64,
    len: i64,
}

impl Range {
    fn last(self) -> i64 {
        self.start + (self.len - 1) * self.step
    }

    fn misses(self, other: Range) -> bool {
        let apart = self.last() < other.start || other.last() < self.start;
        let stepped = self.step.max(other.step);
        let interleaved = stepped % self.step.max(1) == 0
            && stepped % other.step.max(1) == 0
            && self.step.min(other.step) > 1
            && (self.start - other.start) % self.step.min(other.step) != 0;
        apart || interleaved || self.len == 0 || other.len == 0
    }
}

/// What part of one tensor is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    address: u64,
    sizes: SmallVec<[i64; 8]>,
    strides: SmallVec<[i64; 8]>,
    ranges: SmallVec<[Range; 8]>,
}

impl Extent {
    /// The part that `slice` is of a tensor whose [`Slice::region`] it has.
    pub fn new(address: u64, sizes: &[i64], strides: &[i64], slice: &Slice) -> Extent {
        let mut ranges: SmallVec<[Range; 8]> = SmallVec::new();
        let uses_dim = |item: &&Item| matches!(item, Item::Index(_) | Item::Range { .. });
        let mut left = sizes
            .len()
            .saturating_sub(slice.0.iter().filter(uses_dim).count());
        let whole = |size: i64| Range {
            start: 0,
            step: 1,
            len: size,
        };
        for item in &slice.0 {
            let size = sizes.get(ranges.len()).copied().unwrap_or(1);
            match *item {
                Item::Index(index) => ranges.push(Range {
                    start: if index < 0 { index + size } else { index },
                    step: 1,
                    len: 1,
                }),
                Item::Range { start, stop, step } => {
                    let clamp = |n: i64| {
                        if n < 0 {
                            n.saturating_add(size).max(0)
                        } else {
                            n.min(size)
                        }
                    };
                    let (start, stop) = (start.map_or(0, clamp), stop.map_or(size, clamp));
                    let step = step.unwrap_or(1).max(1);
                    let len = if stop > start {
                        1 + (stop - start - 1) / step
                    } else {
                        0
                    };
                    ranges.push(Range { start, step, len });
                }
                Item::Ellipsis => {
                    for _ in 0..std::mem::take(&mut left) {
                        ranges.push(whole(sizes.get(ranges.len()).copied().unwrap_or(1)));
                    }
                }
                Item::NewAxis => {}
            }
        }
        while ranges.len() < sizes.len() {
            ranges.push(whole(sizes[ranges.len()]));
        }
        Extent {
            address,
            sizes: sizes.into(),
            strides: strides.into(),
            ranges,
        }
    }

    /// Whether the two surely have no element in common.
    pub fn misses(&self, other: &Extent) -> bool {
        self.address == other.address
            && self.sizes == other.sizes
            && self.strides == other.strides
            && self.ranges.len() == other.ranges.len()
            && self
                .ranges
                .iter()
                .zip(&other.ranges)
                .any(|(a, b)| a.misses(*b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(sizes: &[i64], slice: &str) -> Extent {
        Extent::new(
            4096,
            sizes,
            &[12, 4, 1][3 - sizes.len()..],
            &slice.parse().unwrap(),
        )
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

    proptest! {
        #[test]
        fn never_says_apart_of_what_meets(a in (0..9i64, 1..5i64, 0..9i64), b in (0..9i64, 1..5i64, 0..9i64)) {
            let range = |(start, step, len)| Range { start, step, len };
            let set = |r: Range| (0..r.len).map(|i| r.start + i * r.step).collect::<Vec<_>>();
            let (a, b) = (range(a), range(b));
            if a.misses(b) {
                let others = set(b);
                prop_assert!(set(a).iter().all(|i| !others.contains(i)));
            }
        }
    }
}

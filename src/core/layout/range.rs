//! The indices that an index or a range takes of one dimension.

/// The indices `start, start + step, …`, `len` of them, none of them negative. The step is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRange {
    pub start: i64,
    pub step: i64,
    pub len: i64,
}

impl IndexRange {
    /// All of a dimension.
    pub fn whole(size: i64) -> IndexRange {
        IndexRange {
            start: 0,
            step: 1,
            len: size,
        }
    }

    /// One index, counted from the end where it is negative. `None` where the dimension has no such index.
    pub fn one(index: i64, size: i64) -> Option<IndexRange> {
        let start = match index {
            ..0 => index.saturating_add(size),
            _ => index,
        };
        (0..size).contains(&start).then_some(IndexRange {
            start,
            step: 1,
            len: 1,
        })
    }

    /// `start:stop:step` as Python reads it: negative bounds count from the end, and bounds beyond the dimension are cut to
    /// it. `None` for a step that is not greater than 0.
    pub fn clamped(
        start: Option<i64>,
        stop: Option<i64>,
        step: Option<i64>,
        size: i64,
    ) -> Option<IndexRange> {
        let step = step.unwrap_or(1);
        if step <= 0 {
            return None;
        }
        let clamp = |bound: i64| match bound {
            ..0 => bound.saturating_add(size).max(0),
            _ => bound.min(size),
        };
        let start = start.map_or(0, clamp);
        let length = stop.map_or(size, clamp).saturating_sub(start);
        let len = match length {
            1.. => 1 + (length - 1) / step,
            _ => 0,
        };
        Some(IndexRange { start, step, len })
    }

    fn last(self) -> i64 {
        self.start
            .saturating_add((self.len - 1).saturating_mul(self.step))
    }

    /// Whether the two certainly have no index in common. For some interleaved ranges the answer is false although they have
    /// none.
    pub fn misses(self, other: IndexRange) -> bool {
        if self.len == 0 || other.len == 0 {
            return true;
        }
        let apart = self.last() < other.start || other.last() < self.start;
        let (small, large) = (self.step.min(other.step), self.step.max(other.step));
        // Where the larger step is a multiple of the smaller one, all indices of a range have the same remainder.
        let interleaved = large % small == 0 && (self.start - other.start) % small != 0;
        apart || interleaved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn indices(range: IndexRange) -> Vec<i64> {
        (0..range.len)
            .map(|i| range.start + i * range.step)
            .collect()
    }

    #[test]
    fn extreme_bounds() {
        let range = |start, stop, step| IndexRange::clamped(start, stop, step, i64::MAX);
        let all = range(Some(i64::MIN), Some(i64::MAX), None);
        assert_eq!(all, Some(IndexRange::whole(i64::MAX)));
        let largest = range(None, None, Some(i64::MAX));
        assert_eq!(largest.map(|range| range.len), Some(1));
        assert_eq!(range(None, None, Some(0)), None);
        assert_eq!(IndexRange::one(i64::MIN, 4), None);
        assert_eq!(IndexRange::one(-1, 0), None);
    }

    proptest! {
        #[test]
        fn as_python_counts(
            start in prop::option::of(-9..9i64), stop in prop::option::of(-9..9i64), step in prop::option::of(1..5i64), size in 0..7i64,
        ) {
            let from = start.map_or(0, |n| if n < 0 { n + size } else { n }).max(0);
            let to = stop.map_or(size, |n| if n < 0 { n + size } else { n });
            let naive: Vec<i64> = (0..size).filter(|n| *n >= from && *n < to && (n - from) % step.unwrap_or(1) == 0).collect();
            prop_assert_eq!(IndexRange::clamped(start, stop, step, size).map(indices), Some(naive));
        }

        #[test]
        fn one_index(index in -9..9i64, size in 0..7i64) {
            let naive = (0..size).find(|n| *n == index || n - size == index);
            prop_assert_eq!(IndexRange::one(index, size).map(indices), naive.map(|n| vec![n]));
        }

        #[test]
        fn never_says_apart_of_what_meets(a in (0..9i64, 1..5i64, 0..9i64), b in (0..9i64, 1..5i64, 0..9i64)) {
            let range = |(start, step, len)| IndexRange { start, step, len };
            let (a, b) = (range(a), range(b));
            let meet = indices(a).iter().any(|i| indices(b).contains(i));
            prop_assert!(!(meet && a.misses(b)));
            prop_assert_eq!(a.misses(b), b.misses(a));
            // Of equal steps it is known for sure.
            if a.step == b.step {
                prop_assert_eq!(a.misses(b), !meet);
            }
        }
    }
}

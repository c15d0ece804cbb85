//! Dimensions that one or several tensors share, each tensor with a step of its own.

use smallvec::SmallVec;

/// Sizes, strides or steps, one for each dimension.
pub type Dims = SmallVec<[i64; 8]>;

/// One dimension of `N` tensors that are walked together: its size, and how far each tensor's neighbours are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis<const N: usize> {
    pub size: i64,
    pub steps: [i64; N],
}

/// Dimensions, outermost first.
pub type Axes<const N: usize> = SmallVec<[Axis<N>; 8]>;

/// The dimensions of one tensor.
pub fn axes(sizes: &[i64], strides: &[i64]) -> Axes<1> {
    let pairs = sizes.iter().zip(strides);
    pairs
        .map(|(size, stride)| Axis {
            size: *size,
            steps: [*stride],
        })
        .collect()
}

/// Whether there are no elements.
pub fn is_empty<const N: usize>(axes: &[Axis<N>]) -> bool {
    axes.iter().any(|axis| axis.size <= 0)
}

/// The fewest dimensions with the same elements in the same order: dimensions of size 1 are dropped, and neighbours are joined
/// where every tensor's steps allow it.
pub fn merge<const N: usize>(axes: impl IntoIterator<Item = Axis<N>>) -> Axes<N> {
    let mut merged = Axes::new();
    for axis in axes {
        if axis.size == 1 {
            continue;
        }
        let goes_on = |outer: &Axis<N>| {
            let mut pairs = outer.steps.iter().zip(&axis.steps);
            pairs.all(|(outer, inner)| *outer == inner.wrapping_mul(axis.size))
        };
        match merged.last_mut() {
            Some(outer) if goes_on(outer) => {
                *outer = Axis {
                    size: outer.size.wrapping_mul(axis.size),
                    ..axis
                };
            }
            _ => merged.push(axis),
        }
    }
    merged
}

/// The same where the order of the elements does not matter: the first tensor's smallest steps become the innermost ones.
pub fn merge_sorted<const N: usize>(axes: impl IntoIterator<Item = Axis<N>>) -> Axes<N> {
    let mut sorted: Axes<N> = axes.into_iter().filter(|axis| axis.size != 1).collect();
    sorted.sort_by_key(|axis| std::cmp::Reverse(axis.steps[0].unsigned_abs()));
    merge(sorted)
}

/// Gives a tensor without dimensions one of size 1, so that there is a row to walk.
pub fn at_least_one<const N: usize>(mut axes: Axes<N>, step: i64) -> Axes<N> {
    if axes.is_empty() {
        axes.push(Axis {
            size: 1,
            steps: [step; N],
        });
    }
    axes
}

/// Calls `visit` with every element's distance from the first one in each tensor, the last dimension running fastest.
pub fn walk<const N: usize>(axes: &[Axis<N>], mut visit: impl FnMut([i64; N])) {
    if is_empty(axes) {
        return;
    }
    let mut index: Dims = SmallVec::from_elem(0, axes.len());
    let mut at = [0i64; N];
    loop {
        visit(at);
        let mut d = axes.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            let Axis { size, steps } = &axes[d];
            index[d] += 1;
            if index[d] < *size {
                for (at, step) in at.iter_mut().zip(steps) {
                    *at = at.wrapping_add(*step);
                }
                break;
            }
            index[d] = 0;
            for (at, step) in at.iter_mut().zip(steps) {
                *at = at.wrapping_sub(step.wrapping_mul(*size - 1));
            }
        }
    }
}

/// Calls `row` with the distance of every innermost row's first element, and the row's dimension. Without dimensions there
/// is no row: see [`at_least_one`].
pub fn walk_rows<const N: usize>(axes: &[Axis<N>], mut row: impl FnMut([i64; N], Axis<N>)) {
    if let Some((inner, outer)) = axes.split_last()
        && inner.size > 0
    {
        walk(outer, |at| row(at, *inner));
    }
}

/// The strides of a row-major tensor without gaps. A dimension without elements counts as one with a single element, as it
/// does in PyTorch.
pub fn dense_strides(sizes: &[i64]) -> Dims {
    let mut strides: Dims = SmallVec::from_elem(1, sizes.len());
    for d in (1..sizes.len()).rev() {
        strides[d - 1] = strides[d].wrapping_mul(sizes[d].max(1));
    }
    strides
}

/// Where element number `number` of a row-major tensor stands in each dimension.
pub fn coordinates(number: i64, sizes: &[i64]) -> Dims {
    let mut rest = number;
    let mut found: Dims = SmallVec::from_elem(0, sizes.len());
    for (here, size) in found.iter_mut().zip(sizes).rev() {
        *here = rest % size.max(&1);
        rest /= size.max(&1);
    }
    found
}

/// The smallest and the largest distance of an element from the first one. `None` for a tensor without elements, and where
/// the distance is no 64-bit number.
pub fn span(sizes: &[i64], strides: &[i64]) -> Option<(i64, i64)> {
    let (mut low, mut high) = (0i64, 0i64);
    for (size, stride) in sizes.iter().zip(strides) {
        if *size <= 0 {
            return None;
        }
        let last = (size - 1).checked_mul(*stride)?;
        low = low.checked_add(last.min(0))?;
        high = high.checked_add(last.max(0))?;
    }
    Some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every element's distances, by counting.
    fn naive<const N: usize>(axes: &[Axis<N>]) -> Vec<[i64; N]> {
        let mut all = vec![[0; N]];
        for axis in axes {
            let next = |at: &[i64; N]| {
                let at = *at;
                (0..axis.size).map(move |i| std::array::from_fn(|n| at[n] + i * axis.steps[n]))
            };
            all = all.iter().flat_map(next).collect();
        }
        all
    }

    fn walked<const N: usize>(axes: &[Axis<N>]) -> Vec<[i64; N]> {
        let mut all = Vec::new();
        walk(axes, |at| all.push(at));
        all
    }

    /// Few sizes and steps, so that many neighbours can be merged.
    fn any_axes() -> impl Strategy<Value = Vec<Axis<2>>> {
        let step = || prop_oneof![Just(0i64), Just(1), Just(2), Just(4), Just(6), -4..9i64];
        let axis = (0..4i64, step(), step()).prop_map(|(size, a, b)| Axis {
            size,
            steps: [a, b],
        });
        prop::collection::vec(axis, 0..5)
    }

    #[test]
    fn a_dense_tensor_is_one_row() {
        let sizes = [2, 1, 3, 4];
        let dense = axes(&sizes, &dense_strides(&sizes));
        let row = Axis {
            size: 24,
            steps: [1],
        };
        assert_eq!(merge(dense.clone())[..], [row]);
        let transposed = dense.iter().rev().copied();
        assert_eq!(merge(transposed.clone()).len(), 3);
        assert_eq!(merge_sorted(transposed)[..], [row]);
        assert_eq!(
            at_least_one(merge(axes(&[], &[])), 1)[..],
            [Axis {
                size: 1,
                steps: [1]
            }]
        );
    }

    #[test]
    fn strides_and_spans() {
        assert_eq!(dense_strides(&[2, 0, 3])[..], [3, 3, 1]);
        assert!(dense_strides(&[]).is_empty());
        assert_eq!(span(&[2, 3], &[3, -1]), Some((-2, 3)));
        assert_eq!(span(&[], &[]), Some((0, 0)));
        assert_eq!(span(&[2, 0], &[1, 1]), None);
        assert_eq!(span(&[i64::MAX, 2], &[2, 1]), None);
    }

    proptest! {
        #[test]
        fn walks_as_nested_loops_do(axes in any_axes()) {
            let naive = naive(&axes);
            prop_assert_eq!(is_empty(&axes), naive.is_empty());
            prop_assert_eq!(&walked(&axes), &naive);
            let mut rows = Vec::new();
            let axes = at_least_one(axes.into(), 1);
            walk_rows(&axes, |at, row| {
                rows.extend((0..row.size).map(|i| [at[0] + i * row.steps[0], at[1] + i * row.steps[1]]));
            });
            prop_assert_eq!(rows, naive);
        }

        #[test]
        fn merging_keeps_elements_and_order(axes in any_axes()) {
            let merged = merge(axes.clone());
            prop_assert!(merged.len() <= axes.len());
            prop_assert_eq!(walked(&merged), naive(&axes));
        }

        #[test]
        fn sorting_keeps_elements(axes in any_axes()) {
            let merged = merge_sorted(axes.clone());
            let (mut found, mut all) = (walked(&merged), naive(&axes));
            found.sort_unstable();
            all.sort_unstable();
            prop_assert_eq!(found, all);
            let steps: Vec<u64> = merged.iter().map(|axis| axis.steps[0].unsigned_abs()).collect();
            prop_assert!(is_empty(&axes) || steps.is_sorted_by(|a, b| a >= b));
        }

        #[test]
        fn coordinates_count_in_row_major_order(sizes in prop::collection::vec(1..4i64, 0..4)) {
            let strides = dense_strides(&sizes);
            for number in 0..sizes.iter().product::<i64>() {
                let at = coordinates(number, &sizes);
                prop_assert!(at.iter().zip(&sizes).all(|(at, size)| at < size));
                prop_assert_eq!(at.iter().zip(&strides).map(|(at, step)| at * step).sum::<i64>(), number);
            }
        }

        #[test]
        fn spans_are_the_farthest_elements(axes in any_axes()) {
            let (sizes, strides): (Vec<_>, Vec<_>) = axes.iter().map(|axis| (axis.size, axis.steps[0])).unzip();
            let all = naive(&axes);
            let naive = all.iter().map(|at| at[0]).min().zip(all.iter().map(|at| at[0]).max());
            prop_assert_eq!(span(&sizes, &strides), naive);
        }
    }
}

//! Broadcasting as PyTorch and NumPy do it: from the last dimension on, and a dimension of size 1 repeats.

use smallvec::SmallVec;

use super::{Dims, dense_strides};

/// What becomes of a value that has more dimensions than the shape it is broadcast to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadingOnes {
    /// Further dimensions of size 1 in front are left out, as `tensor[slice] = value` does.
    Dropped,
    /// Such a value is refused, as `tensor[slice] += value` does.
    Refused,
}

/// How far the value's elements are apart in each dimension of `shape`, in elements; 0 where the value repeats. Without
/// `strides` the value is row-major. `None` where PyTorch refuses to broadcast.
pub fn broadcast(
    shape: &[i64],
    sizes: &[i64],
    strides: Option<&[i64]>,
    leading: LeadingOnes,
) -> Option<Dims> {
    let dense;
    let strides = match strides {
        Some(strides) => strides,
        None => {
            dense = dense_strides(sizes);
            &dense
        }
    };
    let more = sizes.len().saturating_sub(shape.len());
    let droppable = leading == LeadingOnes::Dropped && sizes[..more].iter().all(|size| *size == 1);
    if strides.len() != sizes.len() || (more > 0 && !droppable) {
        return None;
    }
    let (sizes, strides) = (&sizes[more..], &strides[more..]);
    let mut steps: Dims = SmallVec::from_elem(0, shape.len());
    let missing = shape.len() - sizes.len();
    for (d, (size, stride)) in sizes.iter().zip(strides).enumerate() {
        steps[missing + d] = match *size {
            1 => 0,
            size if size == shape[missing + d] => *stride,
            _ => return None,
        };
    }
    Some(steps)
}

/// The shape that `a` and `b` both broadcast to.
pub fn common_shape(a: &[i64], b: &[i64]) -> Option<Dims> {
    let rank = a.len().max(b.len());
    let size = |shape: &[i64], d: usize| {
        let own = (d + shape.len()).checked_sub(rank);
        own.map_or(1, |at| shape[at])
    };
    (0..rank)
        .map(|d| match (size(a, d), size(b, d)) {
            (x, 1) => Some(x),
            (1, y) => Some(y),
            (x, y) => (x == y).then_some(x),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, walk};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_torch_does() {
        use LeadingOnes::{Dropped, Refused};
        let steps = |shape: &[i64], sizes: &[i64], leading| {
            broadcast(shape, sizes, None, leading).map(|steps| steps.to_vec())
        };
        assert_eq!(steps(&[2, 3], &[3], Refused), Some(vec![0, 1]));
        assert_eq!(steps(&[2, 3], &[2, 1], Refused), Some(vec![1, 0]));
        assert_eq!(steps(&[2, 3], &[], Refused), Some(vec![0, 0]));
        assert_eq!(steps(&[2, 3], &[2], Dropped), None);
        assert_eq!(steps(&[3], &[1, 1, 3], Dropped), Some(vec![1]));
        assert_eq!(steps(&[3], &[1, 1, 3], Refused), None);
        assert_eq!(steps(&[3], &[2, 3], Dropped), None);
        assert_eq!(steps(&[0], &[1], Refused), Some(vec![0]));
        assert_eq!(steps(&[1], &[0], Refused), None);
        let strided = broadcast(&[2, 3], &[2, 3], Some(&[1, 2]), Refused);
        assert_eq!(strided.map(|steps| steps.to_vec()), Some(vec![1, 2]));
        assert_eq!(broadcast(&[2], &[2], Some(&[]), Refused), None);
    }

    proptest! {
        /// The value's element at every position, by PyTorch's rule taken literally.
        #[test]
        fn every_element_is_the_naive_one(
            shape in prop::collection::vec(0..4i64, 0..4), sizes in prop::collection::vec(0..4i64, 0..4),
        ) {
            let found = broadcast(&shape, &sizes, None, LeadingOnes::Refused);
            let fits = sizes.len() <= shape.len()
                && sizes.iter().rev().zip(shape.iter().rev()).all(|(size, wanted)| *size == 1 || size == wanted);
            prop_assert_eq!(found.is_some(), fits);
            let Some(steps) = found else { return Ok(()) };
            let axes: Vec<Axis<1>> = shape.iter().zip(&steps).map(|(size, step)| Axis { size: *size, steps: [*step] }).collect();
            let mut number = 0;
            let strides = dense_strides(&sizes);
            let mut wrong = Vec::new();
            walk(&axes, |[at]| {
                let position = super::super::coordinates(number, &shape);
                number += 1;
                let own = position.iter().skip(shape.len() - sizes.len());
                let naive: i64 = own.zip(&sizes).zip(&strides).map(|((at, size), step)| if *size == 1 { 0 } else { at * step }).sum();
                if naive != at {
                    wrong.push((position, at, naive));
                }
            });
            prop_assert!(wrong.is_empty(), "{wrong:?}");
        }

        #[test]
        fn both_broadcast_to_the_common_shape(
            a in prop::collection::vec(0..4i64, 0..4), b in prop::collection::vec(0..4i64, 0..4),
        ) {
            let common = common_shape(&a, &b);
            prop_assert_eq!(&common, &common_shape(&b, &a));
            let clash = a.iter().rev().zip(b.iter().rev()).any(|(x, y)| x != y && *x != 1 && *y != 1);
            prop_assert_eq!(common.is_none(), clash);
            if let Some(common) = common {
                for own in [&a, &b] {
                    prop_assert!(broadcast(&common, own, None, LeadingOnes::Refused).is_some());
                }
                prop_assert_eq!(common.len(), a.len().max(b.len()));
            }
        }
    }
}

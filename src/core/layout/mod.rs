//! How the elements of strided tensors lie in memory, as numbers alone: no module here touches memory.
//!
//! | module | owns |
//! |---|---|
//! | `axes` | dimensions that several tensors share: merging them, and walking over their elements |
//! | `broadcast` | the steps of a value that is broadcast to a shape, and the shape that two shapes have in common |
//! | `range` | the indices that a range with bounds and a step takes of one dimension |
//! | `selection` | what a [`Slice`](crate::path::Slice) selects of a tensor's dimensions, and the strided region that this is |
//! | `extent` | whether two selections of one tensor can have an element in common |
//!
//! Sizes, strides and steps are signed 64-bit numbers as in PyTorch. A step counts elements, unless a caller has scaled
//! all steps of a list of axes to bytes. Arithmetic wraps around: a caller that gets its strides from elsewhere checks them.

mod axes;
mod broadcast;
mod extent;
mod range;
mod selection;

pub use axes::{
    Axes, Axis, Dims, at_least_one, axes, coordinates, dense_strides, is_empty, merge,
    merge_sorted, span, walk, walk_rows,
};
pub use broadcast::{LeadingOnes, broadcast, common_shape};
pub use extent::Extent;
pub use range::IndexRange;
pub use selection::{Region, Selected, Selection};

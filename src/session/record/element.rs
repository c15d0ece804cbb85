//! A value as the adapter shows it: its elements in preorder, borrowed for one call.

use graphpatch_core::tensor::Number;

/// What one element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    Tensor,
    Undefined,
    None,
    Bool,
    Int,
    Float,
    Complex,
    Str,
    /// Followed by its elements, as are the next two.
    Tuple,
    List,
    Dict,
    Other,
}

/// One element of a value.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    pub tag: Tag,
    /// Direct elements of a container.
    pub count: usize,
    /// A tensor's sizes.
    pub sizes: &'a [i64],
    /// The same number for the same tensor, as long as the run lasts.
    pub identity: usize,
    pub dtype: &'static str,
    pub device: &'static str,
    pub device_index: Option<i16>,
    pub layout: &'static str,
    /// The element's key in a dict.
    pub key: &'a str,
    /// The type's name, for an element with [`Tag::Other`]; the text of a string.
    pub text: &'a str,
    /// A plain value, as Python writes it where that is asked for.
    pub number: Number,
}

impl Element<'static> {
    /// An element that is nothing but its tag.
    pub fn of(tag: Tag) -> Element<'static> {
        Element {
            tag,
            count: 0,
            sizes: &[],
            identity: 0,
            dtype: "",
            device: "",
            device_index: None,
            layout: "",
            key: "",
            text: "",
            number: Number::Int(0),
        }
    }
}

//! A value as the adapter shows it: its elements in preorder, borrowed for one call.

use crate::graph::{Dim, TensorInfo, Value};

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
    pub dtype: &'a str,
    pub device: &'a str,
    pub device_index: Option<i16>,
    pub layout: &'a str,
    /// The element's key in a dict.
    pub key: &'a str,
    /// The type's name, for what has no tag of its own.
    pub text: &'a str,
}

impl Element<'_> {
    fn tensor(&self) -> TensorInfo {
        TensorInfo {
            shape: self.sizes.iter().map(|size| Dim::of(*size)).collect(),
            dtype: self.dtype.to_owned(),
            device: match self.device_index {
                Some(index) => format!("{}:{index}", self.device),
                None => self.device.to_owned(),
            },
            layout: self.layout.to_owned(),
        }
    }
}

/// The value that the elements are; elements that are missing count as `None`.
pub fn value_of(elements: &[Element<'_>]) -> Value {
    take(&mut elements.iter()).1
}

fn take<'a>(rest: &mut std::slice::Iter<'_, Element<'a>>) -> (&'a str, Value) {
    let Some(element) = rest.next() else {
        return ("", Value::None);
    };
    let mut children = |n: usize| (0..n).map(|_| take(rest)).collect::<Vec<_>>();
    let value = match element.tag {
        Tag::Tensor => Value::Tensor(element.tensor()),
        Tag::Undefined => Value::Undefined,
        Tag::None => Value::None,
        Tag::Bool => Value::Bool,
        Tag::Int => Value::Int,
        Tag::Float => Value::Float,
        Tag::Complex => Value::Complex,
        Tag::Str => Value::Str,
        Tag::Tuple => Value::Tuple(children(element.count).into_iter().map(|c| c.1).collect()),
        Tag::List => Value::List(children(element.count).into_iter().map(|c| c.1).collect()),
        Tag::Dict => Value::Dict(
            children(element.count)
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        ),
        Tag::Other => Value::Other(element.text.to_owned()),
    };
    (element.key, value)
}

#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    /// An element of a fake operation stream.
    pub fn element(tag: Tag) -> Element<'static> {
        Element {
            tag,
            count: 0,
            sizes: &[],
            identity: 0,
            dtype: "float32",
            device: "cpu",
            device_index: None,
            layout: "strided",
            key: "",
            text: "",
        }
    }

    pub fn tensor(identity: usize, sizes: &'static [i64]) -> Element<'static> {
        Element {
            sizes,
            identity,
            ..element(Tag::Tensor)
        }
    }

    pub fn container(tag: Tag, count: usize) -> Element<'static> {
        Element {
            count,
            ..element(tag)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{container, element, tensor};
    use super::*;

    #[test]
    fn reads_nested_values_in_preorder() {
        let elements = [
            container(Tag::Tuple, 2),
            container(Tag::Dict, 1),
            Element {
                key: "hidden",
                ..tensor(1, &[2, 3])
            },
            element(Tag::Int),
        ];
        let Value::Tuple(parts) = value_of(&elements) else {
            panic!("no tuple");
        };
        assert!(matches!(&parts[0], Value::Dict(d) if d[0].0 == "hidden"));
        assert!(matches!(parts[1], Value::Int));
    }

    #[test]
    fn missing_elements_do_no_harm() {
        assert!(matches!(
            value_of(&[container(Tag::List, 2)]),
            Value::List(list) if list.len() == 2
        ));
        assert!(matches!(value_of(&[]), Value::None));
    }
}

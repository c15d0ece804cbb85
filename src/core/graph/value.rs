//! What was seen of a value: its type, and a tensor's shape, dtype, device and layout.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The sizes of one dimension over all runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "SavedDim", into = "SavedDim")]
pub struct Dim {
    pub min: i64,
    pub max: i64,
}

/// A dimension in JSON: the size alone, or smallest and largest.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SavedDim {
    One(i64),
    Range([i64; 2]),
}

impl Dim {
    /// A dimension that always had this size.
    pub fn of(size: i64) -> Dim {
        Dim {
            min: size,
            max: size,
        }
    }
}

impl From<Dim> for SavedDim {
    fn from(dim: Dim) -> SavedDim {
        if dim.min == dim.max {
            SavedDim::One(dim.min)
        } else {
            SavedDim::Range([dim.min, dim.max])
        }
    }
}

impl TryFrom<SavedDim> for Dim {
    type Error = String;

    fn try_from(saved: SavedDim) -> Result<Dim, String> {
        let (min, max) = match saved {
            SavedDim::One(size) => (size, size),
            SavedDim::Range([min, max]) => (min, max),
        };
        if 0 <= min && min <= max {
            Ok(Dim { min, max })
        } else {
            Err(format!("{min}..{max} is no dimension"))
        }
    }
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}..{}", self.min, self.max)
        }
    }
}

/// A text that is usually one of a few constants, which need no memory of their own.
pub type Text = Cow<'static, str>;

/// A tensor without its data. Where runs differed, dtype, device and layout hold all that was seen, as `a|b`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorInfo {
    pub shape: Vec<Dim>,
    /// PyTorch's name without `torch.`, such as `float32`.
    pub dtype: Text,
    /// `cpu`, `cuda:0`.
    pub device: Text,
    /// `strided`, `sparse_coo`; `batched` inside `torch.vmap`, where the shape is that of one example.
    pub layout: Text,
}

/// A value without its data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    Tensor(TensorInfo),
    Int,
    Float,
    Bool,
    Complex,
    Str,
    #[default]
    None,
    /// An undefined tensor, which Python shows as None.
    Undefined,
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(String, Value)>),
    /// Any other type, by its name.
    Other(String),
    /// Runs gave values of different kinds, ranks or lengths: one of each, in the order seen, printed `a|b`.
    Mixed(Vec<Value>),
}

impl Value {
    /// Whether this is Python's None.
    pub fn is_none(&self) -> bool {
        matches!(self, Value::None)
    }

    /// The type as the tree shows it: `Tensor(1, 5..128)`, `tuple(2)`, `int`.
    pub fn label(&self) -> String {
        match self {
            Value::Tensor(info) => {
                let dims: Vec<String> = info.shape.iter().map(Dim::to_string).collect();
                format!("Tensor({})", dims.join(", "))
            }
            Value::Int => "int".to_owned(),
            Value::Float => "float".to_owned(),
            Value::Bool => "bool".to_owned(),
            Value::Complex => "complex".to_owned(),
            Value::Str => "str".to_owned(),
            Value::None | Value::Undefined => "NoneType".to_owned(),
            Value::Tuple(items) => format!("tuple({})", items.len()),
            Value::List(items) => format!("list({})", items.len()),
            Value::Dict(items) => format!("dict({})", items.len()),
            Value::Other(name) => name.clone(),
            Value::Mixed(kinds) => {
                let mut labels: Vec<String> = kinds.iter().map(Value::label).collect();
                labels.dedup();
                labels.join("|")
            }
        }
    }

    /// Whether a patch can name it: one tensor, number or boolean, or None, at least in some run.
    pub fn is_leaf(&self) -> bool {
        match self {
            Value::Tuple(_) | Value::List(_) | Value::Dict(_) | Value::Other(_) => false,
            Value::Str | Value::Complex => false,
            Value::Mixed(kinds) => kinds.iter().any(Value::is_leaf),
            _ => true,
        }
    }

    /// A container's elements under their names: `sub_i`, or the key in a dict.
    ///
    /// Of a value that was several containers, the elements of all of them, merged by name.
    pub fn elements(&self) -> Vec<(String, Cow<'_, Value>)> {
        match self {
            Value::Tuple(items) | Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(i, item)| (format!("sub_{i}"), Cow::Borrowed(item)))
                .collect(),
            Value::Dict(items) => items
                .iter()
                .map(|(key, item)| (key.clone(), Cow::Borrowed(item)))
                .collect(),
            Value::Mixed(kinds) => {
                let mut all: Vec<(String, Cow<'_, Value>)> = Vec::new();
                for (key, item) in kinds.iter().flat_map(Value::elements) {
                    match all.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, known)) => known.to_mut().merge(item.into_owned()),
                        None => all.push((key, item)),
                    }
                }
                all
            }
            _ => Vec::new(),
        }
    }

    /// The element that a dig leads to; the value itself for an empty dig.
    pub fn element(&self, dig: &[String]) -> Option<Cow<'_, Value>> {
        let mut value = Cow::Borrowed(self);
        for key in dig {
            let element = match &value {
                Cow::Borrowed(container) => take_element(container.elements(), key)?,
                Cow::Owned(container) => {
                    Cow::Owned(take_element(container.elements(), key)?.into_owned())
                }
            };
            value = element;
        }
        Some(value)
    }
}

fn take_element<'a>(elements: Vec<(String, Cow<'a, Value>)>, key: &str) -> Option<Cow<'a, Value>> {
    elements
        .into_iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::super::samples::tensor;
    use super::*;

    #[test]
    fn labels() {
        let ranged = Value::Tensor(TensorInfo {
            shape: vec![Dim::of(1), Dim { min: 5, max: 128 }],
            ..Default::default()
        });
        assert_eq!(ranged.label(), "Tensor(1, 5..128)");
        assert_eq!(tensor(&[]).label(), "Tensor()");
        assert_eq!(Value::Undefined.label(), "NoneType");
        assert_eq!(
            Value::Mixed(vec![tensor(&[2]), Value::Int]).label(),
            "Tensor(2)|int"
        );
    }

    #[test]
    fn digs() {
        let dict = Value::Dict(vec![(
            "a.b".into(),
            Value::Tuple(vec![Value::Int, tensor(&[2])]),
        )]);
        let dig = |keys: &[&str]| {
            dict.element(&keys.iter().map(|k| k.to_string()).collect::<Vec<_>>())
                .map(|v| v.label())
        };
        assert_eq!(dig(&["a.b", "sub_1"]).as_deref(), Some("Tensor(2)"));
        assert_eq!(dig(&[]).as_deref(), Some("dict(1)"));
        assert_eq!(dig(&["a.b", "sub_2"]), None);
        assert_eq!(dig(&["a.b", "sub_0", "sub_0"]), None);
    }

    #[test]
    fn a_mixed_container_shows_all_elements() {
        let mixed = Value::Mixed(vec![
            Value::Tuple(vec![tensor(&[2])]),
            Value::Tuple(vec![tensor(&[5]), Value::Int]),
            Value::None,
        ]);
        let labels: Vec<String> = mixed
            .elements()
            .iter()
            .map(|(key, value)| format!("{key} {}", value.label()))
            .collect();
        assert_eq!(labels, ["sub_0 Tensor(2..5)", "sub_1 int"]);
        assert!(mixed.is_leaf());
    }

    #[test]
    fn dims_are_compact_json() {
        let dims = [Dim::of(3), Dim { min: 5, max: 128 }];
        assert_eq!(serde_json::to_string(&dims).unwrap(), "[3,[5,128]]");
        assert_eq!(
            serde_json::from_str::<[Dim; 2]>("[3,[5,128]]").unwrap(),
            dims
        );
        assert!(serde_json::from_str::<Dim>("[5,4]").is_err());
        assert!(serde_json::from_str::<Dim>("-1").is_err());
    }
}

//! What a patch adds or writes: a number, or a tensor in a file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Number;
use crate::error::Error;
use crate::tensor::FileValue;

/// The value of an add or replace. In JSON it is a text: a number, `@file.npy` or `@file.safetensors#key`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Value {
    Number(Number),
    File(FileValue),
}

impl FromStr for Value {
    type Err = Error;

    fn from_str(text: &str) -> Result<Value, Error> {
        let begin = text.trim_start();
        if !begin.starts_with('@') {
            return text.parse().map(Value::Number);
        }
        // The name of a file, or its key, may end in a space, so nothing is trimmed at the end.
        let before = text.chars().count() - begin.chars().count();
        match begin.parse() {
            Ok(file) => Ok(Value::File(file)),
            Err(Error::Parse { what, at, why, .. }) => Err(Error::Parse {
                what,
                text: text.to_owned(),
                at: before + at,
                why,
            }),
            Err(other) => Err(other),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => number.fmt(f),
            Value::File(file) => file.fmt(f),
        }
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Value {
        Value::Number(number)
    }
}

as_text!(Value);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tensor::number::tests::any_number;
    use proptest::prelude::*;

    /// Any value that is equal to itself.
    pub fn any_value() -> impl Strategy<Value = Value> {
        let file =
            ("[a-z#\\\\ é/]{0,6}", prop::option::of(any::<String>())).prop_map(|(name, key)| {
                let extension = if key.is_some() { "safetensors" } else { "npy" };
                Value::File(FileValue::new(format!("{name}e.{extension}").into(), key).unwrap())
            });
        prop_oneof![any_number().prop_map(Value::Number), file]
    }

    #[test]
    fn numbers_and_files() {
        assert_eq!("-1".parse::<Value>().unwrap(), Number::Int(-1).into());
        let Value::File(file) = " @a/b.safetensors#x.y#0 ".parse().unwrap() else {
            panic!("a number")
        };
        assert_eq!(
            (file.file.to_str(), file.key.as_deref()),
            (Some("a/b.safetensors"), Some("x.y#0 "))
        );
        match " @a.txt".parse::<Value>() {
            Err(Error::Parse { at, text, .. }) => assert_eq!((at, &*text), (2, " @a.txt")),
            other => panic!("{other:?}"),
        }
        let json = serde_json::to_string(&"@d.npy".parse::<Value>().unwrap()).unwrap();
        assert_eq!(json, "\"@d.npy\"");
    }

    proptest! {
        #[test]
        fn parse_of_print_is_identity(value in any_value()) {
            prop_assert_eq!(value.to_string().parse::<Value>().unwrap(), value);
        }
    }
}

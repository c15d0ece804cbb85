//! A plain number: a patch's value, an argument of an operation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A Python number. Its JSON is its text, since JSON itself knows neither `inf` nor complex numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Number {
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Real and imaginary part.
    Complex(f64, f64),
}

impl FromStr for Number {
    type Err = Error;

    /// Reads what Python's `bool`, `int`, `float` and `complex` would: `3`, `-1e-3`, `inf`, `True`, `1+2j`.
    fn from_str(text: &str) -> Result<Number, Error> {
        let fail = |why: &str| Error::Parse {
            what: "value",
            text: text.to_owned(),
            at: 0,
            why: why.to_owned(),
        };
        let trimmed = text.trim();
        match trimmed {
            "" => return Err(fail("a number is missing")),
            "true" | "True" => return Ok(Number::Bool(true)),
            "false" | "False" => return Ok(Number::Bool(false)),
            _ => {}
        }
        let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            return trimmed
                .parse()
                .map(Number::Int)
                .map_err(|_| fail("this integer does not fit into 64 bits"));
        }
        let inner = trimmed
            .strip_prefix('(')
            .and_then(|t| t.strip_suffix(')'))
            .unwrap_or(trimmed);
        let number = match inner.strip_suffix(['j', 'J']) {
            Some(parts) => complex(parts),
            None => trimmed.parse().ok().map(Number::Float),
        };
        number.ok_or_else(|| fail("expected a number such as 3, -0.5, 1e-3, inf, true or 1+2j"))
    }
}

/// The text of a complex number without its `j`: `2`, `1+2`, `1e-3-inf`.
fn complex(parts: &str) -> Option<Number> {
    let mut before = ' ';
    let mut split = 0;
    for (at, c) in parts.char_indices() {
        if at > 0 && matches!(c, '+' | '-') && !matches!(before, 'e' | 'E') {
            split = at;
        }
        before = c;
    }
    let (real, imaginary) = parts.split_at(split);
    let real = if real.is_empty() {
        0.0
    } else {
        real.parse().ok()?
    };
    let imaginary = match imaginary {
        "" | "+" => 1.0,
        "-" => -1.0,
        text => text.parse().ok()?,
    };
    Some(Number::Complex(real, imaginary))
}

/// The text of a float, from which it can be told apart from an integer.
fn float(number: f64) -> String {
    if number.is_nan() {
        "nan".to_owned()
    } else {
        format!("{number:?}")
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Number::Bool(value) => write!(f, "{value}"),
            Number::Int(value) => write!(f, "{value}"),
            Number::Float(value) => f.write_str(&float(value)),
            Number::Complex(real, imaginary) => {
                let imaginary = float(imaginary);
                let sign = if imaginary.starts_with('-') { "" } else { "+" };
                write!(f, "{}{sign}{imaginary}j", float(real))
            }
        }
    }
}

as_text!(Number);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any number that is equal to itself.
    pub fn any_number() -> impl Strategy<Value = Number> {
        let float = || {
            prop_oneof![
                any::<f64>().prop_filter("NaN", |f| !f.is_nan()),
                Just(f64::INFINITY),
                Just(-0.0)
            ]
        };
        prop_oneof![
            any::<bool>().prop_map(Number::Bool),
            any::<i64>().prop_map(Number::Int),
            float().prop_map(Number::Float),
            (float(), float()).prop_map(|(a, b)| Number::Complex(a, b)),
        ]
    }

    #[test]
    fn reads_python_numbers() {
        for (text, number) in [
            ("3", Number::Int(3)),
            ("-9223372036854775808", Number::Int(i64::MIN)),
            ("+0", Number::Int(0)),
            ("0.5", Number::Float(0.5)),
            ("1e-3", Number::Float(1e-3)),
            ("1.", Number::Float(1.0)),
            (" .5 ", Number::Float(0.5)),
            ("inf", Number::Float(f64::INFINITY)),
            ("-Infinity", Number::Float(f64::NEG_INFINITY)),
            ("true", Number::Bool(true)),
            ("False", Number::Bool(false)),
            ("1+2j", Number::Complex(1.0, 2.0)),
            ("(1-2j)", Number::Complex(1.0, -2.0)),
            ("-1.5e-3-2e+5j", Number::Complex(-1.5e-3, -2e5)),
            ("2j", Number::Complex(0.0, 2.0)),
            ("-j", Number::Complex(0.0, -1.0)),
            (
                "inf-infj",
                Number::Complex(f64::INFINITY, f64::NEG_INFINITY),
            ),
        ] {
            assert_eq!(text.parse::<Number>().unwrap(), number, "{text}");
        }
        assert_eq!("NaN".parse::<Number>().unwrap().to_string(), "nan");
        assert_eq!(
            "nan+nanj".parse::<Number>().unwrap().to_string(),
            "nan+nanj"
        );
        assert_eq!(Number::Float(1.0).to_string(), "1.0");
        assert_eq!(
            serde_json::to_string(&Number::Float(f64::INFINITY)).unwrap(),
            "\"inf\""
        );
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "-",
            "x",
            "1e",
            "0x10",
            "1 2",
            "jj",
            "1+j2",
            "+-1",
            "(1",
            "99999999999999999999",
            "TRUE",
            "@delta.npy",
        ] {
            assert!(text.parse::<Number>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parse_of_print_is_identity(number in any_number()) {
            prop_assert_eq!(number.to_string().parse::<Number>().unwrap(), number);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), grammar in "[-+0-9.eEjinfa()é]{0,10}") {
            let _ = text.parse::<Number>();
            if let Ok(number) = grammar.parse::<Number>() {
                prop_assert_eq!(number.to_string().parse::<Number>().unwrap().to_string(), number.to_string());
            }
        }
    }
}

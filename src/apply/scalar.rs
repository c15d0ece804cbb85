//! An action on a leaf that is a plain number.

use graphpatch_core::error::{Error, Result};
use graphpatch_core::patch::Number;
use graphpatch_core::patch::action::{Action, Operand};
use graphpatch_core::tensor::{Dtype, HostTensor};

/// A plain number of the host. An action keeps its type, since the code that uses the number relies on the type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
}

impl Scalar {
    /// The number after the action.
    pub fn apply(self, action: &Action) -> Result<Scalar> {
        let number = match action {
            Action::Zero => Number::Int(0),
            Action::Add(Operand::Number(number)) | Action::Replace(Operand::Number(number)) => {
                *number
            }
            _ => return Err(Error::Refused("a plain number takes a plain number".into())),
        };
        let add = matches!(action, Action::Add(_));
        match (self, number) {
            (Scalar::Int(old), Number::Int(new)) => {
                Ok(Scalar::Int(if add { old.wrapping_add(new) } else { new }))
            }
            (Scalar::Int(old), Number::Bool(new)) => Ok(Scalar::Int(if add {
                old.wrapping_add(new.into())
            } else {
                new.into()
            })),
            (Scalar::Float(old), Number::Float(new)) => {
                Ok(Scalar::Float(if add { old + new } else { new }))
            }
            (Scalar::Float(old), Number::Int(new)) => Ok(Scalar::Float(if add {
                old + new as f64
            } else {
                new as f64
            })),
            (Scalar::Float(old), Number::Bool(new)) => {
                let new = f64::from(u8::from(new));
                Ok(Scalar::Float(if add { old + new } else { new }))
            }
            (Scalar::Bool(_), Number::Bool(new)) if !add => Ok(Scalar::Bool(new)),
            (Scalar::Bool(_), Number::Int(0)) if !add => Ok(Scalar::Bool(false)),
            (old, new) => Err(Error::Refused(format!(
                "the value is {}, which {} {new} would turn into another type",
                match old {
                    Scalar::Bool(_) => "a bool",
                    Scalar::Int(_) => "an int",
                    Scalar::Float(_) => "a float",
                },
                if add { "adding" } else { "writing" },
            ))),
        }
    }
}

impl Scalar {
    /// The number as a tensor without dimensions, as a probe keeps it.
    pub fn tensor(self) -> Result<HostTensor> {
        let (dtype, bytes) = match self {
            Scalar::Bool(value) => (Dtype::Bool, vec![u8::from(value)]),
            Scalar::Int(value) => (Dtype::I64, value.to_ne_bytes().to_vec()),
            Scalar::Float(value) => (Dtype::F64, value.to_ne_bytes().to_vec()),
        };
        let mut tensor = HostTensor::zeros(dtype, &[])?;
        tensor.bytes_mut().copy_from_slice(&bytes);
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_its_type() {
        let add = |n| Action::Add(Operand::Number(n));
        assert_eq!(
            Scalar::Int(3).apply(&add(Number::Int(2))).unwrap(),
            Scalar::Int(5)
        );
        assert_eq!(
            Scalar::Float(0.5).apply(&add(Number::Int(2))).unwrap(),
            Scalar::Float(2.5)
        );
        assert_eq!(
            Scalar::Bool(true).apply(&Action::Zero).unwrap(),
            Scalar::Bool(false)
        );
        assert!(Scalar::Int(3).apply(&add(Number::Float(0.5))).is_err());
        assert!(Scalar::Bool(true).apply(&add(Number::Bool(true))).is_err());
        assert!(
            Scalar::Int(3)
                .apply(&Action::Replace(Operand::Number(Number::Complex(1.0, 0.0))))
                .is_err()
        );
    }
}

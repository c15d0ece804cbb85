//! Converts ordinary Python values for the library: to the same text that `_structure.py` makes, and the same tensors. All
//! other values are left to that file.

use std::ffi::{CString, c_int, c_void};
use std::fmt::Write;

use super::object::{Object, Raised, Result};
use super::raw::python;
use super::state::{Names, State};

// The limits are those of `_structure.py`.
const DEEPEST: usize = 32;
const LONGEST: usize = 1024;
const MOST_TEXT: usize = 200;

/// A value's structure, and its tensors in order.
#[derive(Debug, Default)]
pub struct Flat {
    text: String,
    pub tensors: Vec<*const c_void>,
    /// How many leaves there are that are no tensors.
    plain: usize,
}

/// Why a value was not converted: it is not an ordinary one, or an exception was raised.
pub enum Stop {
    NotPlain,
    Raised,
}

impl From<Raised> for Stop {
    fn from(_: Raised) -> Stop {
        Stop::Raised
    }
}

impl Flat {
    pub fn of(value: &Object, state: &State) -> std::result::Result<Flat, Stop> {
        let mut flat = Flat::default();
        flat.add(value, state, 0)?;
        Ok(flat)
    }

    /// Several values as one tuple.
    pub fn of_all(values: &[Object], state: &State) -> std::result::Result<Flat, Stop> {
        let mut flat = Flat::default();
        flat.open('(', values.len());
        for value in values {
            flat.add(value, state, 1)?;
        }
        Ok(flat)
    }

    pub fn text(self) -> (CString, Vec<*const c_void>) {
        // No part of it has a NUL.
        (CString::new(self.text).unwrap_or_default(), self.tensors)
    }

    fn open(&mut self, mark: char, length: usize) {
        // Writing to a text does not fail.
        let _ = write!(self.text, "{mark}{length};");
    }

    fn add(
        &mut self,
        value: &Object,
        state: &State,
        depth: usize,
    ) -> std::result::Result<(), Stop> {
        let (python, kind) = (python(), value.kind());
        if kind == state.tensor.address() || value.is_a(state.tensor.address()) {
            self.text.push('T');
            self.tensors.push(tensor_address(value, &state.names)?);
            return Ok(());
        } else if value.is_none() {
            self.text.push('N');
        } else if value.address() == python.yes || value.address() == python.no {
            let number = u8::from(value.address() == python.yes);
            let _ = write!(self.text, "B{number};");
        } else if kind == python.int {
            self.add_number(value)?;
        } else if kind == python.float {
            // SAFETY: it is a float.
            let number = unsafe { python.PyFloat_AsDouble(value.address()) };
            let _ = write!(self.text, "F{number};");
        } else if kind == python.text {
            self.add_text(value)?;
        } else if kind == python.tuple && depth < DEEPEST {
            let length = value.tuple_length()?;
            return self.add_elements('(', length, |index| value.element(index), state, depth);
        } else if kind == python.list && depth < DEEPEST {
            let length = value.list_length()?;
            return self.add_elements('[', length, |index| value.list_element(index), state, depth);
        } else if kind == python.dict && depth < DEEPEST {
            return self.add_dict(value, state, depth);
        } else {
            return Err(Stop::NotPlain);
        }
        self.plain += 1;
        if self.plain > LONGEST {
            return Err(Stop::NotPlain);
        }
        Ok(())
    }

    fn add_dict(
        &mut self,
        value: &Object,
        state: &State,
        depth: usize,
    ) -> std::result::Result<(), Stop> {
        let items = value.items();
        if items.len() > LONGEST {
            return Err(Stop::NotPlain);
        }
        self.open('{', items.len());
        for (key, element) in items {
            let text = match key.kind() == python().text {
                true => key
                    .text()
                    .filter(|text| !text.is_empty() && !text.contains('\0')),
                false => None,
            };
            let text = text.ok_or(Stop::NotPlain)?;
            let _ = write!(self.text, "{}:{text}", text.len());
            self.add(&element, state, depth + 1)?;
        }
        Ok(())
    }

    fn add_elements(
        &mut self,
        mark: char,
        length: usize,
        element: impl Fn(usize) -> Result<Object>,
        state: &State,
        depth: usize,
    ) -> std::result::Result<(), Stop> {
        if length > LONGEST {
            return Err(Stop::NotPlain);
        }
        self.open(mark, length);
        for index in 0..length {
            self.add(&element(index)?, state, depth + 1)?;
        }
        Ok(())
    }

    fn add_number(&mut self, value: &Object) -> std::result::Result<(), Stop> {
        let mut overflow: c_int = 0;
        // SAFETY: it is an int.
        let number =
            unsafe { python().PyLong_AsLongLongAndOverflow(value.address(), &raw mut overflow) };
        if overflow != 0 {
            return Err(Stop::NotPlain);
        }
        let _ = write!(self.text, "I{number};");
        Ok(())
    }

    fn add_text(&mut self, value: &Object) -> std::result::Result<(), Stop> {
        let text = value.text().ok_or(Stop::NotPlain)?;
        let end = text
            .char_indices()
            .nth(MOST_TEXT)
            .map_or(text.len(), |(at, _)| at);
        let text = text.get(..end).ok_or(Stop::NotPlain)?;
        if text.contains('\0') {
            return Err(Stop::NotPlain);
        }
        let _ = write!(self.text, "S{}:{text}", text.len());
        Ok(())
    }
}

/// Where libtorch's tensor lies.
fn tensor_address(value: &Object, names: &Names) -> Result<*const c_void> {
    let address = value.attribute(&names.cdata)?.unsigned()?;
    Ok(std::ptr::with_exposed_provenance(address as usize))
}

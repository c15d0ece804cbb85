//! The calls of a model's `run_impl`, in the order of its source, and which arguments of theirs are values afterwards.
//!
//! Two kinds of calls compute values: kernels that were generated for this model, whose parameters `out_ptr0` or `in_out_ptr0`
//! point to what they write; and functions of libtorch's with C linkage, which take the tensor that they write first
//! (`..._out`), or store handles of new tensors through pointers (`&buf3_handle`).

use std::collections::{BTreeMap, BTreeSet};

use crate::text::{arguments, block, closing, is_word, statements, without_comments, words};
use crate::unreadable::Unreadable;

/// How a call gives a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The argument is the address of the value's data.
    Data,
    /// The argument is the handle of a tensor.
    Handle,
    /// The argument is the address of a handle that is set by the call.
    Result,
}

/// An argument that is a value when the call has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub how: How,
    /// Its place among the arguments that are passed as integers or pointers.
    pub position: usize,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The function.
    pub symbol: String,
    /// How many arguments it takes as integers or pointers, and as floating-point numbers.
    pub integers: usize,
    pub floats: usize,
    pub outputs: Vec<Output>,
    /// The parameters and buffers of the original model that it reads, by their attribute paths.
    pub(crate) reads: BTreeSet<String>,
}

/// What the source says.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) calls: Vec<Call>,
    pub(crate) inputs: Vec<String>,
}

/// The prefix of libtorch's functions that compute on the CPU.
pub(crate) const SHIM: &str = "aoti_torch_cpu_";

pub(crate) fn source(text: &str) -> Result<Source, Unreadable> {
    let text = without_comments(text);
    let kernels = kernels(&text);
    let run = run_impl(&text).ok_or(Unreadable::NoRun)?;
    let mut reader = Reader {
        kernels,
        constants: texts(&text, "constants_info_", "original_fqn", Some("name")),
        aliases: BTreeMap::new(),
        calls: Vec::new(),
    };
    for statement in statements(run) {
        let before = reader.calls.len();
        reader.statement(statement.text);
        if statement.conditional && reader.calls.len() > before {
            let symbol = reader.calls[before].symbol.clone();
            return Err(Unreadable::Branches(symbol));
        }
    }
    if reader.calls.is_empty() {
        return Err(Unreadable::NoCalls);
    }
    let inputs = texts(&text, "inputs_info_", "name", None);
    Ok(Source {
        calls: reader.calls,
        inputs: inputs.into_values().collect(),
    })
}

/// The body of the model's `run_impl`.
fn run_impl(text: &str) -> Option<&str> {
    let mut from = 0;
    while let Some(at) = text[from..].find("::run_impl(") {
        let open = from + at + "::run_impl".len();
        let close = open + closing(&text[open..])?;
        if text[close + 1..].trim_start().starts_with('{') {
            return block(text, close);
        }
        from = close;
    }
    None
}

/// A generated kernel: for each parameter whether it is passed as a floating-point number, and whether it is written.
type Kernel = Vec<(bool, bool)>;

/// The kernels that the source declares.
fn kernels(text: &str) -> BTreeMap<String, Kernel> {
    let mut found = BTreeMap::new();
    for (at, _) in text.match_indices("extern \"C\"") {
        let rest = &text[at..];
        let Some(open) = rest.find('(') else { continue };
        let head = rest[..open].trim_end();
        let name = head.rsplit(|c| !is_word(c)).next().unwrap_or_default();
        if head.contains([';', '{', '}']) || !head.contains("void") || !name.starts_with("cpp_") {
            continue;
        }
        if let Some(parameters) = arguments(&rest[open..]) {
            found.insert(
                name.to_owned(),
                parameters.into_iter().map(parameter).collect(),
            );
        }
    }
    found
}

fn parameter(text: &str) -> (bool, bool) {
    let name = text.rsplit(|c| !is_word(c)).next().unwrap_or_default();
    let pointer = text.contains('*');
    let float = !pointer && words(text).any(|(_, word)| matches!(word, "float" | "double"));
    let written = pointer && (name.starts_with("out_ptr") || name.starts_with("in_out_ptr"));
    (float, written)
}

/// Texts that the model's constructor sets: `table_[3].field = "text";`, by index, or by another field.
fn texts(text: &str, table: &str, field: &str, by: Option<&str>) -> BTreeMap<Key, String> {
    let (mut values, mut keys) = (BTreeMap::new(), BTreeMap::new());
    for (at, _) in text.match_indices(table) {
        let Some(rest) = text[at + table.len()..].strip_prefix('[') else {
            continue;
        };
        let Some((index, rest)) = rest.split_once("].") else {
            continue;
        };
        let (Ok(index), Some((name, rest))) = (index.parse::<usize>(), rest.split_once('=')) else {
            continue;
        };
        let Some(quoted) = rest.trim_start().strip_prefix('"') else {
            continue;
        };
        let value = quoted.split('"').next().unwrap_or_default().to_owned();
        if name.trim() == field {
            values.insert(index, value);
        } else if by == Some(name.trim()) {
            keys.insert(index, value);
        }
    }
    let key = |index| match by {
        Some(_) => keys.get(&index).cloned().map(Key::Name),
        None => Some(Key::Index(index)),
    };
    values
        .into_iter()
        .filter_map(|(index, value)| Some((key(index)?, value)))
        .collect()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Index(usize),
    Name(String),
}

struct Reader {
    kernels: BTreeMap<String, Kernel>,
    /// The attribute paths of constants, by their variables.
    constants: BTreeMap<Key, String>,
    /// The constants that other variables are views of.
    aliases: BTreeMap<String, BTreeSet<String>>,
    calls: Vec<Call>,
}

impl Reader {
    fn statement(&mut self, text: &str) {
        let called = words(text).find_map(|(at, word)| {
            let behind = text.get(at + word.len()..)?;
            let known = self.kernels.contains_key(word) || word.starts_with(SHIM);
            (known && behind.starts_with('(')).then_some((word, behind))
        });
        let reads = self.reads(text);
        match called {
            Some((symbol, behind)) => {
                let given = arguments(behind).unwrap_or_default();
                let call = match self.kernels.get(symbol) {
                    Some(kernel) => of_kernel(symbol, kernel, reads),
                    None => of_shim(symbol, &given, reads),
                };
                self.calls.push(call);
            }
            None => {
                if let Some((name, _)) = text.split_once('=')
                    && let Some((_, name)) = words(name).last()
                    && !reads.is_empty()
                {
                    self.aliases.insert(name.to_owned(), reads);
                }
            }
        }
    }

    /// The constants that the text names, by themselves or by views.
    fn reads(&self, text: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (_, word) in words(text) {
            if let Some(path) = self.constants.get(&Key::Name(word.to_owned())) {
                found.insert(path.clone());
            } else if let Some(paths) = self.aliases.get(word) {
                found.extend(paths.iter().cloned());
            }
        }
        found
    }
}

fn of_kernel(symbol: &str, kernel: &Kernel, reads: BTreeSet<String>) -> Call {
    let mut outputs = Vec::new();
    let mut integers = 0;
    for (float, written) in kernel {
        if *written {
            outputs.push(Output {
                how: How::Data,
                position: integers,
            });
        }
        integers += usize::from(!float);
    }
    Call {
        symbol: symbol.to_owned(),
        integers,
        floats: kernel.len() - integers,
        outputs,
        reads,
    }
}

fn of_shim(symbol: &str, given: &[&str], reads: BTreeSet<String>) -> Call {
    let writes_first = symbol.ends_with("_out") || symbol.ends_with('_');
    let mut outputs = Vec::new();
    let mut integers = 0;
    for (at, argument) in given.iter().enumerate() {
        let new = argument.starts_with('&') && argument.ends_with("_handle");
        let how = match (new, at) {
            (true, _) => Some(How::Result),
            (false, 0) if writes_first => Some(How::Handle),
            _ => None,
        };
        if let Some(how) = how {
            outputs.push(Output {
                how,
                position: integers,
            });
        }
        integers += usize::from(!is_float(argument));
    }
    Call {
        symbol: symbol.to_owned(),
        integers,
        floats: given.len() - integers,
        outputs,
        reads,
    }
}

/// Whether an argument is a floating-point number: generated code writes those with a point or an exponent, and integers
/// without.
fn is_float(text: &str) -> bool {
    let cast = text.starts_with("static_cast<double>") || text.starts_with("static_cast<float>");
    let digits = text.trim_start_matches('-');
    let number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let whole = digits.chars().all(|c| c.is_ascii_digit() || c == 'L');
    cast || number && !whole && !digits.starts_with("0x") && digits.parse::<f64>().is_ok()
        || text.contains("numeric_limits<double>")
        || matches!(digits, "INFINITY" | "NAN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_apart() {
        for text in [
            "0.5",
            "-1.0",
            "1e-05",
            "static_cast<double>(x)",
            "-INFINITY",
        ] {
            assert!(is_float(text), "{text}");
        }
        for text in ["0", "-1L", "4LL", "buf0", "&buf1_handle", "s0"] {
            assert!(!is_float(text), "{text}");
        }
    }
}

//! Patch files: TOML with one `[[patch]]` for each patch.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use super::{Kind, Number, PatchSpec, RunRange, Value};
use crate::error::{Error, Result};
use crate::path::{NodePath, Slice};
use crate::tensor::FileValue;
use crate::whole;

/// The kinds of a patch in a file.
const KINDS: &str = "zero, add, replace, probe or record";
/// What a patch can say.
const FIELDS: &str = "path, slice, kind, value, limit or runs";

/// Reads the patches of a file, in their order. Files that it names are relative to it.
///
/// # Errors
///
/// [`Error::File`] for a file that cannot be read, [`Error::Format`] with line and column of what is wrong in it.
pub fn load(file: &Path) -> Result<Vec<PatchSpec>> {
    let bytes = whole::read(file)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, file),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let fault = Fault::at(valid.len()..valid.len(), "not UTF-8 text");
            Err(fault.of(file, &String::from_utf8_lossy(valid)))
        }
    }
}

/// Reads the text of `file`.
///
/// # Errors
///
/// [`Error::Format`] with line and column of what is wrong.
pub fn parse(text: &str, file: &Path) -> Result<Vec<PatchSpec>> {
    let folder = file.parent().unwrap_or(Path::new(""));
    patches(text, folder).map_err(|fault| fault.of(file, text))
}

/// What is wrong, and where in the text.
struct Fault {
    span: Range<usize>,
    why: String,
}

impl Fault {
    fn at(span: Range<usize>, why: impl Display) -> Fault {
        let why = why.to_string();
        Fault { span, why }
    }

    /// With the place as a reader counts it: lines and characters from 1.
    fn of(self, file: &Path, text: &str) -> Error {
        let before = text.get(..self.span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let last = before.rsplit('\n').next().unwrap_or_default();
        Error::Format {
            file: file.to_owned(),
            place: format!("line {line}, column {}", last.chars().count() + 1),
            why: self.why,
        }
    }
}

fn patches(text: &str, folder: &Path) -> Result<Vec<PatchSpec>, Fault> {
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        Fault::at(span, error.message())
    })?;
    let mut patches = Vec::new();
    for (key, value) in table.get_ref() {
        if key.get_ref() != "patch" {
            let why = format!("unknown field `{}`: expected [[patch]]", key.get_ref());
            return Err(Fault::at(key.span(), why));
        }
        let DeValue::Array(entries) = value.get_ref() else {
            return Err(Fault::at(key.span(), "write [[patch]], with two brackets"));
        };
        for entry in entries.iter() {
            let DeValue::Table(fields) = entry.get_ref() else {
                return Err(expected("a [[patch]] table", entry));
            };
            let entry = Entry {
                fields,
                span: entry.span(),
                folder,
            };
            patches.push(entry.patch()?);
        }
    }
    Ok(patches)
}

type Field<'a> = &'a Spanned<DeValue<'a>>;

fn expected(what: &str, found: &Spanned<DeValue<'_>>) -> Fault {
    let kind = found.get_ref().type_str();
    let article = if kind.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    Fault::at(
        found.span(),
        format!("expected {what}, not {article} {kind}"),
    )
}

/// The message of a parser without the text, which stands in the file.
fn inside(error: Error) -> String {
    match error {
        Error::Parse { what, at, why, .. } => format!("{what}: {why} (at character {at})"),
        Error::File { file, why } => format!("{}: {why}", file.display()),
        other => other.to_string(),
    }
}

fn string<'a>(what: &str, field: Field<'a>) -> Result<&'a str, Fault> {
    field
        .get_ref()
        .as_str()
        .ok_or_else(|| expected(what, field))
}

fn integer<T>(field: Field<'_>, from: impl Fn(&str, u32) -> Option<T>) -> Result<T, Fault> {
    let fail = || Fault::at(field.span(), "this integer is too large");
    let number = field
        .get_ref()
        .as_integer()
        .ok_or_else(|| expected("an integer", field))?;
    from(number.as_str(), number.radix()).ok_or_else(fail)
}

/// One `[[patch]]`.
struct Entry<'a> {
    fields: &'a DeTable<'a>,
    span: Range<usize>,
    folder: &'a Path,
}

impl<'a> Entry<'a> {
    fn patch(&self) -> Result<PatchSpec, Fault> {
        for key in self.fields.keys() {
            if !matches!(
                &**key.get_ref(),
                "path" | "slice" | "kind" | "value" | "limit" | "runs"
            ) {
                let why = format!("unknown field `{}`: expected {FIELDS}", key.get_ref());
                return Err(Fault::at(key.span(), why));
            }
        }
        let path = self.needed("path", "path = \"layers_0.mlp.output\"")?;
        let parsed: NodePath = self.text("the path in quotes", path)?;
        if parsed.is_root() {
            return Err(Fault::at(path.span(), "the path is missing"));
        }
        let kind = self.kind()?;
        let slice = match self.field("slice") {
            None => Slice::whole(),
            Some(slice) if kind.keeps() => {
                let why = "a probe or record keeps the whole value: it takes no slice";
                return Err(Fault::at(slice.span(), why));
            }
            Some(slice) => self.text("a slice in quotes, such as \"[..., 0]\"", slice)?,
        };
        Ok(PatchSpec {
            path: parsed,
            slice,
            kind,
            runs: self.runs()?,
        })
    }

    fn field(&self, name: &str) -> Option<Field<'a>> {
        self.fields.get(name)
    }

    fn needed(&self, name: &str, example: &str) -> Result<Field<'a>, Fault> {
        let why = || {
            Fault::at(
                self.span.clone(),
                format!("`{name}` is missing: write {example}"),
            )
        };
        self.field(name).ok_or_else(why)
    }

    fn text<T: std::str::FromStr<Err = Error>>(
        &self,
        what: &str,
        field: Field<'a>,
    ) -> Result<T, Fault> {
        let parsed = string(what, field)?.parse();
        parsed.map_err(|error| Fault::at(field.span(), inside(error)))
    }

    fn kind(&self) -> Result<Kind, Fault> {
        let kind = self.needed(
            "kind",
            "kind = \"zero\" (or \"add\", \"replace\", \"probe\", \"record\")",
        )?;
        let word = string(KINDS, kind)?;
        let made = match word {
            "zero" => Kind::Zero,
            "add" => Kind::Add(self.value(word)?),
            "replace" => Kind::Replace(self.value(word)?),
            "probe" => Kind::Probe,
            "record" => Kind::Record {
                limit: self.limit()?,
            },
            _ => {
                let why = format!("unknown kind {word:?}: expected {KINDS}");
                return Err(Fault::at(kind.span(), why));
            }
        };
        let takes = match made {
            Kind::Add(_) | Kind::Replace(_) => ["value", ""],
            Kind::Record { .. } => ["limit", ""],
            Kind::Zero | Kind::Probe => ["", ""],
        };
        for name in ["value", "limit"] {
            if let Some(field) = self.field(name).filter(|_| !takes.contains(&name)) {
                return Err(Fault::at(field.span(), format!("{word} takes no {name}")));
            }
        }
        Ok(made)
    }

    fn limit(&self) -> Result<Option<u64>, Fault> {
        let Some(field) = self.field("limit") else {
            return Ok(None);
        };
        match integer(field, |text, radix| u64::from_str_radix(text, radix).ok())? {
            0 => Err(Fault::at(
                field.span(),
                "a record with a limit of 0 keeps nothing",
            )),
            limit => Ok(Some(limit)),
        }
    }

    fn runs(&self) -> Result<RunRange, Fault> {
        let Some(field) = self.field("runs") else {
            return Ok(RunRange::default());
        };
        if field.get_ref().is_integer() {
            return integer(field, |text, radix| {
                RunRange::one(u64::from_str_radix(text, radix).ok()?)
            });
        }
        self.text("runs in quotes, such as \"0\", \"2..\" or \"0..4\"", field)
    }

    fn value(&self, kind: &str) -> Result<Value, Fault> {
        let example = "value = 0.5 or value = { file = \"delta.safetensors\", key = \"clean\" }";
        let field = self.needed("value", example).map_err(|fault| Fault {
            why: format!("{}, for {kind}", fault.why),
            ..fault
        })?;
        Ok(match field.get_ref() {
            DeValue::Integer(_) => Number::Int(integer(field, |text, radix| {
                i64::from_str_radix(text, radix).ok()
            })?)
            .into(),
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(float) => Number::Float(float).into(),
                Err(_) => return Err(Fault::at(field.span(), "this is no number")),
            },
            DeValue::Boolean(yes) => Number::Bool(*yes).into(),
            DeValue::String(_) => match self.text("", field)? {
                Value::File(value) => self.file(field, &value.file, value.key)?,
                number => number,
            },
            DeValue::Table(table) => self.file_table(field, table)?,
            _ => {
                return Err(expected(
                    "a number, a string such as \"1+2j\", or { file, key }",
                    field,
                ));
            }
        })
    }

    fn file_table(&self, field: Field<'a>, table: &'a DeTable<'a>) -> Result<Value, Fault> {
        let (mut file, mut key) = (None, None);
        for (name, value) in table {
            match &**name.get_ref() {
                "file" => file = Some(string("the name of a file in quotes", value)?),
                "key" => key = Some(string("a key in quotes", value)?.to_owned()),
                other => {
                    let why = format!("unknown field `{other}`: expected file or key");
                    return Err(Fault::at(name.span(), why));
                }
            }
        }
        let missing = "`file` is missing: write { file = \"delta.npy\" }";
        let file = file.ok_or_else(|| Fault::at(field.span(), missing))?;
        self.file(field, Path::new(file), key)
    }

    fn file(&self, field: Field<'a>, file: &Path, key: Option<String>) -> Result<Value, Fault> {
        match FileValue::new(self.folder.join(file), key) {
            Ok(value) => Ok(Value::File(value)),
            Err(error) => Err(Fault::at(field.span(), inside(error))),
        }
    }
}

#[cfg(test)]
#[path = "toml_tests.rs"]
mod tests;

//! Where a tensor lies: a file and, if the file can hold several, a key. The readers of the formats (`npy.rs` and its
//! neighbours) know nothing of this module.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{HostTensor, gguf, npy, safetensors, saved};
use crate::error::{Error, Result};

/// `@file.npy`, `@file.safetensors#key`, `@file.gguf#key`, `@file.pt` or `@file.pt#key`. In the name of the file a `\` takes
/// away the meaning of the character after it (`@a\#b.npy`); the key is everything after the `#`, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileValue {
    pub file: PathBuf,
    /// None where a file holds one tensor: an npy file, or what `torch.save` made of a tensor.
    pub key: Option<String>,
}

/// What a file is, by its extension.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Npy,
    Safetensors,
    Gguf,
    Saved,
}

/// The extensions, in small letters.
const EXTENSIONS: [(&str, Format); 5] = [
    ("npy", Format::Npy),
    ("safetensors", Format::Safetensors),
    ("gguf", Format::Gguf),
    ("pt", Format::Saved),
    ("pth", Format::Saved),
];

impl Format {
    fn of(file: &Path) -> Option<Format> {
        let extension = file.extension()?;
        let mut known = EXTENSIONS.into_iter();
        known
            .find(|(name, _)| extension.eq_ignore_ascii_case(name))
            .map(|(_, format)| format)
    }
}

impl FileValue {
    /// A tensor in a file, which need not be there yet.
    ///
    /// # Errors
    ///
    /// [`Error::File`] for an extension that is not npy, safetensors, gguf, pt or pth, and for a key that is missing or too much.
    pub fn new(file: PathBuf, key: Option<String>) -> Result<FileValue> {
        match FileValue::fault(&file, key.as_deref()) {
            None => Ok(FileValue { file, key }),
            Some(why) => {
                let why = why.to_owned();
                Err(Error::File { file, why })
            }
        }
    }

    fn fault(file: &Path, key: Option<&str>) -> Option<&'static str> {
        match (Format::of(file), key) {
            (None, _) => Some(
                "expected a file that ends in .npy, .safetensors, .gguf, .pt or .pth (in its name, write `\\#` for a `#`)",
            ),
            (Some(Format::Npy), Some(_)) => Some(
                "an npy file holds one tensor and has no keys (in its name, write `\\#` for a `#`)",
            ),
            (Some(Format::Safetensors), None) => {
                Some("which of its tensors is meant? Write @file.safetensors#key")
            }
            (Some(Format::Gguf), None) => {
                Some("which of its tensors is meant? Write @file.gguf#name")
            }
            (Some(_), _) => None,
        }
    }

    /// Reads the tensor.
    ///
    /// # Errors
    ///
    /// [`Error::File`] for a file that cannot be read or has no such key, [`Error::Format`] for a damaged or unsuitable file.
    pub fn load(&self) -> Result<HostTensor> {
        match (Format::of(&self.file), &self.key) {
            (Some(Format::Npy), None) => npy::read(&self.file),
            (Some(Format::Safetensors), Some(key)) => safetensors::read(&self.file, key),
            (Some(Format::Gguf), Some(key)) => gguf::read(&self.file, key),
            (Some(Format::Saved), key) => saved::read(&self.file, key.as_deref()),
            _ => Err(Error::File {
                file: self.file.clone(),
                why: FileValue::fault(&self.file, self.key.as_deref())
                    .unwrap_or_default()
                    .to_owned(),
            }),
        }
    }
}

impl FromStr for FileValue {
    type Err = Error;

    fn from_str(text: &str) -> Result<FileValue> {
        let fail = |at: usize, why: &str| Error::Parse {
            what: "value",
            text: text.to_owned(),
            at,
            why: why.to_owned(),
        };
        let Some(name) = text.strip_prefix('@') else {
            return Err(fail(0, "expected `@` and the name of a file"));
        };
        let mut file = String::new();
        let mut key = None;
        let mut chars = name.char_indices();
        while let Some((byte, c)) = chars.next() {
            match c {
                '#' => {
                    key = name.get(byte + 1..).map(str::to_owned);
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, c)) => file.push(c),
                    None => {
                        return Err(fail(text.chars().count() - 1, "nothing follows the `\\`"));
                    }
                },
                c => file.push(c),
            }
        }
        if file.is_empty() {
            return Err(fail(1, "the name of a file is missing"));
        }
        let file = PathBuf::from(file);
        match FileValue::fault(&file, key.as_deref()) {
            None => Ok(FileValue { file, key }),
            Some(why) => Err(fail(1, why)),
        }
    }
}

impl fmt::Display for FileValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("@")?;
        for c in self.file.to_string_lossy().chars() {
            if matches!(c, '#' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        match &self.key {
            Some(key) => write!(f, "#{key}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> FileValue {
        text.parse().unwrap()
    }

    #[test]
    fn files_and_keys() {
        let plain = value("@a/d.npy");
        assert_eq!((plain.file.to_str(), &plain.key), (Some("a/d.npy"), &None));
        let keyed = value("@/x y/D.SafeTensors#layers.0.output|sub_0#1\\");
        assert_eq!(keyed.file.to_str(), Some("/x y/D.SafeTensors"));
        assert_eq!(keyed.key.as_deref(), Some("layers.0.output|sub_0#1\\"));
        let odd = value(r"@a\#\\b.npy");
        assert_eq!(odd.file.to_str(), Some(r"a#\b.npy"));
        assert_eq!(odd.to_string(), r"@a\#\\b.npy");
        assert_eq!(value("@a.safetensors#").key.as_deref(), Some(""));
        assert_eq!(value("@a.GGUF#blk.0").key.as_deref(), Some("blk.0"));
        assert_eq!(value("@a.pt").key, None);
        assert_eq!(value("@a.pth#w.0").key.as_deref(), Some("w.0"));
    }

    #[test]
    fn refusals() {
        for (text, at, why) in [
            ("d.npy", 0, "expected `@`"),
            ("@", 1, "missing"),
            ("@#x", 1, "missing"),
            ("@d", 1, ".npy, .safetensors"),
            ("@d.npz", 1, ".pt or .pth"),
            ("@d.gguf", 1, "#name"),
            ("@a#b.npy", 1, "`\\#`"),
            ("@a.npy#k", 1, "no keys"),
            ("@a.safetensors", 1, "#key"),
            ("@é\\", 2, "nothing follows"),
        ] {
            match text.parse::<FileValue>() {
                Err(Error::Parse {
                    at: found,
                    why: said,
                    ..
                }) => assert!(found == at && said.contains(why), "{text}: {found} {said}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(FileValue::new("d.txt".into(), None).is_err());
        let unchecked = FileValue {
            file: "d.npy".into(),
            key: Some("k".into()),
        };
        assert!(matches!(unchecked.load(), Err(Error::File { .. })));
    }

    #[test]
    fn what_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent.npy");
        let error = npy::read(&absent).unwrap_err().to_string();
        assert!(
            error.contains("absent.npy: there is no such file"),
            "{error}"
        );
        let folder = dir.path().join("folder.safetensors");
        std::fs::create_dir(&folder).unwrap();
        let error = safetensors::read(&folder, "k").unwrap_err().to_string();
        assert!(error.ends_with("is not a regular file"), "{error}");
    }

    proptest! {
        #[test]
        fn parse_of_print_is_identity(name in ".{0,8}", key in prop::option::of(any::<String>())) {
            let extension = if key.is_some() { "safetensors" } else { "npy" };
            let value = FileValue::new(format!("d{name}e.{extension}").into(), key).unwrap();
            prop_assert_eq!(value.to_string().parse::<FileValue>().unwrap(), value);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), grammar in r"@?[a#\\é]{0,4}(\.npy|\.safetensors)?[#\\a]{0,3}") {
            let _ = text.parse::<FileValue>();
            if let Ok(value) = grammar.parse::<FileValue>() {
                prop_assert_eq!(value.to_string().parse::<FileValue>().unwrap(), value);
            }
        }
    }
}

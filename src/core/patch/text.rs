//! A patch as the command line writes it: `PATH[SLICE]=zero`, `…=add:VALUE`, `…=replace:VALUE`, and, for a value that is
//! kept, `PATH=probe`, `PATH=record` or `PATH=record:LIMIT`.

use std::fmt;
use std::str::FromStr;

use super::{Kind, PatchSpec, RunRange, Value};
use crate::error::Error;
use crate::path::{NodePath, Slice};

/// Parses a part of the text; an error names its place in the whole text.
fn part<T: FromStr<Err = Error>>(text: &str, from: usize, to: usize) -> Result<T, Error> {
    let piece = text.get(from..to).unwrap_or_default();
    piece.parse().map_err(|error| match error {
        Error::Parse { at, why, .. } => fail(text, from, at, why),
        other => other,
    })
}

fn fail(text: &str, byte: usize, more: usize, why: impl Into<String>) -> Error {
    let before = text.get(..byte).unwrap_or(text).chars().count();
    Error::Parse {
        what: "patch",
        text: text.to_owned(),
        at: before + more,
        why: why.into(),
    }
}

impl FromStr for PatchSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<PatchSpec, Error> {
        let end = text.len();
        let missing = |at: usize| {
            fail(
                text,
                at,
                0,
                "expected `=zero`, `=add:VALUE` or `=replace:VALUE`",
            )
        };
        let path_end = NodePath::find_unescaped(text, &['[', '=']).ok_or_else(|| missing(end))?;
        let path: NodePath = part(text, 0, path_end)?;
        if path.is_root() {
            return Err(fail(text, 0, 0, "the path is missing"));
        }
        let mut slice_end = path_end;
        if text[path_end..].starts_with('[') {
            let close = text[path_end..]
                .find(']')
                .ok_or_else(|| fail(text, path_end, 0, "this `[` is never closed"))?;
            slice_end += close + 1;
        }
        let slice: Slice = part(text, path_end, slice_end)?;
        let rest = &text[slice_end..];
        let equals = slice_end + rest.len() - rest.trim_start().len();
        if !text[equals..].starts_with('=') {
            return Err(missing(equals));
        }
        let kind = kind(text, equals + 1)?;
        if kind.keeps() && slice_end > path_end {
            let why = "a probe or record keeps the whole value: it takes no slice";
            return Err(fail(text, path_end, 0, why));
        }
        let runs = RunRange::default();
        Ok(PatchSpec {
            path,
            slice,
            kind,
            runs,
        })
    }
}

/// Reads what follows the `=`, which begins at byte `from`.
fn kind(text: &str, from: usize) -> Result<Kind, Error> {
    let action = text.get(from..).unwrap_or_default();
    let (word, value) = match action.split_once(':') {
        Some((word, _)) => (word, Some(from + word.len() + 1)),
        None => (action, None),
    };
    let operand = |begin: usize| part::<Value>(text, begin, text.len());
    match (word.trim(), value) {
        ("zero", None) => Ok(Kind::Zero),
        ("add", Some(at)) => Ok(Kind::Add(operand(at)?)),
        ("replace", Some(at)) => Ok(Kind::Replace(operand(at)?)),
        ("probe", None) => Ok(Kind::Probe),
        ("record", None) => Ok(Kind::Record { limit: None }),
        ("record", Some(at)) => match limit(text.get(at..).unwrap_or_default()) {
            Ok(limit) => Ok(Kind::Record { limit: Some(limit) }),
            Err(why) => Err(fail(text, at, 0, why)),
        },
        (word @ ("zero" | "probe"), Some(at)) => {
            Err(fail(text, at, 0, format!("{word} takes no value")))
        }
        (word @ ("add" | "replace"), None) => Err(fail(
            text,
            text.len(),
            0,
            format!("expected `:VALUE` after {word}"),
        )),
        (word, _) => Err(fail(
            text,
            from,
            0,
            format!(
                "unknown patch {word:?}: expected zero, add:VALUE, replace:VALUE, probe or record"
            ),
        )),
    }
}

/// How many values a record keeps.
fn limit(text: &str) -> Result<u64, &'static str> {
    let digits = text.trim();
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(0) => Err("a record with a limit of 0 keeps nothing"),
        Ok(limit) if number => Ok(limit),
        _ => Err("expected how many values the record keeps, such as record:10"),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Zero => f.write_str("zero"),
            Kind::Add(value) => write!(f, "add:{value}"),
            Kind::Replace(value) => write!(f, "replace:{value}"),
            Kind::Probe => f.write_str("probe"),
            Kind::Record { limit: None } => f.write_str("record"),
            Kind::Record { limit: Some(limit) } => write!(f, "record:{limit}"),
        }
    }
}

impl fmt::Display for PatchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}={}", self.path, self.slice, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Number;
    use super::super::value::tests::any_value;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_patches() {
        let patch: PatchSpec = "layers_0.mlp.output[..., 0]=add:0.5".parse().unwrap();
        assert_eq!(patch.path.to_string(), "layers_0.mlp.output");
        assert_eq!(patch.slice.to_string(), "[..., 0]");
        assert_eq!(patch.kind, Kind::Add(Number::Float(0.5).into()));
        for (text, canonical) in [
            ("x=zero", "x=zero"),
            ("x[ 1 :2] = zero", "x[1:2]=zero"),
            ("output|sub_0[3]=replace:1", "output|sub_0[3]=replace:1"),
            (
                "output|a\\=b\\[c=add: -1e3 ",
                "output|a\\=b\\[c=add:-1000.0",
            ),
            ("x=replace:1+2j", "x=replace:1.0+2.0j"),
            ("x= probe ", "x=probe"),
            ("x=record", "x=record"),
            ("output|sub_0=record: 10 ", "output|sub_0=record:10"),
            ("x[0]=add:@d.npy", "x[0]=add:@d.npy"),
            (
                "x=replace: @a:b.safetensors#k=[0]",
                "x=replace:@a:b.safetensors#k=[0]",
            ),
        ] {
            assert_eq!(text.parse::<PatchSpec>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn says_where_it_fails() {
        for (text, at, why) in [
            ("x", 1, "expected `=zero`"),
            ("", 0, "expected `=zero`"),
            ("=zero", 0, "path is missing"),
            ("[1]=zero", 0, "path is missing"),
            ("x.=zero", 2, "a name is missing"),
            ("é[1=zero", 1, "never closed"),
            ("é[1,::0]=zero", 6, "zero"),
            ("x[1]zero", 4, "expected `=zero`"),
            ("x[1][2]=zero", 4, "expected `=zero`"),
            ("x=sub:1", 2, "unknown patch \"sub\""),
            ("x=", 2, "unknown patch"),
            ("x=zero:1", 7, "takes no value"),
            ("x=add", 5, "expected `:VALUE`"),
            ("x=add:", 6, "missing"),
            ("x=add:one", 6, "expected a number"),
            ("x=add:@d.txt", 7, ".npy"),
            ("x=add: @", 8, "name of a file"),
            ("x[0]=probe", 1, "takes no slice"),
            ("x[]=probe", 2, "expected"),
            ("x[:]=record", 1, "takes no slice"),
            ("x=probe:1", 8, "takes no value"),
            ("x=record:", 9, "how many"),
            ("x=record:-1", 9, "how many"),
            ("x=record:+1", 9, "how many"),
            ("x=record:0", 9, "keeps nothing"),
        ] {
            match text.parse::<PatchSpec>() {
                Err(Error::Parse {
                    what: "patch",
                    at: found,
                    why: reason,
                    ..
                }) => {
                    assert!(
                        found == at && reason.contains(why),
                        "{text}: {found} {reason}"
                    );
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn serde_round_trip() {
        let patch: PatchSpec = "a.b|c[0]=add:nan".parse().unwrap();
        let json = serde_json::to_string(&patch).unwrap();
        assert_eq!(
            json,
            r#"{"path":"a.b|c","slice":"[0]","kind":{"add":"nan"}}"#
        );
        assert_eq!(
            serde_json::from_str::<PatchSpec>(&json)
                .unwrap()
                .to_string(),
            patch.to_string()
        );
        let runs = RunRange {
            from: 2,
            until: None,
        };
        let kept = PatchSpec {
            runs,
            .."a=record:3".parse().unwrap()
        };
        let json = serde_json::to_string(&kept).unwrap();
        assert_eq!(
            json,
            r#"{"path":"a","kind":{"record":{"limit":3}},"runs":"2.."}"#
        );
        assert_eq!(serde_json::from_str::<PatchSpec>(&json).unwrap(), kept);
    }

    proptest! {
        #[test]
        fn parse_of_print_is_identity(
            root in prop::option::of(".+"),
            names in prop::collection::vec(".+", 1..3),
            dig in prop::collection::vec(".+", 0..3),
            slice in "(\\[[0-9]{1,3}(, (:|\\.\\.\\.|None))?\\])?",
            value in any_value(),
            limit in prop::option::of(1..u64::MAX),
            which in 0..5,
        ) {
            let kind = match which {
                0 => Kind::Zero,
                1 => Kind::Add(value),
                2 => Kind::Replace(value),
                3 => Kind::Probe,
                _ => Kind::Record { limit },
            };
            let slice = if kind.keeps() { Slice::whole() } else { slice.parse().unwrap() };
            let patch = PatchSpec { path: NodePath { root, names, dig }, slice, kind, runs: RunRange::default() };
            prop_assert_eq!(patch.to_string().parse::<PatchSpec>().unwrap(), patch);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), grammar in "[xé.|\\\\]{0,3}(\\[[0-9:é]{0,3}\\]?)?=?(zero|add|replace|probe|record)?:?@?[0-9é#]?") {
            let _ = text.parse::<PatchSpec>();
            let _ = grammar.parse::<PatchSpec>();
        }
    }
}

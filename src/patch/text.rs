//! A patch as the command line writes it: `PATH[SLICE]=zero`, `…=add:VALUE`, `…=replace:VALUE`.

use std::fmt;
use std::str::FromStr;

use super::{Kind, Number, PatchSpec};
use crate::error::Error;
use crate::path::{NodePath, Slice};

/// Runs a parser on a part of the text; its error speaks of the whole.
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
        Ok(PatchSpec { path, slice, kind })
    }
}

/// Reads what stands behind the `=`, which begins at byte `from`.
fn kind(text: &str, from: usize) -> Result<Kind, Error> {
    let action = text.get(from..).unwrap_or_default();
    let (word, value) = match action.split_once(':') {
        Some((word, _)) => (word, Some(from + word.len() + 1)),
        None => (action, None),
    };
    let number = |begin: usize| part::<Number>(text, begin, text.len());
    match (word.trim(), value) {
        ("zero", None) => Ok(Kind::Zero),
        ("zero", Some(at)) => Err(fail(text, at, 0, "zero takes no value")),
        ("add", Some(at)) => Ok(Kind::Add(number(at)?)),
        ("replace", Some(at)) => Ok(Kind::Replace(number(at)?)),
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
            format!("unknown patch {word:?}: expected zero, add:VALUE or replace:VALUE"),
        )),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Zero => f.write_str("zero"),
            Kind::Add(value) => write!(f, "add:{value}"),
            Kind::Replace(value) => write!(f, "replace:{value}"),
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
    use super::super::number::tests::any_number;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_patches() {
        let patch: PatchSpec = "layers_0.mlp.output[..., 0]=add:0.5".parse().unwrap();
        assert_eq!(patch.path.to_string(), "layers_0.mlp.output");
        assert_eq!(patch.slice.to_string(), "[..., 0]");
        assert_eq!(patch.kind, Kind::Add(Number::Float(0.5)));
        for (text, canonical) in [
            ("x=zero", "x=zero"),
            ("x[ 1 :2] = zero", "x[1:2]=zero"),
            ("output|sub_0[3]=replace:1", "output|sub_0[3]=replace:1"),
            (
                "output|a\\=b\\[c=add: -1e3 ",
                "output|a\\=b\\[c=add:-1000.0",
            ),
            ("x=replace:1+2j", "x=replace:1.0+2.0j"),
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
            ("x=add:@d.npy", 6, "not supported yet"),
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
    }

    proptest! {
        #[test]
        fn parse_of_print_is_identity(
            names in prop::collection::vec(".+", 1..3),
            dig in prop::collection::vec(".+", 0..3),
            slice in "(\\[[0-9]{1,3}(, (:|\\.\\.\\.|None))?\\])?",
            number in any_number(),
            which in 0..3,
        ) {
            let kind = match which { 0 => Kind::Zero, 1 => Kind::Add(number), _ => Kind::Replace(number) };
            let patch = PatchSpec { path: NodePath { names, dig }, slice: slice.parse().unwrap(), kind };
            prop_assert_eq!(patch.to_string().parse::<PatchSpec>().unwrap(), patch);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), grammar in "[xé.|\\\\]{0,3}(\\[[0-9:é]{0,3}\\]?)?=?(zero|add|replace)?:?[0-9é]?") {
            let _ = text.parse::<PatchSpec>();
            let _ = grammar.parse::<PatchSpec>();
        }
    }
}

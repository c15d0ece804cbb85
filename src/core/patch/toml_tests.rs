//! Tests of patch files.

use super::super::runs::tests::any_runs;
use super::super::value::tests::any_value;
use super::*;
use proptest::prelude::*;

fn read(text: &str) -> Result<Vec<PatchSpec>> {
    parse(text, Path::new("dir/p.toml"))
}

#[test]
fn reads_patches_in_order() {
    let patches = read(
        r#"
[[patch]]
path = "layers_0.mlp.output"
slice = "[..., 0]"
kind = "add"
value = 0.5            # or: value = { file = "delta.safetensors", key = "clean" }
runs = "0.."

[[patch]]
path = "a|b"
kind = "replace"
value = { file = "delta.safetensors", key = "clean" }
runs = "0..4"

[[patch]]
path = "a"
kind = "replace"
value = { file = "/x#/d.npy" }
runs = 3

[[patch]]
kind = "zero"
path = 'a'
[[patch]]
path = "a"
kind = "probe"
[[patch]]
path = "a"
kind = "record"
limit = 0x10
"#,
    )
    .unwrap();
    let texts: Vec<String> = patches.iter().map(PatchSpec::to_string).collect();
    assert_eq!(
        texts,
        [
            "layers_0.mlp.output[..., 0]=add:0.5",
            "a|b=replace:@dir/delta.safetensors#clean",
            "a=replace:@/x\\#/d.npy",
            "a=zero",
            "a=probe",
            "a=record:16",
        ]
    );
    let runs: Vec<String> = patches.iter().map(|patch| patch.runs.to_string()).collect();
    assert_eq!(runs, ["0..", "0..4", "3", "0..", "0..", "0.."]);
    assert!(read("").unwrap().is_empty() && read("patch = []").unwrap().is_empty());
    assert_eq!(
        read("patch = [{path = \"a\", kind = \"zero\"}]")
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn values() {
    for (value, text) in [
        ("1", "1"),
        ("-1_000", "-1000"),
        ("0xff", "255"),
        ("1.0", "1.0"),
        ("1e3", "1000.0"),
        ("-inf", "-inf"),
        ("nan", "nan"),
        ("true", "true"),
        ("\"1+2j\"", "1.0+2.0j"),
        ("'@d.npy'", "@dir/d.npy"),
        ("'@/d.safetensors#k'", "@/d.safetensors#k"),
        ("{ file = 'd.npy' }", "@dir/d.npy"),
    ] {
        let text = format!("a=add:{text}");
        let patches = read(&format!("[[patch]]\npath='a'\nkind='add'\nvalue={value}")).unwrap();
        assert_eq!(patches[0].to_string(), text);
    }
}

#[test]
fn faults_have_a_place() {
    let patch = |rest: &str| format!("[[patch]]\npath = 'a'\n{rest}");
    let add = |value: &str| patch(&format!("kind = 'add'\nvalue = {value}"));
    for (text, line, column, why) in [
        ("[[patch]\n".to_owned(), 1, 9, "expected `]`"),
        (
            "[[patches]]\n".to_owned(),
            1,
            3,
            "`patches`: expected [[patch]]",
        ),
        ("[patch]\npath = 'a'".to_owned(), 1, 2, "two brackets"),
        (
            "patch = [1]".to_owned(),
            1,
            10,
            "expected a [[patch]] table, not an integer",
        ),
        (
            "\n[[patch]]\nkind = 'zero'".to_owned(),
            2,
            1,
            "`path` is missing: write path =",
        ),
        (
            "[[patch]]\npath = 3".to_owned(),
            2,
            8,
            "expected the path in quotes, not an integer",
        ),
        (
            "[[patch]]\npath = ''\nkind = 'zero'".to_owned(),
            2,
            8,
            "path is missing",
        ),
        (
            "[[patch]]\npath = 'a..b'\nkind = 'zero'".to_owned(),
            2,
            8,
            "path: a name is missing here (at character 2)",
        ),
        (
            "[[patch]]\npath = 'a[0]'\nkind = 'zero'".to_owned(),
            2,
            8,
            "path",
        ),
        (
            patch("kidn = 'zero'"),
            3,
            1,
            "unknown field `kidn`: expected path, slice",
        ),
        (patch(""), 1, 1, "`kind` is missing"),
        (
            patch("kind = 1"),
            3,
            8,
            "expected zero, add, replace, probe or record, not an integer",
        ),
        (
            patch("kind = 'sub'"),
            3,
            8,
            "unknown kind \"sub\": expected zero",
        ),
        (
            patch("kind = 'zero'\nslice = 0"),
            4,
            9,
            "expected a slice in quotes",
        ),
        (patch("kind = 'zero'\nslice = '[é'"), 4, 9, "slice: "),
        (
            patch("kind = 'zero'\nvalue = 1"),
            4,
            9,
            "zero takes no value",
        ),
        (
            patch("kind = 'add'"),
            1,
            1,
            "`value` is missing: write value = 0.5",
        ),
        (
            patch("kind = 'add'\nvalue = 1\nlimit = 1"),
            5,
            9,
            "add takes no limit",
        ),
        (
            patch("kind = 'probe'\nslice = '[0]'"),
            4,
            9,
            "takes no slice",
        ),
        (
            patch("kind = 'probe'\nlimit = 1"),
            4,
            9,
            "probe takes no limit",
        ),
        (patch("kind = 'record'\nlimit = 0"), 4, 9, "keeps nothing"),
        (patch("kind = 'record'\nlimit = -1"), 4, 9, "too large"),
        (
            patch("kind = 'record'\nlimit = '1'"),
            4,
            9,
            "expected an integer, not a string",
        ),
        (patch("kind = 'zero'\nruns = '4..4'"), 4, 8, "runs: no run"),
        (
            patch("kind = 'zero'\nruns = [0]"),
            4,
            8,
            "expected runs in quotes",
        ),
        (
            add("[1, 2]"),
            4,
            9,
            "expected a number, a string such as \"1+2j\", or { file, key }, not an array",
        ),
        (add("1979-05-27"), 4, 9, "not a datetime"),
        (add("'one'"), 4, 9, "value: expected a number"),
        (add("99999999999999999999"), 4, 9, "too large"),
        (add("{ key = 'k' }"), 4, 9, "`file` is missing"),
        (add("{ file = 1 }"), 4, 18, "the name of a file in quotes"),
        (
            add("{ file = 'd.npy', kye = 'k' }"),
            4,
            27,
            "unknown field `kye`",
        ),
        (
            add("{ file = 'd.txt' }"),
            4,
            9,
            "dir/d.txt: expected a file that ends in",
        ),
        (add("{ file = 'd.safetensors' }"), 4, 9, "#key"),
        (
            "# é\n[[patch]]\n\"é\" = 1".to_owned(),
            3,
            1,
            "unknown field `é`",
        ),
    ] {
        match read(&text) {
            Err(Error::Format {
                place,
                why: said,
                file,
            }) => {
                assert_eq!(
                    place,
                    format!("line {line}, column {column}"),
                    "{text}\n{said}"
                );
                assert!(said.contains(why), "{text}\n{said}");
                assert_eq!(file, Path::new("dir/p.toml"));
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("p.toml");
    std::fs::write(&name, b"# \xff").unwrap();
    let error = load(&name).unwrap_err().to_string();
    assert!(
        error.ends_with("line 1, column 3: not UTF-8 text"),
        "{error}"
    );
    assert!(matches!(
        load(&dir.path().join("absent.toml")),
        Err(Error::File { .. })
    ));
}

/// The patch as TOML.
fn table(patch: &PatchSpec) -> ::toml::Table {
    let mut table = ::toml::Table::new();
    let mut put = |name: &str, value: ::toml::Value| table.insert(name.to_owned(), value);
    put("path", patch.path.to_string().into());
    if !patch.slice.is_whole() {
        put("slice", patch.slice.to_string().into());
    }
    if !patch.runs.is_all() {
        put("runs", patch.runs.to_string().into());
    }
    if let Some(value) = patch.kind.value() {
        put(
            "value",
            match value {
                Value::Number(Number::Bool(yes)) => (*yes).into(),
                Value::Number(Number::Int(number)) => (*number).into(),
                Value::Number(Number::Float(number)) => (*number).into(),
                Value::Number(complex) => complex.to_string().into(),
                Value::File(value) => {
                    let mut table = ::toml::Table::new();
                    table.insert("file".into(), value.file.to_str().unwrap().into());
                    if let Some(key) = &value.key {
                        table.insert("key".into(), key.clone().into());
                    }
                    table.into()
                }
            },
        );
    }
    if let Kind::Record { limit: Some(limit) } = patch.kind {
        put("limit", (limit as i64).into());
    }
    let kind = patch.kind.to_string();
    put("kind", kind.split(':').next().unwrap().into());
    table
}

fn any_patch() -> impl Strategy<Value = PatchSpec> {
    let names = || prop::collection::vec(".+", 1..3);
    let slice = "(\\[[0-9]{1,3}(, (:|\\.\\.\\.|None))?\\])?";
    let limit = prop::option::of(1..i64::MAX as u64);
    (
        (prop::option::of(".+"), names()),
        names(),
        slice,
        any_value(),
        any_runs(),
        limit,
        0..5,
    )
        .prop_map(|((root, names), dig, slice, value, runs, limit, which)| {
            let kind = match which {
                0 => Kind::Zero,
                1 => Kind::Add(value),
                2 => Kind::Replace(value),
                3 => Kind::Probe,
                _ => Kind::Record { limit },
            };
            let slice = if kind.keeps() {
                Slice::whole()
            } else {
                slice.parse().unwrap()
            };
            PatchSpec {
                path: NodePath { root, names, dig },
                slice,
                kind,
                runs,
            }
        })
}

proptest! {
    #[test]
    fn parse_of_print_is_identity(patches in prop::collection::vec(any_patch(), 0..4)) {
        let mut file = ::toml::Table::new();
        let tables: Vec<::toml::Value> = patches.iter().map(|patch| table(patch).into()).collect();
        file.insert("patch".into(), tables.into());
        let text = ::toml::to_string(&file).unwrap();
        prop_assert_eq!(parse(&text, Path::new("p.toml")).unwrap(), patches);
    }

    #[test]
    fn no_text_panics(
        text in any::<String>(),
        lines in prop::collection::vec(
            "(\\[\\[?patch\\]?\\]|(path|slice|kind|value|limit|runs|é) ?= ?('[a-z@.#\\[0é]{0,6}'|-?[0-9x]{1,4}|\\{ ?(file|key)='a.npy'\\}?|inf|\\[\\]))",
            0..6,
        ),
    ) {
        let _ = read(&text);
        let _ = read(&lines.join("\n"));
        let _ = read(&format!("[[patch]]\npath='a'\n{}", lines.join("\n")));
    }
}

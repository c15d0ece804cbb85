//! Saved graphs: JSON with a format number.

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Graph, Node, Value};
use crate::error::{Error, Result};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// serde_json reads no deeper than this, so nothing deeper may be written.
const MOST_NESTED: usize = 127;

/// What `--graph FILE` saves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphFile {
    /// The format of the file, [`FORMAT`] in this version.
    pub format: u32,
    /// One graph for each root.
    pub graphs: Vec<Graph>,
}

impl GraphFile {
    /// A file of today's format.
    pub fn new(graphs: Vec<Graph>) -> GraphFile {
        GraphFile {
            format: FORMAT,
            graphs,
        }
    }

    /// Writes the file as a whole or not at all: a reader never sees half of it.
    pub fn save(&self, file: &Path) -> Result<()> {
        let fail = |why: String| Error::File {
            file: file.to_owned(),
            why,
        };
        let mut json =
            serde_json::to_vec(self).map_err(|e| fail(format!("cannot be written: {e}")))?;
        if nesting(&json) > MOST_NESTED {
            return Err(fail(
                "the scopes or values are nested too deeply to be saved".to_owned(),
            ));
        }
        json.push(b'\n');
        replace(file, &json).map_err(|e| fail(format!("cannot be written: {e}")))
    }

    /// Reads a file, naming the place where it is damaged, foreign or from a later version.
    pub fn load(file: &Path) -> Result<GraphFile> {
        let bytes = std::fs::read(file).map_err(|e| Error::File {
            file: file.to_owned(),
            why: e.to_string(),
        })?;
        GraphFile::read(&bytes, file)
    }

    /// Reads the bytes of `file`.
    pub fn read(bytes: &[u8], file: &Path) -> Result<GraphFile> {
        GraphFile::parse(bytes).map_err(|Fault { place, why }| Error::Format {
            file: file.to_owned(),
            place,
            why,
        })
    }

    fn parse(bytes: &[u8]) -> Result<GraphFile, Fault> {
        let any: serde_json::Value = serde_json::from_slice(bytes).map_err(Fault::json)?;
        let foreign = |place: &str, why: &str| {
            Err(Fault::at(
                place,
                format!("not a graph saved by graphpatch: {why}"),
            ))
        };
        let Some(object) = any.as_object() else {
            return foreign("the beginning", "it is not a JSON object");
        };
        match object.get("format").map(serde_json::Value::as_u64) {
            None => return foreign("`format`", "it is missing"),
            Some(None | Some(0)) => return foreign("`format`", "it is not a version number"),
            Some(Some(format)) if format > u64::from(FORMAT) => {
                let why = format!(
                    "the file has format {format}; this version of graphpatch reads up to format {FORMAT}"
                );
                return Err(Fault::at("`format`", why));
            }
            Some(Some(_)) => {}
        }
        if !object
            .get("graphs")
            .is_some_and(serde_json::Value::is_array)
        {
            return foreign("`graphs`", "it is missing or not a list");
        }
        let saved: GraphFile = serde_json::from_slice(bytes).map_err(Fault::json)?;
        for (i, graph) in saved.graphs.iter().enumerate() {
            let place = format!("graphs[{i}].root");
            if !graph.root.is_scope() {
                return Err(Fault::at(place, "the root is not a scope"));
            }
            validate(&graph.root, &place)?;
        }
        Ok(saved)
    }
}

/// Where and why a file is refused.
struct Fault {
    place: String,
    why: String,
}

impl Fault {
    fn at(place: impl Into<String>, why: impl Into<String>) -> Fault {
        Fault {
            place: place.into(),
            why: why.into(),
        }
    }

    fn json(error: serde_json::Error) -> Fault {
        let place = format!("line {}, column {}", error.line(), error.column());
        let text = error.to_string();
        let why = text
            .rsplit_once(" at line ")
            .map_or(&*text, |(why, _)| why)
            .to_owned();
        match error.classify() {
            serde_json::error::Category::Data => Fault { place, why },
            _ => Fault {
                place,
                why: format!("damaged, not valid JSON: {why}"),
            },
        }
    }
}

/// What the types alone do not say, and what the other files of this room rely on.
fn validate(node: &Node, place: &str) -> Result<(), Fault> {
    if node.name.is_empty() {
        return Err(Fault::at(format!("{place}.name"), "a node without a name"));
    }
    if !node.is_scope() && !node.children.is_empty() {
        return Err(Fault::at(
            format!("{place}.children"),
            "only a scope has children",
        ));
    }
    validate_value(&node.value, &format!("{place}.value"))?;
    let mut names = HashSet::new();
    for (i, child) in node.children.iter().enumerate() {
        let place = format!("{place}.children[{i}]");
        if !names.insert(&child.name) {
            return Err(Fault::at(
                format!("{place}.name"),
                format!("a second node {:?} in one scope", child.name),
            ));
        }
        validate(child, &place)?;
    }
    Ok(())
}

fn validate_value(value: &Value, place: &str) -> Result<(), Fault> {
    if *value == Value::Mixed(Vec::new()) {
        return Err(Fault::at(place, "a mixed value without kinds"));
    }
    if let Value::Mixed(kinds) = value {
        for kind in kinds {
            validate_value(kind, place)?;
        }
        return Ok(());
    }
    let mut keys = HashSet::new();
    for (key, element) in value.elements() {
        validate_value(&element, &format!("{place}.{key}"))?;
        if !keys.insert(key.clone()) {
            return Err(Fault::at(
                place,
                format!("a second key {key:?} in one dict"),
            ));
        }
    }
    Ok(())
}

/// How deep the brackets of a JSON text go.
fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Puts a new file in the place of an old one. What is no regular file (`/dev/stdout`, a pipe) is written into.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if std::fs::metadata(file).is_ok_and(|old| !old.is_file()) {
        return File::options().write(true).open(file)?.write_all(bytes);
    }
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // The permissions are those that an ordinary new file gets: the umask is applied to them.
    let permissions = Permissions::from_mode(0o666);
    let mut temporary = tempfile::Builder::new()
        .prefix(".graph-")
        .permissions(permissions)
        .tempfile_in(folder)?;
    temporary.write_all(bytes)?;
    temporary.persist(file).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{leaf, tensor, tuple_output};
    use super::super::{Arg, Frame, Kind};
    use super::*;

    fn place(json: &str) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("g.json");
        std::fs::write(&file, json).unwrap();
        match GraphFile::load(&file) {
            Err(Error::Format { place, why, .. }) => (place, why),
            other => panic!("{other:?}"),
        }
    }

    fn full() -> GraphFile {
        let mut graph = tuple_output();
        let node = &mut graph.root.children[2];
        node.target = "aten::add.Tensor".into();
        node.args = vec![
            Arg::Node("x".into()),
            Arg::Const("1".into()),
            Arg::Dict(vec![("k".into(), Arg::List(vec![]))]),
        ];
        node.kwargs = vec![("alpha".into(), Arg::Tuple(vec![Arg::Const("1".into())]))];
        node.frames = vec![Frame {
            file: "m.py".into(),
            line: 3,
            function: "forward".into(),
            text: "x + 1".into(),
        }];
        let value = Value::Mixed(vec![
            Value::Dict(vec![("a".into(), Value::Undefined)]),
            Value::Other("T".into()),
        ]);
        graph
            .root
            .children
            .insert(1, leaf(Kind::Input, "odd", value));
        GraphFile::new(vec![graph, Graph::new("empty")])
    }

    #[test]
    fn saves_and_loads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("g.json");
        let saved = full();
        saved.save(&file).unwrap();
        saved.save(&file).unwrap();
        assert_eq!(GraphFile::load(&file).unwrap(), saved);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        GraphFile::new(vec![]).save(Path::new("/dev/null")).unwrap();
        assert!(matches!(
            saved.save(&folder.path().join("no/g.json")),
            Err(Error::File { .. })
        ));
        assert!(matches!(
            GraphFile::load(&folder.path().join("none")),
            Err(Error::File { .. })
        ));
    }

    #[test]
    fn json_is_compact() {
        let json = serde_json::to_string(&leaf(Kind::Op, "add", tensor(&[3]))).unwrap();
        let info = r#"{"shape":[3],"dtype":"float32","device":"cpu","layout":"strided"}"#;
        assert_eq!(
            json,
            format!(r#"{{"name":"add","kind":"op","value":{{"tensor":{info}}}}}"#)
        );
    }

    #[test]
    fn names_the_place() {
        let graph = |root: &str| {
            format!("{{\"format\":1,\"graphs\":[{{\"name\":\"g\",\"runs\":1,\"root\":{root}}}]}}")
        };
        let scope = |children: &str| {
            graph(&format!(
                r#"{{"name":"r","kind":"scope","children":[{children}]}}"#
            ))
        };
        for (json, at, why) in [
            (
                "{\"format\": 1,\n \"graphs\": [",
                "line 2, column 12",
                "damaged",
            ),
            ("", "line 1, column 0", "damaged"),
            ("\u{0}PK", "line 1, column 1", "damaged"),
            ("[1, []]", "the beginning", "not a graph"),
            ("{}", "`format`", "missing"),
            ("{\"format\": \"1.0\"}", "`format`", "not a version number"),
            ("{\"format\": 1}", "`graphs`", "not a graph"),
            (
                "{\"format\": 7, \"graphs\": 3}",
                "`format`",
                "format 7; this version of graphpatch reads up to format 1",
            ),
            (
                "{\"format\":1,\n\"graphs\":[{\"name\":3}]}",
                "line 2, column 19",
                "expected a string",
            ),
            (
                &graph(r#"{"name":"r","kind":"op"}"#),
                "graphs[0].root",
                "not a scope",
            ),
            (
                &scope(r#"{"name":"","kind":"op"}"#),
                "graphs[0].root.children[0].name",
                "without a name",
            ),
            (
                &scope(r#"{"name":"a","kind":"op"},{"name":"a","kind":"op"}"#),
                "graphs[0].root.children[1].name",
                "second",
            ),
            (
                &scope(r#"{"name":"a","kind":"op","children":[{"name":"b","kind":"op"}]}"#),
                "graphs[0].root.children[0].children",
                "only a scope",
            ),
            (
                &scope(r#"{"name":"a","kind":"op","value":{"mixed":[]}}"#),
                "graphs[0].root.children[0].value",
                "mixed",
            ),
        ] {
            let found = place(json);
            assert!(found.0 == at && found.1.contains(why), "{json}: {found:?}");
        }
    }

    #[test]
    fn what_is_saved_can_be_loaded_however_deep() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("g.json");
        let mut depths = 0;
        for depth in 1..80 {
            let mut node = leaf(Kind::Op, "[{\"\\", Value::Int);
            for _ in 0..depth {
                node = Node::new(Kind::Scope, "s").with_children(vec![node]);
            }
            let saved = GraphFile::new(vec![Graph {
                root: node,
                ..Graph::new("g")
            }]);
            if saved.save(&file).is_ok() {
                assert_eq!(GraphFile::load(&file).unwrap(), saved);
                depths = depth;
            }
        }
        assert!((50..79).contains(&depths), "{depths}");
    }

    #[test]
    fn no_damage_panics() {
        let json = serde_json::to_vec(&full()).unwrap();
        for at in 0..json.len() {
            for byte in [b'{', b'"', b'0', b' '] {
                let mut damaged = json.clone();
                damaged[at] = byte;
                let _ = GraphFile::parse(&damaged);
            }
            assert!(GraphFile::parse(&json[..at]).is_err());
        }
    }
}

//! Saved graphs: JSON with a format number.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Graph, Node, Value};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::file_error::not_written;
use crate::file_kind;
use crate::nested;
use crate::output::replace;
use crate::whole;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

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
        if nested::depth(&json) > nested::DEEPEST {
            return Err(fail(
                "the scopes or values are nested too deeply to be saved".to_owned(),
            ));
        }
        json.push(b'\n');
        replace(file, &json).map_err(|why| not_written(file, &why))
    }

    /// Reads a file, naming the place where it is damaged, foreign or from a later version.
    pub fn load(file: &Path) -> Result<GraphFile> {
        GraphFile::read(&whole::read(file)?, file)
    }

    /// Reads the bytes of `file`.
    pub fn read(bytes: &[u8], file: &Path) -> Result<GraphFile> {
        GraphFile::parse(bytes).map_err(|Fault { place, why }| Error::Format {
            file: file.to_owned(),
            place,
            why,
        })
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<GraphFile, Fault> {
        if let Some(what) = other_kind(bytes) {
            return Err(foreign("the beginning", &format!("it is {what}")));
        }
        let too_deep = || Fault::at("the beginning", "it nests more deeply than any graph");
        let read = |mut json: serde_json::Deserializer<_>| {
            let value = serde_json::Value::deserialize(&mut json)?;
            json.end().map(|()| value)
        };
        let any = nested::read(bytes, read)
            .ok_or_else(too_deep)?
            .map_err(of_json)?;
        is_graph_file(&any)?;
        let read = |mut json| serde_path_to_error::deserialize(&mut json);
        let saved: Result<GraphFile, serde_path_to_error::Error<serde_json::Error>> =
            nested::read(bytes, read).ok_or_else(too_deep)?;
        let saved = saved.map_err(|error| {
            let place = error.path().to_string();
            within(of_json(error.into_inner()), &place, &any)
        })?;
        for (i, graph) in saved.graphs.iter().enumerate() {
            let place = format!("graphs[{i}].root");
            if !graph.root.is_scope() {
                return Err(Fault::at(place, "the root is not a scope"));
            }
            validate(&graph.root, &place).map_err(|fault| Fault {
                place: format!("{}{}", fault.place, node_at(&fault.place, &any)),
                ..fault
            })?;
        }
        Ok(saved)
    }
}

/// Checks that JSON is a graph file of a format that this version reads. What is in the graphs is not looked at.
fn is_graph_file(json: &serde_json::Value) -> Result<(), Fault> {
    let Some(object) = json.as_object() else {
        return Err(foreign("the beginning", "it is not a JSON object"));
    };
    match object.get("format").map(serde_json::Value::as_u64) {
        None => return Err(foreign("`format`", "it is missing")),
        Some(None | Some(0)) => return Err(foreign("`format`", "it is not a version number")),
        Some(Some(format)) if format > u64::from(FORMAT) => {
            let why = format!(
                "the file has format {format}; this version of graphpatch ({}) reads up to format {FORMAT}: use a newer \
                 graphpatch, or record the graph again with this one",
                env!("CARGO_PKG_VERSION")
            );
            return Err(Fault::at("`format`", why));
        }
        Some(Some(_)) => {}
    }
    match object.get("graphs") {
        Some(graphs) if graphs.is_array() => Ok(()),
        _ => Err(foreign("`graphs`", "it is missing or not a list")),
    }
}

fn foreign(place: &str, why: &str) -> Fault {
    Fault::at(
        place,
        format!(
            "not a graph saved by graphpatch: {why}; `graphpatch run --graph FILE -- PROGRAM` saves one"
        ),
    )
}

/// Appends the node's path to the place that the JSON reader names.
fn within(fault: Fault, place: &str, any: &serde_json::Value) -> Fault {
    let known = if place == "." || place == "?" {
        ""
    } else {
        place
    };
    let comma = if known.is_empty() { "" } else { ", " };
    Fault {
        place: format!("{}{comma}{known}{}", fault.place, node_at(known, any)),
        ..fault
    }
}

fn of_json(error: serde_json::Error) -> Fault {
    let place = format!("line {}, column {}", error.line(), error.column());
    let text = error.to_string();
    let why = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(why, _)| why)
        .to_owned();
    match error.classify() {
        serde_json::error::Category::Data => Fault { place, why },
        serde_json::error::Category::Eof => Fault {
            place,
            why: "damaged, it ends too early: copy it again, or record the graph again".to_owned(),
        },
        _ => Fault {
            place,
            why: format!("damaged, not valid JSON: {why}"),
        },
    }
}

/// The kind of a file that is not JSON, recognized by its first bytes.
fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    if let Some(what) = file_kind::known(bytes) {
        return Some(what);
    }
    // A safetensors file begins with the header's length in eight bytes, then the header.
    if bytes.get(8) == Some(&b'{') && bytes.get(5..8) == Some(&[0; 3]) {
        return Some("a safetensors file, whose values `graphpatch diff --values` compares");
    }
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Some("empty"),
        Some(_) if bytes.contains(&0) => Some("binary"),
        Some(b'{' | b'[') => None,
        Some(_) => Some("a text, not JSON"),
    }
}

/// The path of the node that a place such as `graphs[0].root.children[3].value` is in, in brackets; empty outside of one.
fn node_at(place: &str, any: &serde_json::Value) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut at = any;
    for part in place.split('.') {
        let (key, index) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
            Some((key, index)) => (key, index.parse::<usize>().ok()),
            None => (part, None),
        };
        let Some(below) = at.get(key).and_then(|found| match index {
            Some(index) => found.get(index),
            None => Some(found),
        }) else {
            break;
        };
        at = below;
        if key == "children" && index.is_some() {
            names.push(
                at.get("name")
                    .and_then(|name| name.as_str())
                    .filter(|name| !name.is_empty())
                    .unwrap_or("?"),
            );
        }
    }
    match names.is_empty() {
        true => String::new(),
        false => format!(" (node {})", names.join(".")),
    }
}

/// Checks what the types alone do not say, and what the other files of this module rely on.
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

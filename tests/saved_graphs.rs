//! Saved graphs and values, and the command on them, for the tests of `graphpatch show`, `complete` and `diff`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use graphpatch_core::graph::{Dim, Graph, GraphFile, Kind, Node, TensorInfo, Value};
use graphpatch_core::tensor::{Dtype, HostTensor, safetensors};

pub fn tensor(shape: &[i64]) -> Value {
    Value::Tensor(TensorInfo {
        shape: shape.iter().map(|size| Dim::of(*size)).collect(),
        dtype: "float32".into(),
        device: "cpu".into(),
        layout: "strided".into(),
    })
}

fn block(name: &str, operations: usize) -> Node {
    let mut children = vec![Node::new(Kind::Input, "x").with_value(tensor(&[2, 768]))];
    for n in 0..operations {
        let mut add = Node::new(Kind::Op, format!("add_{n}")).with_value(tensor(&[2, 768]));
        add.target = "aten::add.Tensor".into();
        children.push(add);
    }
    children.push(Node::new(Kind::Output, "output").with_value(tensor(&[2, 768])));
    let mut block = Node::new(Kind::Scope, name).with_children(children);
    (block.target, block.module_path) = ("net.Block".into(), name.replacen('_', ".", 1));
    block
}

/// A model of so many blocks, each with so many operations.
pub fn model(blocks: usize, operations: usize) -> Graph {
    let mut graph = Graph::new("net.Model.forward");
    graph.root.children = vec![Node::new(Kind::Input, "x").with_value(tensor(&[2, 768]))];
    let blocks = (0..blocks).map(|n| block(&format!("layers_{n}"), operations));
    graph.root.children.extend(blocks);
    let output = Value::Tuple(vec![tensor(&[2, 768]), tensor(&[2])]);
    graph
        .root
        .children
        .push(Node::new(Kind::Output, "output").with_value(output));
    graph
}

/// A folder for the files of one test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn save(&self, name: &str, graphs: Vec<Graph>) -> PathBuf {
        let file = self.path(name);
        GraphFile::new(graphs).save(&file).expect("saved");
        file
    }

    pub fn values(&self, name: &str, tensors: &[(&str, &[f32])]) -> PathBuf {
        let tensors: Vec<(String, HostTensor)> = tensors
            .iter()
            .map(|(key, values)| {
                let shape = [values.len() as i64 / 2, 2];
                let mut tensor = HostTensor::zeros(Dtype::F32, &shape).expect("a tensor");
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
                tensor.bytes_mut().copy_from_slice(&bytes);
                (key.to_string(), tensor)
            })
            .collect();
        let file = self.path(name);
        safetensors::save(&file, &tensors).expect("saved");
        file
    }
}

/// Runs a subcommand to its end.
pub fn graphpatch(command: &str, files: &[&Path], options: &[&str]) -> Output {
    let mut graphpatch = Command::new(env!("CARGO_BIN_EXE_graphpatch"));
    graphpatch.arg(command).args(files).args(options);
    graphpatch.output().expect("graphpatch starts")
}

/// The stdout of a process, which must have ended with `code`.
pub fn said(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

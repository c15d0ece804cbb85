//! Everything that reads what a user hands over, each with what is done next to what it read. They may refuse; they must
//! not panic, nor take memory or time out of proportion. Used by the fuzz target and by tests/damaged.rs.

use std::io::Write;
use std::path::Path;

use graphpatch::graph::{self, GraphFile, Node};
use graphpatch::patch::{self, RunRange};
use graphpatch::path::{NodePath, Slice};
use graphpatch::tensor::{npy, safetensors};

/// In the order of [`NAMES`].
pub const READERS: [fn(&[u8]); 5] = [graphs, patch_file, npy_file, safetensors_file, texts];

/// What the files of `seeds/` are called, up to the first `-`.
#[allow(dead_code)]
pub const NAMES: [&str; 5] = ["graph", "patches", "npy", "safetensors", "texts"];

fn graphs(bytes: &[u8]) {
    let Ok(file) = GraphFile::read(bytes, Path::new("fuzzed")) else {
        return;
    };
    for graph in &file.graphs {
        let root = NodePath::root();
        let _ = graph.tree(&root).expect("a loaded graph has a tree");
        let _ = graph.code(&root).expect("and code");
        let _ = graph.completions("");
        visit(graph, &graph.root, &root);
    }
    let saved = tempfile::NamedTempFile::new().expect("a place for files");
    file.save(saved.path())
        .expect("what was loaded can be saved");
    assert_eq!(
        GraphFile::load(saved.path()).expect("and loaded again"),
        file
    );
}

fn visit(graph: &graph::Graph, node: &Node, path: &NodePath) {
    for child in &node.children {
        let mut path = path.clone();
        path.names.push(child.name.clone());
        assert!(graph.node(&path).is_some());
        let _ = graph.code(&path);
        let _ = graph.completions(&path.to_string());
        let _ = graph::check(std::slice::from_ref(graph), std::slice::from_ref(&path));
        visit(graph, child, &path);
    }
}

fn patch_file(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = patch::toml::parse(text, Path::new("fuzzed"));
    }
}

fn npy_file(bytes: &[u8]) {
    let _ = npy::read(on_disk(bytes).path());
}

fn safetensors_file(bytes: &[u8]) {
    let file = on_disk(bytes);
    let _ = safetensors::read(file.path(), "a");
    let _ = safetensors::read_all(file.path());
}

fn on_disk(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a place for files");
    file.write_all(bytes).expect("room for them");
    file
}

/// What the options of the command and the C ABI take: what is parsed prints as the same thing.
fn texts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for line in text.lines() {
        if let Ok(path) = line.parse::<NodePath>() {
            assert_eq!(path.to_string().parse::<NodePath>().expect(line), path);
        }
        if let Ok(slice) = line.parse::<Slice>() {
            assert_eq!(slice.to_string().parse::<Slice>().expect(line), slice);
            for sizes in [&[][..], &[3, 4], &[i64::MAX, i64::MAX], &[0, 1, 2, 3]] {
                let _ = slice.region(sizes, &vec![1; sizes.len()]);
            }
        }
        if let Ok(patch) = line.parse::<patch::PatchSpec>() {
            assert_eq!(
                patch.to_string().parse::<patch::PatchSpec>().expect(line),
                patch
            );
        }
        if let Ok(runs) = line.parse::<RunRange>() {
            assert_eq!(runs.to_string().parse::<RunRange>().expect(line), runs);
        }
    }
}

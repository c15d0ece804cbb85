//! All readers of a user's input, each with the next steps that are done with what it has read. A reader may refuse its input;
//! it must not panic or need disproportionate memory or time. Used by the fuzz target and by tests/damaged.rs.
//!
//! Each reader returns whether it accepted its input.

use std::io::Write;
use std::path::Path;

use graphpatch_core::graph::{self, GraphFile, Node, Query};
use graphpatch_core::patch::{self, RunRange};
use graphpatch_core::path::{NodePath, Slice};
use graphpatch_core::tensor::{npy, safetensors};
use graphpatch_protocol::lost::{self, Lost};
use graphpatch_protocol::options::Options;
use graphpatch_protocol::report::Report;

/// A query that every node matches.
const ANYTHING: Query = Query {
    text: Some(String::new()),
    shape: None,
    pattern: None,
    op: None,
    module: None,
};

/// In the order of [`NAMES`].
pub const READERS: [fn(&[u8]) -> bool; 7] = [
    graphs,
    patch_file,
    npy_file,
    safetensors_file,
    texts,
    options,
    report,
];

/// What the files of `seeds/` are called, up to the first `-`.
#[allow(dead_code)]
pub const NAMES: [&str; 7] = [
    "graph",
    "patches",
    "npy",
    "safetensors",
    "texts",
    "options",
    "report",
];

fn graphs(bytes: &[u8]) -> bool {
    let Ok(file) = GraphFile::read(bytes, Path::new("fuzzed")) else {
        return false;
    };
    for graph in &file.graphs {
        let root = NodePath::root();
        let _ = graph.tree(&root).expect("a loaded graph has a tree");
        let _ = graph.code(&root).expect("and code");
        let _ = graph.completions("");
        let _ = graph.search(&root, &ANYTHING);
        assert_eq!(graph::diff(graph, graph, true), []);
        visit(graph, &graph.root, &root);
    }
    let saved = tempfile::NamedTempFile::new().expect("a place for files");
    file.save(saved.path())
        .expect("what was loaded can be saved");
    assert_eq!(
        GraphFile::load(saved.path()).expect("and loaded again"),
        file
    );
    true
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

fn patch_file(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    text.is_ok_and(|text| patch::toml::parse(text, Path::new("fuzzed")).is_ok())
}

fn npy_file(bytes: &[u8]) -> bool {
    npy::read(on_disk(bytes).path()).is_ok()
}

fn safetensors_file(bytes: &[u8]) -> bool {
    let file = on_disk(bytes);
    let one = safetensors::read(file.path(), "a");
    safetensors::read_all(file.path()).is_ok() && one.is_ok()
}

fn on_disk(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a place for files");
    file.write_all(bytes).expect("room for them");
    file
}

/// The options for a process. Options that were read are the same after they are written and read again.
fn options(bytes: &[u8]) -> bool {
    let file = on_disk(bytes);
    let Ok(read) = Options::load(file.path()) else {
        return false;
    };
    read.save(file.path()).expect("what was read is written");
    assert_eq!(Options::load(file.path()).expect("and read again"), read);
    true
}

/// A process's report, and its list of programs that ran without the library: files in a folder of many.
fn report(bytes: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a place for files");
    for name in ["report-1.json", lost::FILE] {
        std::fs::write(folder.path().join(name), bytes).expect("room for them");
    }
    let _ = Lost::load(folder.path());
    let (reports, damaged) = Report::load_all(folder.path());
    assert_eq!(reports.len() + damaged.len(), 1);
    for report in &reports {
        report
            .save(folder.path(), "report-2.json")
            .expect("written");
    }
    assert_eq!(Report::load_all(folder.path()).0.len(), 2 * reports.len());
    damaged.is_empty()
}

/// The texts that the command's options and the C ABI take. A parsed text, printed and parsed again, gives the same value.
fn texts(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| text.lines().filter(|line| !is_text(line)).count() == 0)
}

/// Whether the line is a path, a slice, a patch or a range of runs.
fn is_text(line: &str) -> bool {
    let path = line.parse::<NodePath>();
    if let Ok(path) = &path {
        assert_eq!(path.to_string().parse::<NodePath>().expect(line), *path);
    }
    let slice = line.parse::<Slice>();
    if let Ok(slice) = &slice {
        assert_eq!(slice.to_string().parse::<Slice>().expect(line), *slice);
        for sizes in [&[][..], &[3, 4], &[i64::MAX, i64::MAX], &[0, 1, 2, 3]] {
            let _ = slice.region(sizes, &vec![1; sizes.len()]);
        }
    }
    let patch = line.parse::<patch::PatchSpec>();
    if let Ok(patch) = &patch {
        let printed = patch.to_string();
        assert_eq!(printed.parse::<patch::PatchSpec>().expect(line), *patch);
    }
    let runs = line.parse::<RunRange>();
    if let Ok(runs) = &runs {
        assert_eq!(runs.to_string().parse::<RunRange>().expect(line), *runs);
    }
    path.is_ok() || slice.is_ok() || patch.is_ok() || runs.is_ok()
}

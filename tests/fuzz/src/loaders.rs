//! All readers of a user's input, each with the next steps that are done with what it has read. A reader may refuse its input;
//! it must not panic or need disproportionate memory or time. Used by the fuzz target and by tests/damaged.rs.
//!
//! Each reader returns whether it accepted its input.

use std::path::{Path, PathBuf};

use graphpatch_core::graph::{self, GraphFile, Node, Query, ShapePattern};
use graphpatch_core::patch::{self, RunRange};
use graphpatch_core::path::{NodePath, Pattern, Slice};
use graphpatch_core::tensor::{npy, safetensors};
use graphpatch_loader::Libtorch;
use graphpatch_protocol::attach::Attached;
use graphpatch_protocol::live::Request;
use graphpatch_protocol::lost::{self, Lost};
use graphpatch_protocol::options::Options;
use graphpatch_protocol::report::Report;
use graphpatch_protocol::trace;

thread_local! {
    /// A thread's folder for files. To make and remove one for each input would take longer than most readers do.
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a place for files");
}

/// A file of this name in the thread's folder. No reader finds a file there that an earlier input left.
fn place(name: &str) -> PathBuf {
    FOLDER.with(|folder| folder.path().join(name))
}

/// The input as a file of this name.
fn on_disk(name: &str, bytes: &[u8]) -> PathBuf {
    let file = place(name);
    std::fs::write(&file, bytes).expect("room for it");
    file
}

/// A query that every node matches.
const ANYTHING: Query = Query {
    text: Some(String::new()),
    shape: None,
    pattern: None,
    op: None,
    module: None,
};

/// In the order of [`NAMES`].
pub const READERS: [fn(&[u8]) -> bool; 10] = [
    graphs,
    patch_file,
    npy_file,
    safetensors_file,
    texts,
    options,
    report,
    package,
    beside,
    program,
];

/// What the files of `seeds/` are called, up to the first `-`.
pub const NAMES: [&str; 10] = [
    "graph",
    "patches",
    "npy",
    "safetensors",
    "texts",
    "options",
    "report",
    "package",
    "beside",
    "program",
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
    let saved = place("graph.json");
    file.save(&saved).expect("what was loaded can be saved");
    assert_eq!(GraphFile::load(&saved).expect("and loaded again"), file);
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
    npy::read(&on_disk("one.npy", bytes)).is_ok()
}

fn safetensors_file(bytes: &[u8]) -> bool {
    let file = on_disk("some.safetensors", bytes);
    let one = safetensors::read(&file, "a");
    safetensors::read_all(&file).is_ok() && one.is_ok()
}

/// The options for a process. Options that were read are the same after they are written and read again.
fn options(bytes: &[u8]) -> bool {
    let file = on_disk("options.json", bytes);
    let Ok(read) = Options::load(&file) else {
        return false;
    };
    read.save(&file).expect("what was read is written");
    assert_eq!(Options::load(&file).expect("and read again"), read);
    true
}

/// A process's report, and its list of programs that ran without the library: files in a folder of many.
fn report(bytes: &[u8]) -> bool {
    let folder = place("reports");
    let again = folder.join("report-2.json");
    if std::fs::remove_file(&again).is_err() {
        // The first input of the thread, or the one before was refused.
        std::fs::create_dir_all(&folder).expect("a place for files");
    }
    for name in ["report-1.json", lost::FILE] {
        std::fs::write(folder.join(name), bytes).expect("room for them");
    }
    let _ = Lost::load(&folder);
    let (reports, damaged) = Report::load_all(&folder);
    assert_eq!(reports.len() + damaged.len(), 1);
    let Some(report) = reports.first() else {
        return false;
    };
    report.save(&folder, "report-2.json").expect("written");
    assert_eq!(Report::load_all(&folder).0.len(), 2);
    true
}

/// The source in a package of AOTInductor's, and behind a line `---` the file of names; `CRC` there stands for the source's checksum.
fn package(bytes: &[u8]) -> bool {
    let library = place("model.so");
    let at = bytes.windows(5).position(|part| part == b"\n---\n");
    let (source, names) = at.map_or((bytes, None), |at| (&bytes[..at], Some(&bytes[at + 5..])));
    on_disk("model.cpp", source);
    match names {
        Some(names) => {
            let crc = crc32fast::hash(source).to_string();
            let names = String::from_utf8_lossy(names).replace("CRC", &crc);
            on_disk(graphpatch_packages::NAMES, names.as_bytes());
        }
        None => _ = std::fs::remove_file(place(graphpatch_packages::NAMES)),
    }
    let Ok(package) = graphpatch_packages::read(&library) else {
        return false;
    };
    for node in &package.nodes {
        assert!(node.call < package.calls.len());
        let _ = package.scope(&node.path);
    }
    true
}

/// What else a process and the command tell each other: the times of runs, requests of live control, the answer to an attach.
fn beside(bytes: &[u8]) -> bool {
    let times = on_disk("trace-1.jsonl", bytes);
    let times = trace::load_all(times.parent().expect("a folder"));
    let mut answers = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(request) = serde_json::from_slice::<Request>(line) {
            let text = serde_json::to_vec(&request).expect("what was read is written");
            let again: Request = serde_json::from_slice(&text).expect("and read again");
            assert_eq!(serde_json::to_vec(&again).expect("written"), text);
        }
        answers += usize::from(Attached::read(line, Path::new("fuzzed")).is_ok());
    }
    !times.is_empty() && answers > 0
}

/// A program, or a library of libtorch's: what the dynamic linker will do with it.
fn program(bytes: &[u8]) -> bool {
    let file = on_disk("program", bytes);
    let _ = graphpatch_loader::why_not_preloaded(&file);
    let _ = graphpatch_loader::find_for_program(&file);
    let _ = Libtorch::describe(&file);
    graphpatch_loader::check_library(&file).is_ok()
}

/// The texts that the command's options and the C ABI take. A parsed text, printed and parsed again, gives the same value.
fn texts(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| text.lines().filter(|line| !is_text(line)).count() == 0)
}

/// Whether the line is a path, a slice, a patch, a range of runs, a pattern or the sizes of a shape.
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
    let pattern = line.parse::<Pattern>();
    if let (Ok(pattern), Ok(path)) = (&pattern, &path) {
        let _ = pattern.takes("root", path);
    }
    let shape = line.parse::<ShapePattern>();
    let texts = path.is_ok() || slice.is_ok() || patch.is_ok() || runs.is_ok();
    texts || pattern.is_ok() || shape.is_ok()
}

//! Very many patches, and input that never ends.

use std::fmt::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use graphpatch_core::graph::{Dim, Graph, GraphFile, Kind, Node, TensorInfo, Value};

use crate::shop::*;

const PATCHES: usize = 200_000;

/// A graph with one node for each patch, in scopes of a thousand nodes.
fn graph(name: &str) -> Graph {
    let value = || {
        Value::Tensor(TensorInfo {
            shape: vec![Dim::of(2), Dim::of(3)],
            ..TensorInfo::default()
        })
    };
    let mut graph = Graph::new(name);
    for block in 0..PATCHES / 1000 {
        let node = |number| Node::new(Kind::Op, format!("add_{number}")).with_value(value());
        let nodes = (0..1000).map(node).collect();
        let scope = Node::new(Kind::Scope, format!("block_{block}")).with_children(nodes);
        graph.root.children.push(scope);
    }
    graph
}

/// The processor time of all children so far. Unlike elapsed time, it does not depend on other work of the machine.
fn seconds_of_children() -> f64 {
    // SAFETY: an all-zero rusage is a valid value of that plain C struct, and may be written.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut used);
        used.ru_utime
    };
    used.tv_sec as f64 + used.tv_usec as f64 / 1e6
}

#[test]
fn as_many_patches_as_nodes_are_checked_in_seconds() {
    let shop = Shop::new();
    let (file, patches) = (shop.path("g.json"), shop.path("p.toml"));
    // Two roots have the same paths, so that the search for ambiguous paths is timed as well.
    GraphFile::new(vec![graph("a.A.forward"), graph("b.B.forward")])
        .save(&file)
        .expect("saved");
    let mut list = String::new();
    for number in 0..PATCHES {
        let (block, node) = (number / 1000, number % 1000);
        let path = format!("b.B.forward:block_{block}.add_{node}");
        writeln!(
            list,
            "[[patch]]\npath = \"{path}\"\nslice = \"[..., {}]\"\nkind = \"add\"\nvalue = 0.5",
            number % 3
        )
        .expect("text");
    }
    let check = |list: &str| {
        std::fs::write(&patches, list).expect("write");
        let before = seconds_of_children();
        let mut command = Command::new(GRAPHPATCH);
        let done = run(command
            .arg("check")
            .arg(&file)
            .arg("--patches")
            .arg(&patches));
        (done, seconds_of_children() - before)
    };
    let (done, whole) = check(&list);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(whole < 6.0, "{whole} s of processor time");
    // Each path that is in both roots gets a line. Without a root in front, all paths are.
    let (done, shared) = check(&list.replace("b.B.forward:", ""));
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(text(&done.stderr).matches("is in 2 roots").count(), PATCHES);
    assert!(shared < 12.0, "{shared} s of processor time");
}

#[test]
fn what_has_no_end_is_refused() {
    for call in [
        &["show", "/dev/zero"][..],
        &["diff", "/dev/zero", "/dev/zero"],
        &["check", "/dev/zero", "--patch", "a=zero"],
        &["complete", "/dev/zero", ""],
        &["view", "/dev/zero", "--dot"],
    ] {
        let start = Instant::now();
        let done = run(Command::new(GRAPHPATCH).args(call));
        assert_eq!(done.status.code(), Some(2), "{call:?}");
        let said = text(&done.stderr);
        assert!(
            said.contains("/dev/zero") && said.contains("256 MiB"),
            "{call:?}: {said}"
        );
        assert!(start.elapsed() < Duration::from_secs(120), "{call:?}");
    }
}

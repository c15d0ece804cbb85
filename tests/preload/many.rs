//! Very many patches, and input that never ends.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
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

/// How the command ended, and the processor time that it took. Unlike elapsed time, that does not depend on other work of the machine.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it")]
fn timed(command: &mut Command) -> (ExitStatus, f64) {
    let child = command.spawn().expect("started");
    let mut status = 0;
    // SAFETY: the child is waited for here alone; both places may be written, and an all-zero rusage is a valid value.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        let pid = child.id().cast_signed();
        assert_eq!(libc::wait4(pid, &raw mut status, 0, &raw mut used), pid);
        used.ru_utime
    };
    let seconds = used.tv_sec as f64 + used.tv_usec as f64 / 1e6;
    (ExitStatus::from_raw(status), seconds)
}

/// Four times as many patches take about four times as long. If each was compared with all others, they would take sixteen times as
/// long.
#[test]
fn as_many_patches_as_nodes_are_checked_one_by_one() {
    let shop = Shop::new();
    let (file, patches) = (shop.path("g.json"), shop.path("p.toml"));
    // Two roots have the same paths, so that the search for ambiguous paths is measured as well.
    GraphFile::new(vec![graph("a.A.forward"), graph("b.B.forward")])
        .save(&file)
        .expect("saved");
    let list = |root: &str, n: usize| {
        let mut list = String::new();
        for number in 0..n {
            let (block, node) = (number / 1000, number % 1000);
            writeln!(
                list,
                "[[patch]]\npath = \"{root}block_{block}.add_{node}\"\nslice = \"[..., {}]\"\nkind = \"add\"\nvalue = 0.5",
                number % 3
            )
            .expect("text");
        }
        list
    };
    let said = shop.path("said.txt");
    let check = |list: &str| {
        std::fs::write(&patches, list).expect("write");
        let mut command = Command::new(GRAPHPATCH);
        let stderr = File::create(&said).expect("created");
        command.arg("check").arg(&file).arg("--patches");
        timed(command.arg(&patches).stdout(Stdio::null()).stderr(stderr))
    };
    for root in ["b.B.forward:", ""] {
        let (_, quarter) = check(&list(root, PATCHES / 4));
        let (status, whole) = check(&list(root, PATCHES));
        let said = std::fs::read_to_string(&said).expect("read");
        assert_eq!(status.code(), Some(0), "{said}");
        // Each path that is in both roots gets a line. Without a root in front, all paths are.
        let shared = if root.is_empty() { PATCHES } else { 0 };
        assert_eq!(said.matches("is in 2 roots").count(), shared);
        assert!(whole < 9.0 * quarter, "{quarter} s became {whole} s");
    }
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

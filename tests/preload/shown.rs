//! Control characters in names never reach a terminal, which would obey them; and the permissions of outputs.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use graphpatch_core::graph::{Graph, GraphFile, Kind, Node, Value};

use crate::shop::*;

/// A name that clears the screen, sets the title and the color, and reverses the direction of writing.
const EVIL: &str = "a\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\rb";

fn graph() -> Graph {
    let mut graph = Graph::new(format!("net.{EVIL}.forward"));
    let mut operation = Node::new(Kind::Op, EVIL).with_value(Value::Other(EVIL.into()));
    operation.target = format!("aten::{EVIL}");
    let mut scope = Node::new(Kind::Scope, format!("block{EVIL}")).with_children(vec![operation]);
    scope.target = EVIL.into();
    graph.root.children = vec![scope];
    graph
}

/// All characters of the text that a terminal obeys, without the codes of our own colors if `colors` is set.
fn obeyed(text: &str, colors: bool) -> Vec<char> {
    let mut text = text.to_string();
    if colors {
        for code in ["0", "1", "2", "31", "32", "33", "36"] {
            text = text.replace(&format!("\u{1b}[{code}m"), "");
        }
    }
    let wrong = |c: &char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(wrong).collect()
}

#[test]
fn names_cannot_steer_a_terminal() {
    let shop = Shop::new();
    let (file, other) = (shop.path("g.json"), shop.path("h.json"));
    let save = |path: &std::path::Path, graphs: Vec<Graph>| {
        GraphFile::new(graphs).save(path).expect("saved");
    };
    save(&file, vec![graph(), Graph::new("second")]);
    save(&other, vec![Graph::new(format!("net.{EVIL}.forward"))]);
    let (file, other) = (file.display().to_string(), other.display().to_string());
    let calls: &[&[&str]] = &[
        &["show", &file],
        &["show", &file, "--code"],
        &["show", &file, "--shape"],
        &["show", &file, "--json"],
        &["show", &file, "--counts"],
        &["show", &file, "--find", "b", "--source"],
        &["show", &file, EVIL],
        &["show", EVIL],
        &["complete", &file, ""],
        &["check", &file, "--patch", &format!("{EVIL}=zero")],
        &["check", &file, "--patch", "block=zero"],
        &["diff", &file, &other],
        &["run", "--", EVIL],
        &["run", &format!("--{EVIL}"), "--", "true"],
        &["doctor", "--torch", EVIL],
    ];
    for color in ["never", "always"] {
        for call in calls {
            let mut command = Command::new(GRAPHPATCH);
            command.args(*call).env("GRAPHPATCH_LIBRARY", library());
            let colors = color == "always" && matches!(call[0], "show" | "diff");
            if colors {
                command.args(["--color", color]);
            }
            let done = run(&mut command);
            let said = text(&done.stdout) + &text(&done.stderr);
            assert!(!said.is_empty(), "{call:?}");
            assert_eq!(obeyed(&said, colors), [], "{call:?} {color}: {said}");
            if call.contains(&"--json") && done.status.success() {
                let read: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
                assert!(read.to_string().contains("owned"));
            }
        }
    }
}

/// Messages of a run contain the name of the program, which may hold control characters, too.
#[test]
fn messages_of_a_run_cannot_either() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    let program = shop.program(ENDS, "plain", &WITH_LIBTORCH);
    let evil = shop.path(EVIL);
    std::fs::rename(program, &evil).expect("rename");
    let done: Output = run(graphpatch(&["--tree", "--summary"]).arg(&evil).arg("exit"));
    let said = text(&done.stderr);
    assert!(
        said.contains("ran untouched") && said.contains("owned"),
        "{said}"
    );
    assert_eq!(obeyed(&said, false), [], "{said}");
}

/// A new output has the permissions that the umask gives, and an old one keeps its own.
#[test]
fn outputs_are_as_closed_as_the_umask_says() {
    let shop = Shop::new();
    let file = shop.path("g.json");
    GraphFile::new(vec![Graph::new("m.forward")])
        .save(&file)
        .expect("saved");
    let page = shop.path("page.html");
    let write = |umask: &str| {
        let line = format!("umask {umask}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &line, "sh", GRAPHPATCH, "view"]);
        let done = run(command.arg(&file).arg("-o").arg(&page));
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        page.metadata().expect("written").permissions().mode() & 0o777
    };
    for (umask, mode) in [
        ("077", 0o600),
        ("027", 0o640),
        ("022", 0o644),
        ("000", 0o666),
    ] {
        assert_eq!(write(umask), mode, "umask {umask}");
        std::fs::set_permissions(&page, std::fs::Permissions::from_mode(0o400)).expect("chmod");
        assert_eq!(write(umask), 0o400, "an old file");
        std::fs::remove_file(&page).expect("remove");
    }
}

//! `graphpatch show`, `complete` and `diff` as processes, on graphs that are made here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

mod saved_graphs;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use graphpatch_core::graph::Graph;
use saved_graphs::{Folder, graphpatch, model, said, tensor};

#[test]
fn a_tree_in_a_pipe_is_the_specs_text_unless_asked() {
    let folder = Folder::new();
    let file = folder.save("g.json", vec![model(3, 1)]);
    let show = |options: &[&str]| said(&graphpatch("show", &[&file], options), 0);
    let plain = show(&[]);
    let path = graphpatch_core::path::NodePath::root();
    assert_eq!(plain, model(3, 1).tree(&path).expect("a tree"));
    assert_eq!(show(&["--all"]), plain);
    assert_eq!(show(&["--color", "never"]), plain);
    let expected = "\
<root>: Graph(5)  14 nodes, 3 operations, 3 scopes
├─x: Tensor(2, 768)
├─layers_0: Graph(3)  3 nodes, 1 operation
│ ├─x: Tensor(2, 768)
│ ├─add_0: Tensor(2, 768)
│ └─output: Tensor(2, 768)
├─layers_1 … layers_2: same as layers_0
└─output: tuple(2)
  ├─sub_0: Tensor(2, 768)
  └─sub_1: Tensor(2)
";
    assert_eq!(show(&["--fold", "--counts"]), expected);
    let cut: Vec<String> = show(&["--depth", "1"]).lines().map(str::to_owned).collect();
    assert_eq!(cut.len(), 6);
    assert_eq!(cut[3], "├─layers_1: Graph(3)");
    let colored = show(&["--color", "always"]);
    assert!(colored.contains("\u{1b}["));
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
    let code = "def forward(self, x):\n    add_0 = aten.add.Tensor()\n    return output\n";
    assert_eq!(show(&["layers_1", "--code"]), code);
}

#[test]
fn nodes_are_found() {
    let folder = Folder::new();
    let file = folder.save("g.json", vec![model(2, 1)]);
    let show = |options: &[&str]| said(&graphpatch("show", &[&file], options), 0);
    assert_eq!(
        show(&["--find", "ADD.tensor"]),
        "layers_0.add_0: Tensor(2, 768) aten::add.Tensor\nlayers_1.add_0: Tensor(2, 768) aten::add.Tensor\n"
    );
    assert_eq!(show(&["--find", "net.block"]).lines().count(), 2);
    assert_eq!(show(&["--shape", "2"]), "output|sub_1: Tensor(2)\n");
    assert_eq!(
        show(&["--shape", "*,768", "--find", "output"])
            .lines()
            .count(),
        3
    );
    assert_eq!(show(&["layers_1", "--shape", "*,768"]).lines().count(), 3);
    let values = "layers_1.x: Tensor(2, 768) float32 cpu strided\n";
    assert!(show(&["layers_1", "--shape"]).starts_with(values));
    assert_eq!(
        show(&["--shape", "layers_1"]),
        show(&["layers_1", "--shape"])
    );
    let none = graphpatch("show", &[&file], &["--find", "layers_0.ad_0"]);
    assert_eq!(said(&none, 1), "");
    let stderr = String::from_utf8_lossy(&none.stderr);
    assert!(
        stderr.contains("nothing found") && stderr.contains("nearest: layers_0.add_0"),
        "{stderr}"
    );
    let shape = graphpatch("show", &[&file], &["--find", "*,768"]);
    assert_eq!(said(&shape, 1), "");
    let stderr = String::from_utf8_lossy(&shape.stderr);
    assert!(
        stderr.ends_with("nothing found for \"*,768\"\n  shapes: --shape '*,768'\n"),
        "{stderr}"
    );
    let bad = graphpatch("show", &[&file], &["--shape", "3,,4"]);
    assert_eq!(said(&bad, 2), "");
    assert!(String::from_utf8_lossy(&bad.stderr).contains("at character 2"));
}

/// `graphpatch show g.json | head`.
#[test]
fn a_closed_pipe_is_quiet_and_many_nodes_are_quick() {
    let folder = Folder::new();
    let file = folder.save("g.json", vec![model(100, 100)]);
    // The limit counts processor time, so that a busy machine does not matter.
    let limited = Command::new("sh")
        .args(["-c", r#"ulimit -t 2; exec "$0" show "$1""#])
        .args([Path::new(env!("CARGO_BIN_EXE_graphpatch")), &file])
        .output()
        .expect("starts");
    let text = said(&limited, 0);
    assert!(text.lines().count() > 10_000);
    for options in [&[][..], &["--json"], &["--find", "add"], &["--shape"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_graphpatch"))
            .arg("show")
            .arg(&file)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("graphpatch starts");
        let mut stdout = child.stdout.take().expect("piped");
        let mut first = [0; 16];
        stdout.read_exact(&mut first).expect("a beginning");
        drop(stdout);
        let done = child.wait_with_output().expect("ends");
        assert_eq!(String::from_utf8_lossy(&done.stderr), "", "{options:?}");
        assert_eq!(done.status.code(), Some(141), "as a signal would end it");
    }
}

#[test]
fn completes_paths_and_options() {
    let folder = Folder::new();
    let file = folder.save("g.json", vec![model(2, 1)]);
    let names = said(&graphpatch("complete", &[&file], &["layers_1."]), 0);
    assert_eq!(names, "layers_1.x\nlayers_1.add_0\nlayers_1.output\n");
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&graphpatch("complete", &[], &["--shell", shell]), 0);
        assert!(
            script.contains("graphpatch") && script.contains("diff"),
            "{shell}"
        );
    }
    assert_eq!(graphpatch("complete", &[], &[]).status.code(), Some(2));
}

#[test]
fn graphs_are_compared() {
    let folder = Folder::new();
    let (a, same) = (
        folder.save("a.json", vec![model(2, 1)]),
        folder.save("same.json", vec![model(2, 1)]),
    );
    let mut other = model(2, 2);
    other.root.children[1].children[1].value = tensor(&[2, 64]);
    other.root.children.remove(0);
    let b = folder.save("b.json", vec![other]);
    assert_eq!(said(&graphpatch("diff", &[&a, &same], &["--code"]), 0), "");
    let expected = "\
# net.Model.forward
- x: Tensor(2, 768) float32 cpu
~ layers_0.add_0: Tensor(2, 768) float32 cpu → Tensor(2, 64) float32 cpu
+ layers_0.add_1: Tensor(2, 768) float32 cpu
+ layers_1.add_1: Tensor(2, 768) float32 cpu
";
    assert_eq!(said(&graphpatch("diff", &[&a, &b], &[]), 1), expected);
    let colored = said(&graphpatch("diff", &[&a, &b], &["--color", "always"]), 1);
    assert!(colored.contains("\u{1b}["));
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), expected);
    let json = said(&graphpatch("diff", &[&a, &b], &["--json"]), 1);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let first = &json["graphs"][0]["differences"][0];
    assert_eq!(
        (first["difference"].as_str(), first["path"].as_str()),
        (Some("only_a"), Some("x"))
    );
    let two = folder.save("two.json", vec![model(2, 1), Graph::new("extra")]);
    assert_eq!(
        said(&graphpatch("diff", &[&a, &two], &[]), 1),
        "+ # extra\n"
    );
    let absent = folder.path("absent.json");
    assert_eq!(said(&graphpatch("diff", &[&a, &absent], &[]), 2), "");
}

#[test]
fn values_are_compared() {
    let folder = Folder::new();
    let graph = folder.save("a.json", vec![model(1, 1)]);
    let a = folder.values(
        "a.safetensors",
        &[
            ("add", &[1.0, 2.0, 3.0, 4.0]),
            ("gone", &[0.0, 0.0]),
            ("long", &[0.0, 0.0]),
        ],
    );
    let b = folder.values(
        "b.safetensors",
        &[
            ("add", &[1.0, 2.0, 3.5, 4.0]),
            ("long", &[0.0, 0.0, 0.0, 0.0]),
            ("new", &[0.0, 0.0]),
        ],
    );
    let diff = |b: &Path, more: &[&str]| {
        let (a, b) = (a.display().to_string(), b.display().to_string());
        let options: Vec<&str> = ["--values", &a, &b].iter().chain(more).copied().collect();
        graphpatch("diff", &[&graph, &graph], &options)
    };
    assert_eq!(said(&diff(&a, &[]), 0), "");
    let expected = "\
# values
~ add: 1 different, max abs 5e-1, max rel 1.4285714285714285e-1, norm 5e-1, first at [1, 0]
- gone: Tensor(1, 2) float32
~ long: Tensor(1, 2) float32 → Tensor(2, 2) float32
+ new: Tensor(1, 2) float32
";
    assert_eq!(said(&diff(&b, &[]), 1), expected);
    assert!(!said(&diff(&b, &["--tolerance", "0.2"]), 1).contains("add"));
    let json: serde_json::Value =
        serde_json::from_str(&said(&diff(&b, &["--json"]), 1)).expect("JSON");
    assert_eq!(json["values"][0]["first"], serde_json::json!([1, 0]));
    assert_eq!(json["values"][0]["max_abs"], 0.5);
    // JSON cannot express infinite distances.
    for far in [f32::NAN, f32::INFINITY] {
        let far = folder.values("far.safetensors", &[("add", &[1.0, far, 3.0, 4.0])]);
        let json: serde_json::Value =
            serde_json::from_str(&said(&diff(&far, &["--json"]), 1)).expect("JSON");
        let of = |what: &str| json["values"][0][what].clone();
        assert_eq!([of("max_abs"), of("max_rel"), of("norm")], ["inf"; 3]);
        assert_eq!(of("count"), 1);
    }
    assert_eq!(diff(&b, &["--tolerance", "-1"]).status.code(), Some(2));
    assert_eq!(diff(&graph, &[]).status.code(), Some(2));
}

#[test]
fn the_first_difference_in_the_order_of_the_nodes() {
    let folder = Folder::new();
    let graph = folder.save("a.json", vec![model(2, 11)]);
    let graph = graph.display().to_string();
    // The file has its keys in the order of their letters, in which add_10 is in front of add_9.
    let keys = [
        "layers_0.add_9",
        "layers_1.add_9#0",
        "layers_1.add_10",
        "layers_1.add_9@7",
        "output|sub_0",
        "unknown",
        "x",
    ];
    let values = |name: &str, changed: &[&str]| {
        let value = |key: &str| [1.0, if changed.contains(&key) { 3.0 } else { 2.0 }];
        let all = keys.map(|key| (key, value(key)));
        let all: Vec<_> = all.iter().map(|(key, value)| (*key, &value[..])).collect();
        folder.values(name, &all).display().to_string()
    };
    let a = values("a.safetensors", &[]);
    let diff = |changed: &[&str], more: &[&str]| {
        let b = values("b.safetensors", changed);
        let options: Vec<&str> = ["--values", &a, &b].iter().chain(more).copied().collect();
        said(
            &graphpatch("diff", &[Path::new(&graph), Path::new(&graph)], &options),
            1,
        )
    };
    let named = |text: &str| -> Vec<String> {
        let named = text.lines().filter_map(|line| line.strip_prefix("~ "));
        named
            .map(|line| line.split(": ").next().unwrap_or_default().to_owned())
            .collect()
    };
    let order = [
        "x",
        "layers_0.add_9",
        "layers_1.add_9#0",
        "layers_1.add_9@7",
        "layers_1.add_10",
        "output|sub_0",
        "unknown",
    ];
    assert_eq!(named(&diff(&keys, &[])), order);
    let first = diff(
        &[
            "unknown",
            "output|sub_0",
            "layers_1.add_10",
            "layers_1.add_9#0",
        ],
        &["--first"],
    );
    assert_eq!(named(&first), ["layers_1.add_9#0"]);
    let shown = graphpatch("show", &[Path::new(&graph)], &["layers_1.add_9", "--code"]);
    let code = format!("    {}\n", said(&shown, 0).trim_end());
    assert!(
        code.contains("aten.add.Tensor") && first.ends_with(&code),
        "{first}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&diff(&keys, &["--first", "--json"])).expect("JSON");
    assert_eq!(json["values"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["values"][0]["key"], "x");
    let alone = graphpatch(
        "diff",
        &[Path::new(&graph), Path::new(&graph)],
        &["--first"],
    );
    assert_eq!(alone.status.code(), Some(2));
}

#[test]
fn files_that_are_no_graphs_are_told_what_they_are() {
    let folder = Folder::new();
    let whole = std::fs::read(folder.save("g.json", vec![model(2, 1)])).expect("read");
    let text = String::from_utf8(whole.clone()).expect("text");
    let values = folder.values("values.safetensors", &[("a", &[1.0, 2.0])]);
    let cases: [(&str, Vec<u8>, &[&str]); 7] = [
        (
            "cut.json",
            whole[..whole.len() / 2].to_vec(),
            &["line 1, column ", "ends too early"],
        ),
        (
            "image.png",
            b"\x89PNG\r\n\x1a\n....".to_vec(),
            &["the beginning", "a PNG image", "graphpatch run --graph"],
        ),
        (
            "other.json",
            b"{\"name\": 1}".to_vec(),
            &["`format`", "not a graph saved by graphpatch"],
        ),
        (
            "future.json",
            text.replace("\"format\":1", "\"format\":99").into(),
            &["format 99", "use a newer graphpatch"],
        ),
        (
            "broken.json",
            text.replace("\"add_0\"", "17").into(),
            &["children[1].children[1].name (node layers_0."],
        ),
        (
            "values",
            std::fs::read(values).expect("read"),
            &["a safetensors file"],
        ),
        ("empty", Vec::new(), &["it is empty"]),
    ];
    for (name, bytes, words) in cases {
        let file = folder.path(name);
        std::fs::write(&file, bytes).expect("written");
        for (command, files) in [
            ("show", vec![&*file]),
            ("complete", vec![&*file]),
            ("diff", vec![&*file, &*file]),
        ] {
            let output = graphpatch(command, &files, &[]);
            assert_eq!(said(&output, 2), "");
            let stderr = String::from_utf8_lossy(&output.stderr);
            for word in [&*file.display().to_string()].iter().chain(words) {
                assert!(stderr.contains(word), "{name}: {word} is not in {stderr}");
            }
        }
    }
}

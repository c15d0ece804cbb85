//! No file is lost: a run that saw nothing writes no file, and an output that would destroy a file is refused before the
//! program starts.

use std::fs;

use crate::shop::{Shop, graphpatch, run};

const GRAPH: &str = "{\"format\":1,\"graphs\":[]}\n";

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// If nothing was seen, for whatever reason, an old file stays byte for byte, and no new file is made.
#[test]
fn a_run_that_saw_nothing_writes_no_file() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    let plain = shop.program("int main(void) { return 0; }", "plain", &[]);
    let fails = shop.program("int main(void) { return 7; }", "fails", &[]);
    let dies = shop.program(
        "#include <stdlib.h>\nint main(void) { abort(); }",
        "dies",
        &[],
    );
    // This program loads a libtorch for which no adapter can be built.
    let loads = shop.program(
        "#include <dlfcn.h>\nint main(void) { return !dlopen(\"./torch/lib/libtorch_cpu.so\", RTLD_NOW); }",
        "loads",
        &["-ldl"],
    );
    let (graph, values) = (shop.path("g.json"), shop.path("v.safetensors"));
    let tensors = b"\x02\x00\x00\x00\x00\x00\x00\x00{}";
    let options = [
        "--graph",
        graph.to_str().unwrap(),
        "--probe",
        "a",
        "--save",
        values.to_str().unwrap(),
    ];
    for (program, code) in [(&plain, 3), (&fails, 7), (&dies, 134), (&loads, 3)] {
        for old in [true, false] {
            for file in [&graph, &values] {
                let _ = fs::remove_file(file);
            }
            if old {
                fs::write(&graph, GRAPH).unwrap();
                fs::write(&values, tensors).unwrap();
            }
            let mut command = graphpatch(&options);
            command.arg(program).current_dir(shop.path(""));
            let output = run(&mut command);
            let told = text(&output);
            assert_eq!(output.status.code(), Some(code), "{told}");
            assert_eq!(
                fs::read_to_string(&graph).ok().as_deref(),
                old.then_some(GRAPH)
            );
            assert_eq!(
                fs::read(&values).ok().as_deref(),
                old.then_some(&tensors[..])
            );
            let fate = if old {
                "stays as it was"
            } else {
                "is not written"
            };
            for file in [&graph, &values] {
                let line = format!("{}: ", file.display());
                let line = told
                    .lines()
                    .find(|text| text.contains(&line) && text.contains(fate));
                assert!(line.is_some(), "{} {fate}: {told}", file.display());
            }
        }
    }
}

/// The program succeeds and no patch has failed, but the graph that was asked for is missing: the command fails.
#[test]
fn a_graph_that_was_not_written_is_no_success() {
    let shop = Shop::new();
    let graph = shop.path("g.json").display().to_string();
    let output = run(graphpatch(&["--graph", &graph]).arg("true"));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let output = run(graphpatch(&["--tree"]).arg("true"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn outputs_that_would_cost_a_file_are_refused_before_the_program_starts() {
    let shop = Shop::new();
    let mark = shop.path("ran");
    let at = |name: &str| shop.path(name).display().to_string();
    fs::write(shop.path("model.bin.old"), b"PK\x03\x04weights").unwrap();
    fs::write(shop.path("g.json"), GRAPH).unwrap();
    fs::write(
        shop.path("p.toml"),
        "[[patch]]\npath = 'a'\nkind = 'probe'\n",
    )
    .unwrap();
    fs::write(shop.path("data"), "").unwrap();
    let before: Vec<_> = ["model.bin.old", "g.json", "p.toml"]
        .map(|name| fs::read(shop.path(name)).unwrap())
        .into();
    let (both, data) = (at("both"), at("data"));
    for (options, why) in [
        (
            vec!["--graph", &both, "--probe", "a", "--save", &both],
            "is the file of --graph, too",
        ),
        (
            vec![
                "--graph",
                &at("g.json"),
                "--against",
                &at("g.json"),
                "--patch",
                "a=zero",
            ],
            "--against reads it",
        ),
        (
            vec!["--patches", &at("p.toml"), "--save", &at("p.toml")],
            "--patches reads it",
        ),
        (vec!["--graph", &data], "PROGRAM reads it"),
        (
            vec!["--graph", &at("model.bin.old")],
            "does not hold a graph",
        ),
        (vec!["--graph", &at("model.pt")], "its name does not say"),
        (
            vec!["--probe", "a", "--save", &at("v.npy")],
            "end it in .safetensors",
        ),
        (
            vec!["--probe", "a", "--save", &at("g.json")],
            "its name does not say",
        ),
    ] {
        // The graph has no such node, but the command must check the files before the patches.
        let mut command = graphpatch(&options);
        command
            .arg("sh")
            .arg("-c")
            .arg(format!("touch {}", mark.display()))
            .arg(&data);
        let output = run(&mut command);
        let told = text(&output);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {told}");
        assert!(told.contains(why), "{options:?}: {told}");
        assert!(!mark.exists(), "{options:?}");
    }
    let after: Vec<_> = ["model.bin.old", "g.json", "p.toml"]
        .map(|name| fs::read(shop.path(name)).unwrap())
        .into();
    assert_eq!(before, after);
}

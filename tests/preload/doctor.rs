//! `graphpatch doctor` on machines in different states: its output, its advice and its exit code.

use std::process::{Command, Output};

use serde_json::Value;

use crate::shop::*;
use crate::stand_ins::*;

impl Setup {
    /// Runs `graphpatch doctor` on the program. Returns its exit code and its output.
    fn look(&self, options: &[&str], change: impl FnOnce(&mut Command)) -> (Option<i32>, String) {
        let program = self.program.to_string_lossy();
        let options = [options, &["--", &program]].concat();
        let done = self.doctor(&options, change);
        let said = text(&done.stderr);
        let is_progress =
            |line: &str| line.contains("building the adapter") || line.contains("built anew");
        assert!(said.lines().all(is_progress), "{said}");
        (done.status.code(), text(&done.stdout))
    }

    /// The advice of a `doctor` that finds exactly one thing missing.
    fn advice(&self, change: impl FnOnce(&mut Command)) -> String {
        let (code, said) = self.look(&[], change);
        assert_eq!(code, Some(1), "{said}");
        let lines: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("to do      "))
            .collect();
        assert_eq!(lines.len(), 1, "one line for the one thing missing: {said}");
        lines[0].to_string()
    }
}

fn json(done: &Output) -> Value {
    serde_json::from_slice(&done.stdout).expect("JSON")
}

#[test]
fn a_machine_that_has_everything() {
    let setup = Setup::new();
    std::fs::write(setup.shop.path("torch/lib/libtorch_cuda.so"), "").expect("write");
    let version = "__version__ = '2.9.1+cu128'\ncuda: Optional[str] = '12.8'\n";
    std::fs::write(setup.shop.path("torch/version.py"), version).expect("write");
    let (code, before) = setup.look(&[], |_| {});
    assert_eq!(code, Some(0), "{before}");
    for part in [
        "libtorch   2.9.1 (CUDA 12.8) in ",
        "build id ",
        "C++11 strings",
        "headers in ",
        "adapter    not built yet (on first use, or now with --build): ",
        "(stand-in 1.0), can do C++17",
        "CUDA       ",
        "is supported",
    ] {
        assert!(before.contains(part), "{part} in {before}");
    }
    assert!(!before.contains("to do"), "{before}");
    let (code, built) = setup.look(&["--build"], |_| {});
    assert_eq!(code, Some(0), "{built}");
    let adapter = adapters(&setup.cache).remove(0);
    let line = format!("adapter    ready: {}\n", adapter.display());
    assert!(
        built.contains(&line) && built.contains("built for this libtorch (2.9.1)"),
        "{built}"
    );
    assert!(setup.said(|_| {}).contains(LOADED));
    assert_eq!(setup.calls().len(), 1, "run took what doctor built");

    let program = setup.program.to_string_lossy();
    let told = json(&setup.doctor(&["--json", "--", &program], |_| {}));
    assert_eq!(told["libtorch"]["cuda"], "12.8");
    assert_eq!(told["adapter"]["path"], adapter.to_string_lossy().as_ref());
    assert_eq!(told["adapter"]["ready"], true);
    assert_eq!(told["advice"], Value::Array(Vec::new()));

    // If the adapter is built, neither compiler nor headers are needed.
    let (code, bare) = setup.look(&[], |command| {
        command.env("PATH", "/nowhere").env("CXX", "");
    });
    assert!(
        code == Some(0) && bare.contains("compiler   none"),
        "{bare}"
    );
}

#[test]
fn what_is_stale_or_broken() {
    let setup = Setup::new();
    setup.look(&["--build"], |_| {});
    let adapter = adapters(&setup.cache).remove(0);
    // The adapter gets a name that another version of libgraphpatch would give.
    let name = adapter.file_name().expect("name").to_string_lossy();
    let parts: Vec<&str> = name.split('-').collect();
    let old = format!("adapter-s1-0123456789abcdef-{}", parts[3..].join("-"));
    std::fs::rename(&adapter, setup.cache.join(old)).expect("rename");
    let (code, said) = setup.look(&[], |_| {});
    assert!(
        code == Some(0)
            && said.contains("not built yet")
            && said.contains("holds 1 adapters of other"),
        "{said}"
    );
    std::fs::write(&adapter, "damaged").expect("write");
    let (code, said) = setup.look(&[], |_| {});
    assert!(
        code == Some(0) && said.contains("will be built anew, as this file is no adapter"),
        "{said}"
    );
    let (code, said) = setup.look(&["--build"], |_| {});
    assert!(
        code == Some(0) && said.contains("adapter    ready"),
        "{said}"
    );
}

#[test]
fn one_line_of_advice_for_each_thing_missing() {
    let setup = Setup::new();
    let none = setup.advice(|command| {
        command.env("PATH", "/nowhere").env("CXX", "");
    });
    assert!(
        none.contains("no C++ compiler") && none.contains("g++"),
        "{none}"
    );

    setup.install("#!/bin/sh\n[ \"$1\" = --version ] && { echo ancient 4.8; exit; }\necho \"error: $1?\" >&2; exit 1\n");
    let ancient = setup.advice(|_| {});
    assert!(
        ancient.contains("does not compile C++17 (error: -std=c++17?)")
            && ancient.contains("g++ 10"),
        "{ancient}"
    );
    setup.install(COMPILER);

    let library = setup.advice(|command| {
        command.env("GRAPHPATCH_LIBRARY", "/no/such.so");
    });
    assert!(
        library.contains("/no/such.so (GRAPHPATCH_LIBRARY) is no file"),
        "{library}"
    );

    let cache = setup.advice(|command| {
        command.env("GRAPHPATCH_CACHE", "/proc/none");
    });
    assert!(cache.contains("/proc/none (GRAPHPATCH_CACHE)"), "{cache}");

    for (version, what) in [("2.3.0", "too old"), ("2.98.0", "newer than")] {
        setup.headers("torch", version);
        let advice = setup.advice(|_| {});
        assert!(
            advice.contains(version) && advice.contains(what),
            "{advice}"
        );
        let (code, said) = setup.look(&[], |command| {
            command.env("GRAPHPATCH_ANY_TORCH", "1");
        });
        assert_eq!(code, Some(0), "{said}");
    }

    setup.headers("torch", "2.9.1");
    std::fs::write(setup.shop.path("torch/build-version"), "2.8.0").expect("write");
    let foreign = setup.advice(|_| {});
    assert!(foreign.contains("those of libtorch 2.9.1"), "{foreign}");

    std::fs::remove_dir_all(setup.shop.path("torch/include")).expect("remove");
    let headers = setup.advice(|_| {});
    assert!(
        headers.contains("headers") && headers.contains("GRAPHPATCH_TORCH_INCLUDE"),
        "{headers}"
    );

    std::fs::remove_file(setup.shop.path("torch/lib/libtorch_cpu.so")).expect("remove");
    let missing = setup.advice(|_| {});
    assert!(
        missing.contains("needs libtorch_cpu.so, not found") && missing.contains("LD_LIBRARY_PATH"),
        "{missing}"
    );
}

#[test]
fn programs_without_libtorch() {
    let setup = Setup::new();
    let done = setup.doctor(&["--", "sh"], |_| {});
    let said = text(&done.stdout);
    assert_eq!(done.status.code(), Some(1), "{said}");
    for part in ["libtorch   none found", "looked at", "libc.so.6", "--torch"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // A Python that has no torch: a folder for it alone, without the site's packages.
    let python = setup.shop.path("python3");
    std::fs::write(&python, "#!/bin/sh\necho\n").expect("write");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&python, mode).expect("mode");
    let done = setup.doctor(&["--", &python.to_string_lossy()], |_| {});
    assert!(
        text(&done.stdout).contains("has no torch package"),
        "{}",
        text(&done.stdout)
    );
    for options in [
        &["--", "no-such-program"][..],
        &["--torch", "/nowhere"],
        &["--into", "/tmp"],
        &["--torch", "/tmp", "--", "sh"],
    ] {
        let done = setup.doctor(options, |_| {});
        assert_eq!(done.status.code(), Some(2), "{options:?}");
        assert!(done.stdout.is_empty() && !done.stderr.is_empty());
    }
}

#[test]
fn adapters_beside_the_library() {
    let setup = Setup::new();
    let prefix = setup.shop.path("prefix");
    let there = prefix.join("libgraphpatch.so");
    std::fs::create_dir(&prefix).expect("dir");
    std::fs::copy(library(), &there).expect("copy");
    let folder = prefix.join("graphpatch-adapters");
    let into = folder.to_string_lossy();
    let with = |command: &mut Command| {
        command.env("GRAPHPATCH_LIBRARY", &there);
    };
    let (code, said) = setup.look(&["--build", "--into", &into], with);
    let adapter = adapters(&folder).remove(0);
    let line = format!("adapter    built ahead: {}\n", adapter.display());
    assert!(code == Some(0) && said.contains(&line), "{said}");
    // If libtorch is another build of the same version, `doctor` says that the adapter is for a different build.
    setup.libtorch("torch", "2.9.1");
    let rebuilt = "int forward(int x) { return x + 1; } int more(void) { return 7; }";
    let flags = ["-Wl,-soname,libtorch_cpu.so", "-Wl,--build-id"];
    setup
        .shop
        .shared(rebuilt, "torch/lib/libtorch_cpu.so", &flags);
    let (code, said) = setup.look(&[], with);
    assert!(
        code == Some(0)
            && said.contains("not built yet")
            && said.contains("another build of libtorch 2.9.1"),
        "{said}"
    );
}

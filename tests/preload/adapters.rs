//! Building and caching adapters, with a stand-in for the compiler.

use std::process::Stdio;

use crate::shop::*;

/// A stand-in for the compiler tells how often it ran and what it was given.
#[test]
fn adapters_are_built_once_and_again_when_damaged() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    for header in [
        "ATen/core/dispatch/Dispatcher.h",
        "torch/headeronly/version.h",
    ] {
        let file = shop.path("torch/include").join(header);
        std::fs::create_dir_all(file.parent().expect("parent")).expect("dir");
        let version = "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 9\n#define TORCH_VERSION_PATCH 1\n";
        std::fs::write(file, version).expect("header");
    }
    let compiler = shop.path("compiler");
    let script = r#"#!/bin/sh
        echo "[$LD_PRELOAD$GRAPHPATCH_OPTIONS] $*" >> "$0.log"
        while [ "$1" != -o ]; do shift; done
        sleep 0.3
        echo 'int none;' | cc -shared -fPIC -x c - -o "$2"
        "#;
    let install = |script: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&compiler, script).expect("script");
        std::fs::set_permissions(&compiler, std::fs::Permissions::from_mode(0o755)).expect("mode");
    };
    install(script);
    let flags = [
        "-Ltorch/lib",
        "-Wl,--no-as-needed",
        "-ltorch_cpu",
        "-Wl,-rpath,$ORIGIN/torch/lib",
    ];
    let program = shop.program(ENDS, "ends", &flags);
    let cache = shop.path("cache");
    let command = || {
        let mut command = graphpatch(&["--tree"]);
        command
            .arg(&program)
            .arg("none")
            .env("CXX", &compiler)
            .env("GRAPHPATCH_CACHE", &cache);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let calls = || std::fs::read_to_string(shop.path("compiler.log")).expect("log");

    let together: Vec<_> = (0..3).map(|_| command().spawn().expect("starts")).collect();
    let said: Vec<String> = together
        .into_iter()
        .map(|child| text(&child.wait_with_output().expect("ends").stderr))
        .collect();
    assert_eq!(calls().lines().count(), 1, "{said:?}");
    assert!(
        calls().starts_with("[] -std=c++17 ") && calls().contains("-DNDEBUG"),
        "{}",
        calls()
    );
    let building =
        "graphpatch: building the adapter for libtorch 2.9.1 (first use, about half a minute)…";
    assert_eq!(said.concat().matches(building).count(), 1, "{said:?}");
    assert_eq!(
        said.concat().matches("the adapter has no entry").count(),
        3,
        "{said:?}"
    );

    let adapters = || {
        let all = std::fs::read_dir(&cache)
            .expect("cache")
            .flatten()
            .map(|entry| entry.path());
        all.filter(|path| path.extension().is_some_and(|extension| extension == "so"))
            .collect::<Vec<_>>()
    };
    let [adapter] = &adapters()[..] else {
        panic!("{:?}", adapters())
    };
    assert!(
        adapter.to_string_lossy().contains("-torch2.9.1-"),
        "{adapter:?}"
    );
    std::fs::write(adapter, "damaged").expect("write");
    let again = text(&run(&mut command()).stderr);
    assert_eq!(calls().lines().count(), 2, "{again}");
    assert!(again.contains("the adapter has no entry"), "{again}");

    std::fs::remove_file(adapter).expect("remove");
    install("#!/bin/sh\necho 'adapter.h:7: error: no such thing' >&2; exit 1\n");
    let failed = text(&run(&mut command()).stderr);
    assert!(
        failed.contains("does not compile")
            && failed.contains("no such thing")
            && failed.contains(".log"),
        "{failed}"
    );
    assert!(adapters().is_empty());
    let left: Vec<_> = std::fs::read_dir(&cache)
        .expect("cache")
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| !name.to_string_lossy().starts_with("python-"))
        .collect();
    assert_eq!(
        left.len(),
        2,
        "the lock and the log, no work directories: {left:?}"
    );
}

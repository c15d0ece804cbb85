//! Stand-ins for libtorch and for the C++ compiler: files of the right names, and a script that tells how it was called.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use graphpatch_loader::seal;

use crate::shop::*;

/// A compiler that logs its arguments and compiles an empty adapter.
pub const COMPILER: &str = r#"#!/bin/sh
    case "$*" in
      *--version*) echo "stand-in 1.0"; exit 0 ;;
      *-fsyntax-only*) exit 0 ;;
    esac
    echo "[$LD_PRELOAD$GRAPHPATCH_OPTIONS] $*" >> "$0.log"
    while [ "$1" != -o ]; do shift; done
    sleep 0.3
    echo 'int none;' | cc -shared -fPIC -x c - -o "$2"
    "#;

/// What [`foreign_adapter`] prints.
pub const FOREIGN: &str = "foreign code";

/// The message of a process that has loaded an adapter of the stand-in.
pub const LOADED: &str = "the adapter has no entry";

/// A libtorch with headers, a program that links to it, a compiler, a cache.
pub struct Setup {
    pub shop: Shop,
    pub program: PathBuf,
    pub compiler: PathBuf,
    pub cache: PathBuf,
}

impl Setup {
    pub fn new() -> Setup {
        let shop = Shop::new();
        let setup = Setup {
            compiler: shop.path("compiler"),
            cache: shop.path("cache"),
            program: PathBuf::new(),
            shop,
        };
        setup.libtorch("torch", "2.9.1");
        setup.install(COMPILER);
        // A RUNPATH and not an RPATH, so that tests can choose another libtorch by LD_LIBRARY_PATH.
        let flags = [
            "-Ltorch/lib",
            "-Wl,--no-as-needed",
            "-ltorch_cpu",
            "-Wl,--enable-new-dtags,-rpath,$ORIGIN/torch/lib",
        ];
        let program = setup.shop.program(ENDS, "ends", &flags);
        Setup { program, ..setup }
    }

    /// A libtorch in `folder` that says it is of `version`. Every call makes another build.
    pub fn libtorch(&self, folder: &str, version: &str) -> PathBuf {
        self.shop.shared(
            "int c10(void) { return 1; }",
            &format!("{folder}/lib/libc10.so"),
            &[],
        );
        self.shop.shared(
            &format!(
                "const char *told(void) {{ return \"{folder} {version}\"; }}\nint forward(int x) {{ return x + 1; }}"
            ),
            &format!("{folder}/lib/libtorch_cpu.so"),
            &["-Wl,-soname,libtorch_cpu.so", "-Wl,--build-id"],
        );
        self.headers(folder, version);
        self.shop.path(folder)
    }

    pub fn headers(&self, folder: &str, version: &str) {
        let numbers: Vec<&str> = version.split('.').collect();
        let text: String = ["MAJOR", "MINOR", "PATCH"]
            .iter()
            .zip(numbers)
            .map(|(name, number)| format!("#define TORCH_VERSION_{name} {number}\n"))
            .collect();
        for header in [
            "ATen/core/dispatch/Dispatcher.h",
            "torch/headeronly/version.h",
        ] {
            let file = self.shop.path(folder).join("include").join(header);
            std::fs::create_dir_all(file.parent().expect("parent")).expect("dir");
            std::fs::write(file, &text).expect("header");
        }
    }

    pub fn install(&self, script: &str) {
        std::fs::write(&self.compiler, script).expect("script");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&self.compiler, mode).expect("mode");
    }

    /// The calls of the compiler that were to build an adapter.
    pub fn calls(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.shop.path("compiler.log")).unwrap_or_default();
        log.lines().map(str::to_string).collect()
    }

    pub fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("CXX", &self.compiler)
            .env("GRAPHPATCH_CACHE", &self.cache)
            .env("GRAPHPATCH_LIBRARY", library())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in [
            "GRAPHPATCH_ADAPTER_DIR",
            "GRAPHPATCH_ANY_TORCH",
            "GRAPHPATCH_TORCH_INCLUDE",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// `graphpatch run --tree` on the program.
    pub fn command(&self) -> Command {
        let mut command = graphpatch(&["--tree"]);
        command.arg(&self.program).arg("none");
        self.environment(&mut command);
        command
    }

    /// The stderr of `command`, whose environment `change` may change first.
    pub fn said(&self, change: impl FnOnce(&mut Command)) -> String {
        let mut command = self.command();
        change(&mut command);
        let done = run(&mut command);
        assert_eq!(
            (text(&done.stdout), done.status.code()),
            ("2 none\nbye\n".to_string(), Some(0)),
            "the program itself ran as ever: {}",
            text(&done.stderr)
        );
        text(&done.stderr)
    }

    pub fn doctor(&self, options: &[&str], change: impl FnOnce(&mut Command)) -> Output {
        let mut command = Command::new(GRAPHPATCH);
        command.arg("doctor").args(options);
        self.environment(&mut command);
        change(&mut command);
        run(&mut command)
    }
}

/// The files of adapters in a folder.
pub fn adapters(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = all
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "so"))
        .collect();
    found.sort();
    found
}

/// An adapter with the right name and seal, which prints that foreign code was run.
pub fn foreign_adapter(shop: &Shop, folder: &str, name: &str) -> PathBuf {
    let file = shop.shared(
        &format!(
            "#include <stdio.h>\n__attribute__((constructor)) static void f(void) {{ fputs(\"{FOREIGN}\\n\", stderr); }}"
        ),
        &format!("{folder}/{name}"),
        &[],
    );
    seal::seal(&file, name).expect("seal");
    file
}

/// The file name of the adapter for the program's libtorch.
pub fn adapter_name(setup: &Setup) -> String {
    setup.said(|_| {});
    let adapter = adapters(&setup.cache).remove(0);
    adapter.file_name().expect("name").to_string_lossy().into()
}

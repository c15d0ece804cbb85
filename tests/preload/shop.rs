//! Small programs compiled for a test, and running them bare and under `graphpatch run`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const GRAPHPATCH: &str = env!("CARGO_BIN_EXE_graphpatch");

/// `cargo test` puts the cdylib into `deps`, and `cargo build` beside the command. The newer one belongs to this source.
pub fn library() -> PathBuf {
    let dir = Path::new(GRAPHPATCH).parent().expect("target directory");
    let candidates = [
        dir.join("deps/libgraphpatch.so"),
        dir.join("libgraphpatch.so"),
    ];
    let built = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    candidates
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(built)
        .expect("libgraphpatch.so is built")
}

/// A directory with compiled programs.
pub struct Shop {
    dir: tempfile::TempDir,
}

impl Shop {
    pub fn new() -> Shop {
        Shop {
            dir: tempfile::tempdir().expect("temp dir"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn compile(&self, compiler: &str, source: &str, output: &str, flags: &[&str]) -> PathBuf {
        let output = self.path(output);
        std::fs::create_dir_all(output.parent().expect("parent")).expect("directory");
        let extension = if compiler == "c++" { "cpp" } else { "c" };
        let file = self.path(&format!(
            "{}.{extension}",
            output.file_name().expect("name").to_string_lossy()
        ));
        std::fs::write(&file, source).expect("source");
        let result = Command::new(compiler)
            .arg(&file)
            .args(["-D_GNU_SOURCE", "-O1", "-w", "-o"])
            .arg(&output)
            .args(flags)
            .current_dir(self.dir.path())
            .output()
            .expect("a C compiler");
        assert!(
            result.status.success(),
            "{}",
            String::from_utf8_lossy(&result.stderr)
        );
        output
    }

    pub fn program(&self, source: &str, name: &str, flags: &[&str]) -> PathBuf {
        self.compile("cc", source, name, flags)
    }

    pub fn shared(&self, source: &str, name: &str, flags: &[&str]) -> PathBuf {
        self.compile("cc", source, name, &[&["-shared", "-fPIC"], flags].concat())
    }

    /// Compiles two libraries named like libtorch's. They have no headers, so no adapter can be built, and attaching fails
    /// with a message.
    pub fn stand_in_libtorch(&self) {
        self.shared("int c10(void) { return 1; }", "torch/lib/libc10.so", &[]);
        self.shared(
            "int forward(int x) { return x + 1; }",
            "torch/lib/libtorch_cpu.so",
            &["-Wl,-soname,libtorch_cpu.so"],
        );
    }
}

pub fn graphpatch(options: &[&str]) -> Command {
    let mut command = Command::new(GRAPHPATCH);
    command
        .arg("run")
        .args(options)
        .arg("--")
        .env("GRAPHPATCH_LIBRARY", library())
        .stdin(Stdio::null());
    // Tests must not use the user's own cache.
    command.env(
        "GRAPHPATCH_CACHE",
        concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"),
    );
    command.env_remove("RANK");
    command
}

pub fn run(command: &mut Command) -> Output {
    command.output().expect("starts")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the program without graphpatch. A shell turns signals into exit codes as `graphpatch` does.
pub fn bare(program: &Path, arguments: &[&str]) -> Output {
    run(Command::new("sh")
        .args(["-c", "\"$@\"; exit $?", "sh"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null()))
}

/// Checks that stdout and exit code are the same bare and recorded, and returns the recorded run.
pub fn untouched(program: &Path, arguments: &[&str]) -> Output {
    let without = bare(program, arguments);
    let with = run(graphpatch(&["--tree", "--summary"])
        .arg(program)
        .args(arguments));
    assert_eq!(
        text(&with.stdout),
        text(&without.stdout),
        "stdout of {program:?}; stderr: {}",
        text(&with.stderr)
    );
    assert_eq!(
        with.status.code(),
        without.status.code(),
        "{program:?} {arguments:?}: {}",
        text(&with.stderr)
    );
    with
}

/// Links a program with the stand-in for libtorch.
pub const WITH_LIBTORCH: [&str; 4] = [
    "-Ltorch/lib",
    "-Wl,--no-as-needed",
    "-ltorch_cpu",
    "-Wl,-rpath,$ORIGIN/torch/lib",
];

pub const ENDS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <signal.h>
#include <pthread.h>
static void bye(void) { fputs("bye\n", stdout); fflush(stdout); }
static void quick(void) { write(1, "quick\n", 6); }
static void caught(int s) { write(1, "caught\n", 7); _exit(9); }
static void *thread(void *p) { usleep(20000); puts("thread"); fflush(stdout); return p; }
int main(int argc, char **argv) {
  atexit(bye); at_quick_exit(quick);
  const char *how = argv[1];
  printf("%d %s\n", argc, how); fflush(stdout);
  if (!strcmp(how, "return")) return 5;
  if (!strcmp(how, "exit")) exit(6);
  if (!strcmp(how, "_exit")) _exit(7);
  if (!strcmp(how, "_Exit")) _Exit(8);
  if (!strcmp(how, "quick_exit")) quick_exit(10);
  if (!strcmp(how, "abort")) abort();
  if (!strcmp(how, "catch")) { signal(SIGABRT, caught); abort(); }
  if (!strcmp(how, "segv")) raise(SIGSEGV);
  if (!strcmp(how, "kill")) raise(SIGKILL);
  if (!strcmp(how, "handler")) { signal(SIGTERM, caught); raise(SIGTERM); }
  if (!strcmp(how, "thread")) { pthread_t t; pthread_create(&t, 0, thread, 0); pthread_exit(0); }
  return 0;
}
"#;

pub const WAYS: [&str; 11] = [
    "return",
    "exit",
    "_exit",
    "_Exit",
    "quick_exit",
    "abort",
    "catch",
    "segv",
    "kill",
    "handler",
    "thread",
];

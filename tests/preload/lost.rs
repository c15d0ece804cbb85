//! Programs that are started without the library, and a libtorch that is loaded where no hook sees it. They are still seen
//! where possible; otherwise a note names the cause.

use std::process::Command;

use crate::shop::*;

/// A program that links to a stand-in of libtorch, so that the library tries to attach to it and reports that.
fn model(shop: &Shop) -> std::path::PathBuf {
    shop.stand_in_libtorch();
    shop.program(ENDS, "model", &WITH_LIBTORCH)
}

const SEEN: &str = "ran untouched";
const NOTHING: &str = "no libtorch model ran";

fn said(command: &mut Command) -> String {
    let done = run(command);
    assert_eq!(
        (text(&done.stdout), done.status.code()),
        ("2 exit\nbye\n".into(), Some(6)),
        "{}",
        text(&done.stderr)
    );
    text(&done.stderr)
}

#[test]
fn a_launcher_that_sets_the_environment_is_named() {
    let shop = Shop::new();
    let model = model(&shop);
    let path = model.display().to_string();
    let spawns = r#"
        #include <spawn.h>
        #include <stdlib.h>
        #include <sys/wait.h>
        extern char **environ;
        int main(int argc, char **argv) {
          char *none[] = {"A=1", 0};
          pid_t child; int status;
          if (posix_spawn(&child, argv[1], 0, 0, argv + 1, none)) return 1;
          waitpid(child, &status, 0);
          return WEXITSTATUS(status);
        }"#;
    let spawns = shop.program(spawns, "spawns", &[]).display().to_string();
    let python =
        "import os, sys; os.execve(sys.argv[1], sys.argv[1:], {'LD_PRELOAD': 'libm.so.6'})";
    let child = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:], env={}).returncode)";
    let launchers: [&[&str]; 6] = [
        &["env", "-i"],
        &["sh", "-c", "exec env -i \"$@\"", "sh"],
        &["sh", "-c", "LD_PRELOAD= \"$@\"", "sh"],
        &[&spawns],
        &["python3", "-c", python],
        &["python3", "-c", child],
    ];
    for launcher in launchers {
        let mut command = graphpatch(&["--tree"]);
        let said = said(command.args(launcher).args([&path, "exit"]));
        assert!(
            said.contains(&format!("{path} ran without libgraphpatch"))
                && said.contains("LD_PRELOAD"),
            "{launcher:?}: {said}"
        );
        assert!(!said.contains(NOTHING), "{said}");
    }
    // A launcher that passes the environment on is not named.
    let said = said(graphpatch(&["--tree"]).args(["env", "A=1", &path, "exit"]));
    assert!(
        said.contains(SEEN) && !said.contains("without libgraphpatch"),
        "{said}"
    );
}

/// heaptrack's library removes itself from the environment in this way, to leave child processes alone.
#[test]
fn a_library_that_takes_ld_preload_out() {
    let shop = Shop::new();
    let model = model(&shop);
    let takes = shop.shared(
        "#include <stdlib.h>\n__attribute__((constructor)) static void f(void) { unsetenv(\"LD_PRELOAD\"); }",
        "libtakes.so",
        &[],
    );
    let said = said(
        graphpatch(&["--tree"])
            .arg(&model)
            .arg("exit")
            .env("LD_PRELOAD", &takes),
    );
    assert!(said.contains(SEEN), "{said}");
    // Python's hook must be installed all the same.
    let line = "import sys; print([type(f).__name__ for f in sys.meta_path].count('_Finder'))";
    let mut python = graphpatch(&["--tree"]);
    python
        .args(["python3", "-c", line])
        .env("LD_PRELOAD", &takes);
    assert_eq!(text(&run(&mut python).stdout), "1\n");
}

/// In a plugin that is loaded with RTLD_DEEPBIND, `dlopen` is the C library's own and not our hook.
#[test]
fn a_plugin_that_is_bound_deeply() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    shop.shared(
        "int forward(int);\nint plugin(int x) { return forward(x); }",
        "liblinks.so",
        &WITH_LIBTORCH,
    );
    let opens = r#"
        #include <dlfcn.h>
        int plugin(int x) {
          void *h = dlopen("libtorch_cpu.so", RTLD_NOW);
          return h ? ((int (*)(int))dlsym(h, "forward"))(x) : -1;
        }"#;
    shop.shared(opens, "libopens.so", &["-Wl,-rpath,$ORIGIN/torch/lib"]);
    let program = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        int main(int argc, char **argv) {
          void *h = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
          if (!h) { puts(dlerror()); return 1; }
          printf("%d\n", ((int (*)(int))dlsym(h, "plugin"))(1));
          return 0;
        }"#;
    let program = shop.program(program, "deep", &[]);
    let say = |plugin: &str| {
        let plugin = shop.path(plugin).display().to_string();
        text(&untouched(&program, &[&plugin]).stderr)
    };
    let said = say("liblinks.so");
    assert!(said.contains(SEEN), "{said}");
    let said = say("libopens.so");
    assert!(
        said.contains("RTLD_DEEPBIND") && !said.contains(NOTHING),
        "{said}"
    );
}

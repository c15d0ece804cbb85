//! The ways in which processes end, and their children.

use std::path::Path;
use std::process::{Command, Stdio};

use graphpatch_protocol::Report;

use crate::shop::*;

#[test]
fn ordinary_programs_and_pipelines() {
    untouched(Path::new("/bin/ls"), &["-l", "/usr"]);
    let sh = Path::new("/bin/sh");
    untouched(
        sh,
        &["-c", "echo one two | tr a-z A-Z | sed s/ONE/three/; exit 7"],
    );
    // A file makes the order certain: the child waits for it, and the shell writes it after printing.
    let shop = Shop::new();
    let early = shop.path("early").display().to_string();
    let script = r#"rm -f "$0"; (until [ -e "$0" ]; do sleep 0.01; done; echo late) & echo early; : > "$0"; wait; false"#;
    untouched(sh, &["-c", script, &early]);
    let quiet = run(graphpatch(&[]).args(["sh", "-c", "echo out; echo err >&2"]));
    assert_eq!(
        (text(&quiet.stdout), text(&quiet.stderr)),
        ("out\n".into(), "err\n".into())
    );
    let asked = untouched(Path::new("/bin/echo"), &["hello"]);
    assert!(
        text(&asked.stderr).contains("graphpatch: no libtorch model ran in /bin/echo"),
        "{}",
        text(&asked.stderr)
    );
}

#[test]
fn every_way_to_end() {
    let shop = Shop::new();
    let program = shop.program(ENDS, "ends", &[]);
    for how in WAYS {
        untouched(&program, &[how]);
    }
    assert_eq!(
        run(graphpatch(&[]).arg(&program).arg("abort"))
            .status
            .code(),
        Some(134)
    );
    assert_eq!(
        run(graphpatch(&[]).arg(&program).arg("kill")).status.code(),
        Some(137)
    );
}

#[test]
fn every_way_to_end_leaves_a_report() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    let program = shop.program(ENDS, "ends", &WITH_LIBTORCH);
    for how in WAYS {
        let with = untouched(&program, &[how]);
        let said = text(&with.stderr);
        assert!(
            said.contains("ran untouched") && said.contains("headers"),
            "{how}: {said}"
        );
        assert!(
            said.contains("graphpatch: 0 runs in 0 processes"),
            "{how}: {said}"
        );
    }
}

/// A program may call `_exit` in a signal handler in the middle of malloc, or `abort` with a broken heap. The last report may
/// then hang or crash, but the process must still end with its own exit code.
#[test]
fn a_report_that_hangs_or_crashes_holds_up_no_end() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    // The report opens its file by the program's own open64, which misbehaves at the end.
    let source = r#"
        #include <fcntl.h>
        #include <stdarg.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static int hang, crash;
        int open64(const char *path, int flags, ...) {
          va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list);
          if (hang) for (;;) pause();
          if (crash) *(volatile int *)8 = 1;
          return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
        }
        int open(const char *path, int flags, ...) { return open64(path, flags, 0600); }
        int main(int argc, char **argv) {
          if (strstr(argv[1], "hang")) hang = 1; else crash = 1;
          if (strstr(argv[1], "abort")) abort();
          _exit(33);
        }"#;
    let flags = [
        "-rdynamic",
        "-Ltorch/lib",
        "-Wl,--no-as-needed",
        "-ltorch_cpu",
        "-Wl,-rpath,$ORIGIN/torch/lib",
    ];
    let program = shop.program(source, "misbehaves", &flags);
    for (how, code) in [
        ("hang", 33),
        ("crash", 33),
        ("hang abort", 134),
        ("crash abort", 134),
    ] {
        let start = std::time::Instant::now();
        let with = run(graphpatch(&["--tree"]).arg(&program).arg(how));
        assert_eq!(with.status.code(), Some(code), "{how}");
        assert!(
            start.elapsed().as_secs() >= 3 || !how.contains("hang"),
            "{how}: the report was meant to misbehave"
        );
        assert!(
            text(&with.stderr).contains("ran untouched"),
            "the report from before: {}",
            text(&with.stderr)
        );
    }
}

#[test]
fn exceptions() {
    let shop = Shop::new();
    let source = r#"
        #include <cstdio>
        #include <stdexcept>
        struct Tail { ~Tail() { std::puts("unwound"); } };
        int main(int argc, char **) {
          try { Tail tail; throw std::runtime_error("a"); } catch (std::exception &e) { std::puts(e.what()); }
          std::fflush(stdout);
          if (argc > 1) throw std::runtime_error("b");
        }"#;
    let program = shop.compile("c++", source, "throws", &[]);
    untouched(&program, &[]);
    untouched(&program, &["uncaught"]);
}

#[test]
fn children_of_all_kinds() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    let program = r#"
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/wait.h>
        #include <unistd.h>
        #include <spawn.h>
        extern char **environ;
        static int wait_for(pid_t pid) { int s; waitpid(pid, &s, 0); return WIFEXITED(s) ? WEXITSTATUS(s) : 128 + WTERMSIG(s); }
        int main(int argc, char **argv) {
          if (argc > 1) { printf("executed %s\n", argv[1]); return 4; }
          setvbuf(stdout, 0, _IONBF, 0);
          pid_t pid = fork();
          if (!pid) { puts("child"); exit(3); }
          printf("%d\n", wait_for(pid));
          if (!(pid = fork())) _exit(5);
          printf("%d\n", wait_for(pid));
          if (!(pid = fork())) abort();
          printf("%d\n", wait_for(pid));
          if (!(pid = vfork())) _exit(6);
          printf("%d\n", wait_for(pid));
          if (!(pid = vfork())) { execl(argv[0], argv[0], "vfork", (char *)0); _exit(1); }
          printf("%d\n", wait_for(pid));
          char *args[] = {argv[0], "spawn", 0};
          posix_spawn(&pid, argv[0], 0, 0, args, environ);
          printf("%d\n", wait_for(pid));
          printf("%d\n", system("exit 8") >> 8);
          execl(argv[0], argv[0], "exec", (char *)0);
        }"#;
    untouched(&shop.program(program, "children", &[]), &[]);
    untouched(
        &shop.program(program, "torch_children", &WITH_LIBTORCH),
        &[],
    );
}

#[test]
fn reports_hold_what_the_process_is() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    let program = shop.program(ENDS, "ends", &WITH_LIBTORCH);
    let reports = shop.path("reports");
    std::fs::create_dir(&reports).expect("dir");
    let options = graphpatch_protocol::Options {
        operations: graphpatch_protocol::Operations::Auto,
        run_at: Vec::new(),
        record: true,
        trace: false,
        live: false,
        inside_attention: false,
        compiled_values: false,
        fork: None,
        patches: vec![],
        on_error: graphpatch_core::patch::OnError::Raise,
        report_dir: reports.clone(),
    };
    let file = shop.path("options.json");
    options.save(&file).expect("options");
    let mut child = Command::new(&program)
        .arg("_exit")
        .env("LD_PRELOAD", library())
        .env("GRAPHPATCH_OPTIONS", &file)
        .env(
            "GRAPHPATCH_CACHE",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"),
        )
        .env("RANK", "3")
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    assert_eq!(child.wait().expect("ends").code(), Some(7));
    let (found, damaged) = Report::load_all(&reports);
    assert_eq!((found.len(), damaged), (1, vec![]));
    let report = &found[0];
    assert_eq!(
        (report.pid, report.ppid, report.rank.as_deref()),
        (child.id(), std::process::id(), Some("3"))
    );
    assert!(
        report.program.ends_with("/ends") && report.error.is_some() && report.runs == 0,
        "{report:?}"
    );
    assert!(
        report
            .libtorch
            .as_deref()
            .is_some_and(|text| text.starts_with("unknown (")),
        "{report:?}"
    );
}

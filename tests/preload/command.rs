//! The command itself: its exit codes, its refusals, signals sent to it.

use std::process::{Command, Stdio};

use crate::shop::*;

#[test]
fn a_patch_that_could_not_be_applied_shows_in_the_exit_code() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    let flags = [
        "-Ltorch/lib",
        "-Wl,--no-as-needed",
        "-ltorch_cpu",
        "-Wl,-rpath,$ORIGIN/torch/lib",
    ];
    let program = shop.program(ENDS, "ends", &flags);
    let with = run(graphpatch(&["--patch", "add=zero"])
        .arg(&program)
        .arg("none"));
    assert_eq!(with.status.code(), Some(3));
    assert!(
        text(&with.stderr).contains("graphpatch: patch add=zero never matched"),
        "{}",
        text(&with.stderr)
    );
    // The program's own failure goes first.
    let with = run(graphpatch(&["--patch", "add=zero"])
        .arg(&program)
        .arg("exit"));
    assert_eq!(with.status.code(), Some(6));
    let with = run(graphpatch(&["--patch", "add=zero"]).arg("true"));
    assert_eq!(with.status.code(), Some(3));
}

#[test]
fn signals_are_the_programs() {
    let shop = Shop::new();
    let source = r#"
        #include <signal.h>
        #include <stdio.h>
        #include <unistd.h>
        static void got(int s) { write(1, "got it\n", 7); _exit(21); }
        int main(void) { signal(SIGTERM, got); write(1, "ready\n", 6); for (;;) pause(); }"#;
    let program = shop.program(source, "waits", &[]);
    let mut child = graphpatch(&[])
        .arg(program)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut stdout, &mut ready).expect("ready");
    let killed = Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .expect("kill");
    assert!(killed.success());
    assert_eq!(child.wait().expect("ends").code(), Some(21));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).expect("rest");
    assert_eq!(rest, "got it\n");
}

#[test]
fn mistakes_stop_before_the_program() {
    let shop = Shop::new();
    let mark = shop.path("ran");
    let damaged = shop.path("damaged.json");
    std::fs::write(&damaged, "{\"format\": 1, \"graphs\": [").expect("write");
    let (damaged, absent) = (
        damaged.display().to_string(),
        shop.path("absent/g.json").display().to_string(),
    );
    let bad: [(&[&str], &str); 7] = [
        (&["--patch", "a=double"], "a=double"),
        (&["--patch", "a[=zero", "--patch", "=zero"], "=zero"),
        (&["--graph", &absent], "cannot be written"),
        (&["--graph", "/"], "is a directory"),
        (
            &["--against", &damaged, "--patch", "a=zero"],
            "damaged.json",
        ),
        (&["--against", &absent, "--patch", "a=zero"], "absent"),
        (&["--on-error", "explode"], "explode"),
    ];
    for (options, expected) in bad {
        let with = run(graphpatch(options).arg("touch").arg(&mark));
        let said = text(&with.stderr);
        assert_eq!(with.status.code(), Some(2), "{options:?}: {said}");
        assert!(
            said.starts_with("graphpatch: ") && said.contains(expected),
            "{options:?}: {said}"
        );
    }
    assert!(!mark.exists());
    for program in [
        "no-such-program-anywhere",
        "/no/such/program",
        "/etc/passwd",
        "/",
    ] {
        let with = run(graphpatch(&[]).arg(program));
        assert_eq!(with.status.code(), Some(2), "{program}");
        assert!(
            text(&with.stderr).starts_with("graphpatch: ") && text(&with.stderr).contains(program)
        );
    }
    assert_eq!(
        run(Command::new(GRAPHPATCH).args(["run"])).status.code(),
        Some(2)
    );
    assert_eq!(
        run(Command::new(GRAPHPATCH).args(["--help"])).status.code(),
        Some(0)
    );
}

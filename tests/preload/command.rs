//! The command itself: its exit codes, its refusals, signals sent to it.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::shop::*;

#[test]
fn a_patch_that_could_not_be_applied_shows_in_the_exit_code() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    let program = shop.program(ENDS, "ends", &WITH_LIBTORCH);
    let with = run(graphpatch(&["--patch", "add=zero"])
        .arg(&program)
        .arg("none"));
    assert_eq!(with.status.code(), Some(3));
    assert!(
        text(&with.stderr).contains("graphpatch: patch add=zero never matched"),
        "{}",
        text(&with.stderr)
    );
    // The program's own failure decides the exit code.
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
    std::fs::write(shop.path("text.npy"), "no array").expect("write");
    std::fs::write(
        shop.path("half.safetensors"),
        [200, 0, 0, 0, 0, 0, 0, 0, b'{'],
    )
    .expect("write");
    std::fs::write(
        shop.path("typo.toml"),
        "[[patch]]\npath = 'a'\nkind = 'zreo'\n",
    )
    .expect("write");
    std::fs::write(
        shop.path("probe.toml"),
        "[[patch]]\npath = 'a'\nkind = 'probe'\n",
    )
    .expect("write");
    std::fs::write(
        shop.path("file.toml"),
        "[[patch]]\npath = 'a'\nkind = 'add'\nvalue = { file = 'absent.npy' }\n",
    )
    .expect("write");
    let path = |name: &str| shop.path(name).display().to_string();
    let (damaged, absent) = (damaged.display().to_string(), path("absent/g.json"));
    let add = |value: &str| format!("a=add:@{}", path(value));
    let (typo, probe, file) = (path("typo.toml"), path("probe.toml"), path("file.toml"));
    let out = path("out.safetensors");
    let bad: [(&[&str], &str); 24] = [
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
        (
            &["--patch", &add("absent.npy")],
            "absent.npy: there is no such file",
        ),
        (
            &["--patch", &add("text.npy")],
            "text.npy: the beginning: not an npy file",
        ),
        (
            &["--patch", &add("half.safetensors#k")],
            "half.safetensors: the header's size",
        ),
        (&["--patch", &add("half.safetensors")], "#key"),
        (&["--patch", &add("text.npy#k")], "no keys"),
        (
            &["--patch", "a=add:@d.txt"],
            ".npy, .safetensors, .gguf, .pt or .pth",
        ),
        (&["--patch", "a[0]=probe", "--save", &out], "takes no slice"),
        (&["--patches", &absent], "absent/g.json: the folder"),
        (
            &["--patches", &typo],
            "typo.toml: line 3, column 8: unknown kind",
        ),
        (&["--patches", &file], "absent.npy: there is no such file"),
        (
            &["--probe", "a"],
            "a=probe: nothing says where its values go; add --save FILE",
        ),
        (&["--record", "a"], "add --save FILE"),
        (&["--patches", &probe], "add --save FILE"),
        (&["--patch", "a=zero", "--save", &out], "no values to save"),
        (&["--probe", "a[0]", "--save", &out], "\"a[0]\""),
        (&["--probe", "a", "--save", &absent], "cannot be written"),
        (
            &["--record", "a", "--against", &absent, "--save", &out],
            "absent",
        ),
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
    assert!(!mark.exists() && !shop.path("out.safetensors").exists());
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

#[test]
fn messages_say_what_to_do() {
    let shop = Shop::new();
    let script = shop.path("script.py");
    std::fs::write(&script, "").expect("write");
    let program = |name: &Path| text(&run(graphpatch(&[]).arg(name)).stderr);
    assert!(program(&script).contains("start it by python "));
    assert!(program(Path::new("/")).contains("it is a folder"));
    assert!(program(Path::new("/etc/passwd")).contains("chmod +x /etc/passwd"));
    let graph = shop.path("g.json");
    std::fs::write(&graph, "{\"format\": 1, \"graphs\": []}").expect("write");
    let show = |options: [&str; 2]| {
        let said = run(Command::new(GRAPHPATCH)
            .arg("show")
            .arg(&graph)
            .args(options));
        text(&said.stderr)
    };
    assert!(show(["--depth", "two"]).contains("'--depth <N>': a whole number is expected"));
    assert!(show(["--shape", "x,3"]).contains("expected sizes such as"));
    let alone = run(&mut Command::new(GRAPHPATCH));
    assert!(alone.status.code() == Some(2) && text(&alone.stderr).starts_with("Look inside"));
    let nothing = run(graphpatch(&["--tree"]).arg("true"));
    assert!(text(&nothing.stderr).contains("; `graphpatch doctor -- true` says"));
}

#[test]
fn check_takes_every_kind_of_patch() {
    let shop = Shop::new();
    let graph = shop.path("g.json").display().to_string();
    std::fs::write(&graph, "{\"format\": 1, \"graphs\": []}").expect("write");
    let toml = shop.path("p.toml").display().to_string();
    std::fs::write(&toml, "[[patch]]\npath = 'from.file'\nkind = 'record'\n").expect("write");
    let check = |options: &[&str]| {
        run(Command::new(GRAPHPATCH)
            .args(["check", &graph])
            .args(options))
    };
    let done = check(&[
        "--patch",
        "a=zero",
        "--probe",
        "b",
        "--record",
        "c",
        "--patches",
        &toml,
    ]);
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    for path in ["  a: ", "  b: ", "  c: ", "  from.file: "] {
        assert!(said.contains(path), "{path}: {said}");
    }
    assert_eq!(check(&[]).status.code(), Some(2));
}

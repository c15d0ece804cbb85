//! With `GRAPHPATCH_DISABLE=1`, or if the library cannot work, the program runs as it does alone, and one line says so.

use std::process::Command;

use crate::shop::*;
use crate::stand_ins::*;

#[test]
fn the_command_becomes_the_program() {
    let shop = Shop::new();
    let program = shop.program(ENDS, "ends", &[]);
    let show = "env | grep -c -e LD_PRELOAD -e GRAPHPATCH_OPTIONS -e PYTHONPATH; echo $PPID; exec \"$0\" exit";
    let mut command = graphpatch(&["--tree", "--summary"]);
    command
        .args(["sh", "-c", show])
        .arg(&program)
        .env("GRAPHPATCH_DISABLE", "1")
        .env_remove("PYTHONPATH")
        .env_remove("LD_PRELOAD");
    let done = run(&mut command);
    let expected = format!("0\n{}\n2 exit\nbye\n", std::process::id());
    assert_eq!(
        (text(&done.stdout), done.status.code()),
        (expected, Some(6))
    );
    let said = text(&done.stderr);
    assert!(
        said.lines().count() == 1 && said.contains("GRAPHPATCH_DISABLE is set"),
        "{said}"
    );
    let absent = run(graphpatch(&[])
        .arg("no-such-program")
        .env("GRAPHPATCH_DISABLE", "1"));
    assert_eq!(absent.status.code(), Some(2));
}

#[test]
fn a_process_below_is_left_alone() {
    let setup = Setup::new();
    let start = |value: &str| {
        let mut command = graphpatch(&["--tree"]);
        let line = format!("GRAPHPATCH_DISABLE={value} \"$0\" none");
        command.args(["sh", "-c", &line]).arg(&setup.program);
        let done = run(setup.environment(&mut command));
        assert_eq!(text(&done.stdout), "2 none\nbye\n");
        text(&done.stderr)
    };
    assert!(start("0").contains(LOADED));
    let said = start("1");
    assert!(
        !said.contains(LOADED) && !said.contains("ran untouched"),
        "{said}"
    );
    let python = |value: &str| {
        let mut command = graphpatch(&["--tree"]);
        let line = "import sys; print([type(f).__name__ for f in sys.meta_path].count('_Finder'))";
        let script = format!("GRAPHPATCH_DISABLE={value} python3 -c \"{line}\"");
        text(&run(command.args(["sh", "-c", &script])).stdout)
    };
    assert_eq!((python("0"), python("1")), ("1\n".into(), "0\n".into()));
}

/// The library cannot read its options, because they come from a command of another version.
#[test]
fn options_of_another_version() {
    let shop = Shop::new();
    let program = shop.program(ENDS, "ends", &[]);
    let options = shop.path("options.json");
    std::fs::write(&options, "{\"recording\": \"everything\"}").expect("write");
    let done = run(Command::new(&program)
        .arg("exit")
        .env("LD_PRELOAD", library())
        .env("GRAPHPATCH_OPTIONS", &options));
    assert_eq!(
        (text(&done.stdout), done.status.code()),
        ("2 exit\nbye\n".into(), Some(6))
    );
    let said = text(&done.stderr);
    assert!(
        said.lines().count() == 1
            && said.contains("runs untouched")
            && said.contains("options.json"),
        "{said}"
    );
}

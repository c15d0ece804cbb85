//! Programs that the library does not support (musl, static, 32 bits) or that check themselves what is loaded (sanitizers),
//! started directly and by a shell. They run as they do alone, and graphpatch prints exactly one line.
//!
//! Which of them can be compiled depends on the machine; with `GRAPHPATCH_NEEDS_STRANGERS=1`, which `.ci/run` sets, all must be.

use std::path::PathBuf;
use std::process::Command;

use crate::shop::*;

const SOURCE: &str = r#"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void *work(void *p) { char *m = malloc(10); m[0] = 1; free(m); return p; }
static void bye(void) { puts("bye"); }
int main(int argc, char **argv) {
  pthread_t thread;
  atexit(bye);
  pthread_create(&thread, 0, work, 0);
  pthread_join(thread, 0);
  if (argc > 2) { execv(argv[0], (char *[]){argv[0], "again", 0}); return 1; }
  printf("%d %s %s\n", argc, argv[1], getenv("MARK") ? getenv("MARK") : "-");
  return 7;
}
"#;

struct Kind {
    name: &'static str,
    compiler: &'static str,
    flags: &'static [&'static str],
    /// Whether the library can be loaded into the program.
    fits: bool,
}

const fn kind(
    name: &'static str,
    compiler: &'static str,
    flags: &'static [&'static str],
    fits: bool,
) -> Kind {
    Kind {
        name,
        compiler,
        flags,
        fits,
    }
}

const KINDS: [Kind; 12] = [
    kind("plain", "gcc", &[], true),
    kind("static", "gcc", &["-static"], false),
    kind("musl", "musl-gcc", &[], false),
    kind("musl-static", "musl-gcc", &["-static"], false),
    kind("bits32", "gcc", &["-m32"], false),
    kind("asan", "gcc", &["-fsanitize=address"], true),
    kind(
        "asan-in-it",
        "gcc",
        &["-fsanitize=address", "-static-libasan"],
        true,
    ),
    kind("tsan", "gcc", &["-fsanitize=thread"], true),
    kind(
        "tsan-in-it",
        "gcc",
        &["-fsanitize=thread", "-static-libtsan"],
        true,
    ),
    kind("leaks", "gcc", &["-fsanitize=leak"], true),
    kind("undefined", "gcc", &["-fsanitize=undefined"], true),
    kind("static-pie", "gcc", &["-static-pie"], false),
];

/// Compiles the program. Returns `None` if this machine cannot, unless all programs are required.
fn compiled(shop: &Shop, kind: &Kind) -> Option<PathBuf> {
    let source = shop.path("stranger.c");
    std::fs::write(&source, SOURCE).expect("source");
    let program = shop.path(kind.name);
    let done = Command::new(kind.compiler)
        .arg(&source)
        .args(["-O1", "-w", "-pthread", "-o"])
        .arg(&program)
        .args(kind.flags)
        .output();
    let why = match done {
        Ok(done) if done.status.success() => return Some(program),
        Ok(done) => text(&done.stderr),
        Err(why) => why.to_string(),
    };
    let needed = std::env::var_os("GRAPHPATCH_NEEDS_STRANGERS").is_some();
    assert!(!needed, "{} {:?}: {why}", kind.compiler, kind.flags);
    None
}

#[test]
fn they_run_as_alone() {
    let shop = Shop::new();
    let mut tried = Vec::new();
    for kind in &KINDS {
        let Some(program) = compiled(&shop, kind) else {
            continue;
        };
        let path = program.display().to_string();
        let calls: [&[&str]; 4] = [
            &[&path, "once"],
            &[&path, "twice", "more"],
            &[
                "sh",
                "-c",
                "MARK=x \"$@\"; code=$?; exit $code",
                "sh",
                &path,
                "below",
            ],
            &[
                "sh",
                "-c",
                "\"$@\" | cat; exec \"$@\"",
                "sh",
                &path,
                "piped",
            ],
        ];
        for call in calls {
            let bare = run(Command::new(call[0]).args(&call[1..]));
            assert_eq!(
                bare.status.code(),
                Some(7),
                "{} alone: {}",
                kind.name,
                text(&bare.stderr)
            );
            let with = run(graphpatch(&["--tree"]).args(call));
            let said = text(&with.stderr);
            assert_eq!(
                (text(&with.stdout), with.status.code()),
                (text(&bare.stdout), bare.status.code()),
                "{} {call:?}: {said}",
                kind.name
            );
            let added: Vec<&str> = said
                .lines()
                .filter(|line| !line.starts_with("graphpatch: "))
                .collect();
            // The dynamic linker prints one line for each 32-bit process.
            let processes = if call.len() > 2 { 2 } else { 1 };
            let most = if kind.name == "bits32" { processes } else { 0 };
            assert!(added.len() <= most, "{} {call:?}: {said}", kind.name);
            assert_eq!(
                said.lines().count() - added.len(),
                1,
                "{} {call:?}: {said}",
                kind.name
            );
            if call[0] == path && !kind.fits {
                assert!(
                    !said.contains("no libtorch model ran"),
                    "{}: {said}",
                    kind.name
                );
            }
        }
        tried.push(kind.name);
    }
    assert!(
        tried.contains(&"plain") && tried.contains(&"asan"),
        "{tried:?}"
    );
}

/// A library that was cut short would crash the dynamic linker. Instead, one line says so, and the program runs without it.
#[test]
fn a_library_that_cannot_be_loaded() {
    let shop = Shop::new();
    let program = shop.program(ENDS, "ends", &[]);
    let copy = shop.path("broken/libgraphpatch.so");
    std::fs::create_dir(shop.path("broken")).expect("dir");
    let whole = std::fs::read(library()).expect("read");
    let cuts: [&[u8]; 4] = [
        b"",
        b"no library",
        &whole[..4096],
        &whole[..whole.len() / 2],
    ];
    for bytes in cuts {
        std::fs::write(&copy, bytes).expect("write");
        let done = run(graphpatch(&["--tree"])
            .arg(&program)
            .arg("exit")
            .env("GRAPHPATCH_LIBRARY", &copy));
        let said = text(&done.stderr);
        assert_eq!(
            (text(&done.stdout), done.status.code()),
            ("2 exit\nbye\n".into(), Some(6)),
            "{said}"
        );
        let told = said.lines().filter(|line| line.contains("damaged")).count();
        assert_eq!(told, 1, "{said}");
    }
}

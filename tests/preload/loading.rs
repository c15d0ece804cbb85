//! Libraries that programs load, and programs that load this library without `graphpatch run`.

use std::path::Path;
use std::process::Command;

use graphpatch_loader::{Libtorch, cache, seal};

use crate::shop::*;

#[test]
fn callers_find_their_own_libraries() {
    let shop = Shop::new();
    // libouter is found by the RUNPATH of the program, and libinner by that of libouter. Both use $ORIGIN, so `dlopen` must
    // know its caller.
    shop.shared(
        "const char *inner(void) { return \"inner\"; }",
        "a/b/libinner.so",
        &[],
    );
    let outer = r#"
        #include <dlfcn.h>
        const char *outer(void) {
          void *h = dlopen("libinner.so", RTLD_NOW | RTLD_LOCAL);
          if (!h) return dlerror();
          return ((const char *(*)(void))dlsym(h, "inner"))();
        }"#;
    shop.shared(
        outer,
        "a/libouter.so",
        &["-Wl,--enable-new-dtags,-rpath,$ORIGIN/b"],
    );
    let program = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        int main(void) {
          void *h = dlopen("libouter.so", RTLD_NOW);
          if (!h) { puts(dlerror()); return 1; }
          puts(((const char *(*)(void))dlsym(h, "outer"))());
          puts(dlopen("libinner.so", RTLD_NOW | RTLD_NOLOAD) ? "seen" : "hidden");
          puts(dlopen("libnone.so", RTLD_NOW) ? "?" : dlerror());
          puts(dlsym(h, "no_such_symbol") ? "?" : "no symbol");
          puts(dlerror() ? "said why" : "said nothing");
          puts(dlerror() ? "again?" : "once");
          puts(dlsym(RTLD_DEFAULT, "puts") == (void *)puts ? "same puts" : "other puts");
          return 0;
        }"#;
    let program = shop.program(program, "app", &["-Wl,--enable-new-dtags,-rpath,$ORIGIN/a"]);
    let with = untouched(&program, &[]);
    assert!(
        text(&with.stdout).starts_with("inner\n"),
        "{}",
        text(&with.stdout)
    );
}

#[test]
fn rtld_next_means_the_next_of_the_caller() {
    let shop = Shop::new();
    shop.shared("int answer(void) { return 42; }", "libbase.so", &[]);
    let wrapper = r#"
        #include <dlfcn.h>
        int answer(void) { return ((int (*)(void))dlsym(RTLD_NEXT, "answer"))() + 1; }"#;
    shop.shared(wrapper, "libwrap.so", &[]);
    let program = r#"
        #include <stdio.h>
        int answer(void);
        int main(void) { printf("%d\n", answer()); return 0; }"#;
    let flags = [
        "-L.",
        "-Wl,--no-as-needed",
        "-lwrap",
        "-lbase",
        "-Wl,-rpath,$ORIGIN",
    ];
    let with = untouched(&shop.program(program, "next", &flags), &[]);
    assert_eq!(text(&with.stdout), "43\n");
}

/// A plugin brings libtorch. Its constructor looks up symbols and loads another library while `dlopen` is still running.
#[test]
fn libtorch_that_comes_late() {
    let shop = Shop::new();
    shop.stand_in_libtorch();
    let plugin = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        #include <errno.h>
        int forward(int);
        __attribute__((constructor)) static void early(void) {
          puts(dlsym(RTLD_DEFAULT, "forward") ? "constructor" : "?");
          dlopen("libm.so.6", RTLD_NOW);
        }
        int plugin(int x) { return forward(x); }"#;
    shop.shared(plugin, "libplugin.so", &WITH_LIBTORCH);
    let program = r#"
        #include <dlfcn.h>
        #include <errno.h>
        #include <stdio.h>
        __attribute__((noinline)) static void *load(void) { return dlopen("libplugin.so", RTLD_NOW | RTLD_LOCAL); }
        int main(void) {
          void *h = load();
          if (!h) { puts(dlerror()); return 1; }
          errno = 77;
          int (*f)(int) = (int (*)(int))dlsym(h, "plugin");
          printf("%d\n", errno);
          printf("%d\n", f(1));
          return 0;
        }"#;
    let with = untouched(&shop.program(program, "late", &["-Wl,-rpath,$ORIGIN"]), &[]);
    let said = text(&with.stderr);
    assert!(
        said.contains("ran untouched") && said.contains("headers"),
        "{said}"
    );
    assert_eq!(text(&with.stdout), "constructor\n77\n2\n");
}

/// The adapter may be loaded only when libtorch's constructors have run: neither from a constructor of a library that
/// libtorch needs, nor before the program's `dlopen` is over. A stand-in for the adapter tells when it is loaded.
#[test]
fn the_adapter_waits_for_libtorchs_constructors() {
    let shop = Shop::new();
    let looks = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        __attribute__((constructor)) static void early(void) {
          void *(*volatile look)(void *, const char *) = dlsym;
          fprintf(stderr, "c10 %d\n", look(RTLD_DEFAULT, "puts") != 0);
          dlclose(dlopen("libm.so.6", RTLD_NOW));
          look(RTLD_DEFAULT, "gets");
        }"#;
    let says = |what: &str| {
        format!(
            "#include <stdio.h>\n__attribute__((constructor)) static void f(void) {{ fputs(\"{what}\\n\", stderr); }}"
        )
    };
    shop.shared(looks, "torch/lib/libc10.so", &[]);
    let needs_c10 = [
        "-Wl,-soname,libtorch_cpu.so",
        "-Ltorch/lib",
        "-Wl,--no-as-needed",
        "-lc10",
        "-Wl,-rpath,$ORIGIN",
    ];
    let torch = shop.shared(&says("libtorch"), "torch/lib/libtorch_cpu.so", &needs_c10);
    let adapter = cache::file_name(&Libtorch::describe(&torch));
    let file = shop.shared(&says("adapter"), &format!("ahead/{adapter}"), &[]);
    seal::seal(&file, &adapter).expect("sealed");
    let program = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        __attribute__((noinline)) static void *load(const char *name) {
          char room[64];
          sprintf(room, "torch/lib/%s", name);
          return dlopen(room, RTLD_NOW);
        }
        __attribute__((noinline)) static void deep(int n, void *h) {
          volatile char room[256];
          room[n] = 1;
          if (n) { deep(n - 1, h); room[n] = 2; return; }
          dlsym(h, "nothing");
        }
        int main(int argc, char **argv) {
          if (argc > 1) { fputs("main\n", stderr); return 0; }
          void *h = load("libtorch_cpu.so");
          fputs("opened\n", stderr);
          deep(3, h);
          fputs("looked\n", stderr);
          return 0;
        }"#;
    let order = |program: &Path, arguments: &[&str]| {
        let mut command = graphpatch(&["--tree"]);
        command
            .arg(program)
            .args(arguments)
            .current_dir(shop.path(""));
        let with = run(command.env("GRAPHPATCH_ADAPTER_DIR", shop.path("ahead")));
        assert_eq!(with.status.code(), Some(0));
        let said = text(&with.stderr);
        let lines: Vec<&str> = said
            .lines()
            .take_while(|line| !line.starts_with("graphpatch"))
            .collect();
        lines.join(" ")
    };
    let late = shop.program(program, "late", &[]);
    assert_eq!(order(&late, &[]), "c10 1 libtorch opened adapter looked");
    let linked = shop.program(program, "linked", &WITH_LIBTORCH);
    assert_eq!(order(&linked, &["x"]), "c10 1 libtorch adapter main");
}

#[test]
fn libraries_used_in_process_are_inert() {
    let shop = Shop::new();
    let library = library();
    let dir = library.parent().expect("dir").display().to_string();
    let (path, rpath) = (format!("-L{dir}"), format!("-Wl,-rpath,{dir}"));
    let linked = shop.program(
        ENDS,
        "linked",
        &[&path, "-Wl,--no-as-needed", "-lgraphpatch", &rpath],
    );
    let plain = shop.program(ENDS, "plain", &[]);
    for how in WAYS {
        let (linked, plain) = (bare(&linked, &[how]), bare(&plain, &[how]));
        assert_eq!(
            (text(&linked.stdout), linked.status.code()),
            (text(&plain.stdout), plain.status.code()),
            "{how}"
        );
    }
    // The library is preloaded by hand, without options.
    let by_hand = run(Command::new(&plain).arg("exit").env("LD_PRELOAD", &library));
    assert_eq!(
        (text(&by_hand.stdout), by_hand.status.code()),
        ("2 exit\nbye\n".into(), Some(6))
    );
    assert_eq!(text(&by_hand.stderr), "");
    // The file with the options is gone, as for a child that outlives the command.
    let stale = run(Command::new(&plain)
        .arg("exit")
        .env("LD_PRELOAD", &library)
        .env("GRAPHPATCH_OPTIONS", "/no/such/file"));
    assert_eq!(
        (stale.status.code(), text(&stale.stderr)),
        (Some(6), String::new())
    );
}

#[test]
fn the_users_own_preload_stays() {
    let shop = Shop::new();
    let mine = shop.shared("int getpagesize(void) { return 12345; }", "libmine.so", &[]);
    let source = "#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf(\"%d\\n\", getpagesize()); }";
    let program = shop.program(source, "page", &[]);
    let with = run(graphpatch(&[]).arg(program).env("LD_PRELOAD", mine));
    assert_eq!(text(&with.stdout), "12345\n");
}

#[test]
fn a_library_in_a_directory_with_spaces() {
    let shop = Shop::new();
    let copy = shop.path("a b/libgraphpatch.so");
    std::fs::create_dir(shop.path("a b")).expect("dir");
    std::fs::copy(library(), &copy).expect("copy");
    let with = run(graphpatch(&[])
        .args(["echo", "fine"])
        .env("GRAPHPATCH_LIBRARY", copy));
    assert_eq!(
        (text(&with.stdout), text(&with.stderr)),
        ("fine\n".into(), String::new())
    );
}

//! Protection from other users. Files that another user may have written are neither run nor followed when writing, and a
//! program with more rights than its caller takes no settings from the caller. The tests create files of other users, so they
//! must run as root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::shop::*;
use crate::stand_ins::*;

/// Any user but root.
const OTHER: u32 = 12345;

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

pub fn need_root() {
    // SAFETY: geteuid has no preconditions.
    let user = unsafe { libc::geteuid() };
    assert_eq!(user, 0, "only root can give files to another user");
}

#[test]
fn adapters_that_others_may_have_written_are_not_loaded() {
    need_root();
    let setup = Setup::new();
    let name = adapter_name(&setup);
    let place = |folder: &str, variable: &'static str| {
        let file = foreign_adapter(&setup.shop, folder, &name);
        let folder = setup.shop.path(folder);
        (file, folder, variable)
    };
    for variable in ["GRAPHPATCH_ADAPTER_DIR", "GRAPHPATCH_CACHE"] {
        let (file, folder, variable) = place(&format!("of-{variable}"), variable);
        let temp = setup.shop.path(&format!("temp-{variable}"));
        std::fs::create_dir(&temp).expect("dir");
        let said = || {
            setup.said(|command| {
                command.env(variable, &folder).env("TMPDIR", &temp);
            })
        };
        let theirs = |path: &Path| chown(path, Some(OTHER), Some(OTHER)).expect("chown");
        let ours = |path: &Path| chown(path, Some(0), Some(0)).expect("chown");
        // The adapter is loaded if nobody else can have written it. Each case below changes exactly that.
        assert!(said().contains(FOREIGN), "{variable}");
        type Case<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn());
        let cases: [Case<'_>; 4] = [
            ("another user (12345)", &|| theirs(&folder), &|| {
                ours(&folder)
            }),
            ("other users", &|| chmod(&folder, 0o777), &|| {
                chmod(&folder, 0o755)
            }),
            ("other users", &|| chmod(&folder, 0o1777), &|| {
                chmod(&folder, 0o755)
            }),
            ("another user (12345)", &|| theirs(&file), &|| ours(&file)),
        ];
        for (at, (why, spoil, mend)) in cases.iter().enumerate() {
            // Kept to restore the file: in the last case it lies in our own cache and is replaced by a new build.
            let whole = std::fs::read(&file).expect("read");
            spoil();
            let said = said();
            assert!(!said.contains(FOREIGN), "{variable} {at}: {said}");
            assert!(said.contains(LOADED), "{variable} {at}: {said}");
            let private = temp.join("graphpatch-0");
            let built_there = private.exists();
            if variable == "GRAPHPATCH_CACHE" {
                assert!(said.contains(why), "{variable} {at}: {said}");
                assert_eq!(built_there, at < 3, "{said}");
            }
            std::fs::write(&file, whole).expect("write");
            mend();
            let _ = std::fs::remove_dir_all(private);
        }
    }
}

/// If a shipped adapter is not taken and one has to be built, a message names the shipped one and the reason.
#[test]
fn a_shipped_adapter_that_is_not_taken_is_named() {
    need_root();
    let setup = Setup::new();
    let name = adapter_name(&setup);
    foreign_adapter(&setup.shop, "ahead", &name);
    chmod(&setup.shop.path("ahead"), 0o777);
    std::fs::remove_dir_all(&setup.cache).expect("remove");
    let said = setup.said(|command| {
        command.env("GRAPHPATCH_ADAPTER_DIR", setup.shop.path("ahead"));
    });
    assert!(
        said.contains(&name) && said.contains("other users") && said.contains("building"),
        "{said}"
    );
    assert!(!said.contains(FOREIGN) && said.contains(LOADED), "{said}");
}

/// A cache that everybody may write has a copy of our Python package in which one file was replaced by another of equal length.
#[test]
fn a_planted_hook_of_equal_length_is_not_run() {
    let shop = Shop::new();
    let start = |cache: &Path| {
        let temp = shop.path("temp");
        std::fs::create_dir_all(&temp).expect("dir");
        let mut command = graphpatch(&["--tree"]);
        command
            .args(["python3", "-c", "import sitecustomize_ran_next"])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TMPDIR", &temp)
            .env("GRAPHPATCH_CACHE", cache);
        text(&run(&mut command).stderr)
    };
    let (private, shared) = (shop.path("private"), shop.path("shared"));
    start(&private);
    // The cache also has links, by which the library is found.
    let cached = std::fs::read_dir(&private).expect("cache").flatten();
    let mut names = cached.map(|entry| entry.file_name());
    let package = names.find(|name| name.to_string_lossy().starts_with("python-"));
    let package = package.expect("the package");
    std::fs::create_dir(&shared).expect("dir");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(private.join(&package))
        .arg(&shared)
        .status();
    assert!(copied.expect("cp").success());
    chmod(&shared, 0o777);
    let planted = |folder: &Path| {
        let hook = folder.join(&package).join("site/sitecustomize.py");
        let whole = std::fs::read_to_string(&hook).expect("read");
        let evil = format!("import sys; sys.stderr.write('{FOREIGN}\\n')\n#");
        assert!(evil.len() < whole.len());
        let evil = format!("{evil}{}", "#".repeat(whole.len() - evil.len()));
        std::fs::write(&hook, evil).expect("write");
    };
    planted(&shared);
    let said = start(&shared);
    assert!(!said.contains(FOREIGN), "{said}");
    // Our own folder may have been open to all before, so that somebody could write into it.
    planted(&private);
    let said = start(&private);
    assert!(!said.contains(FOREIGN), "{said}");
    assert!(
        said.contains("is damaged") && said.contains("site/sitecustomize.py"),
        "{said}"
    );
}

#[test]
fn a_pipe_as_lock_and_a_link_as_log_do_no_harm() {
    let setup = Setup::new();
    let name = adapter_name(&setup);
    let adapter = setup.cache.join(&name);
    std::fs::remove_file(&adapter).expect("remove");
    let lock = setup.cache.join(format!("{name}.lock"));
    std::fs::remove_file(&lock).expect("remove");
    let made = Command::new("mkfifo").arg(&lock).status();
    assert!(made.expect("mkfifo").success());
    let (victim, log) = (setup.shop.path("victim"), adapter.with_extension("log"));
    std::fs::write(&victim, "precious").expect("write");
    symlink(&victim, &log).expect("link");
    setup.install("#!/bin/sh\necho 'a.h:7: error: broken' >&2; exit 1\n");
    let said = setup.said(|_| {});
    assert!(said.contains("does not compile"), "{said}");
    assert_eq!(std::fs::read_to_string(&victim).expect("read"), "precious");
    let kept = std::fs::symlink_metadata(&log).expect("the log");
    assert!(kept.is_file(), "the log took the link's place");
    setup.install(COMPILER);
    assert!(setup.said(|_| {}).contains(LOADED));
}

/// A set-user-ID program of root's that is linked with the library.
#[test]
fn a_program_with_more_rights_takes_nothing_from_its_caller() {
    need_root();
    let setup = Setup::new();
    let name = adapter_name(&setup);
    let foreign = foreign_adapter(&setup.shop, "ahead", &name);
    let called = setup.shop.path("called");
    setup.install(&format!(
        "#!/bin/sh\necho {FOREIGN} >&2; : > {}\nexit 1\n",
        called.display()
    ));
    let dir = library().parent().expect("dir").display().to_string();
    let source = r#"
        #include <stdio.h>
        #include <stdlib.h>
        #include <unistd.h>
        typedef struct gp_session gp_session;
        int gp_session_open(gp_session **out);
        int gp_session_attach(const gp_session *session);
        const char *gp_last_error(void);
        int main(void) {
          gp_session *session = 0;
          gp_session_open(&session);
          int status = gp_session_attach(session);
          printf("%d %d %s\n", (int)geteuid(), status, gp_last_error());
          return 0;
        }"#;
    let torch = setup.shop.path("torch/lib");
    let rpath = format!("-Wl,-rpath,{dir}:{}", torch.display());
    let flags = [
        &format!("-L{dir}"),
        "-Ltorch/lib",
        "-Wl,--no-as-needed",
        "-ltorch_cpu",
        "-lgraphpatch",
        &rpath,
    ];
    let program = setup.shop.program(source, "raised", &flags);
    let start = |user: u32| {
        let mut command = Command::new(&program);
        setup.environment(&mut command);
        let temp = setup.shop.path("temp");
        std::fs::create_dir_all(&temp).expect("dir");
        chmod(&temp, 0o1777);
        command
            .env(
                "GRAPHPATCH_CACHE",
                setup.shop.path(&format!("cache-{user}")),
            )
            .env("TMPDIR", &temp)
            .uid(user)
            .gid(user);
        let done = run(&mut command);
        (text(&done.stdout), text(&done.stderr))
    };
    chmod(&setup.shop.path(""), 0o755);
    // Without additional rights, the program takes the user's settings, such as the compiler.
    let (_, said) = start(0);
    assert!(said.contains("building") && called.exists(), "{said}");
    std::fs::remove_file(&called).expect("remove");
    chmod(&program, 0o4755);
    let (told, said) = start(OTHER);
    assert!(
        told.starts_with("0 "),
        "it has root's rights: {told} {said}"
    );
    assert!(
        told.contains("more rights than its caller"),
        "{told} {said}"
    );
    assert!(!called.exists() && !said.contains(FOREIGN), "{said}");
    assert!(!setup.shop.path("cache-12345").exists());
    // With additional rights, an adapter that the caller names is not loaded either.
    chown(foreign.parent().expect("dir"), Some(0), Some(0)).expect("chown");
    let mut command = Command::new(&program);
    setup.environment(&mut command);
    command
        .env("GRAPHPATCH_ADAPTER_DIR", setup.shop.path("ahead"))
        .uid(OTHER)
        .gid(OTHER);
    let done = run(&mut command);
    assert!(
        !text(&done.stderr).contains(FOREIGN),
        "{}",
        text(&done.stderr)
    );
}

/// The folder with the options and reports is private, whatever the umask. It is not made where other users may rename it.
#[test]
fn the_folder_of_reports_is_private() {
    let shop = Shop::new();
    let start = |temp: &Path, umask: &str| {
        let line = format!("umask {umask}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &line, "sh", GRAPHPATCH, "run", "--tree", "--"]);
        command
            .args([
                "sh",
                "-c",
                "dir=$(dirname $GRAPHPATCH_OPTIONS); stat -c %a $dir; dirname $dir",
            ])
            .env("GRAPHPATCH_LIBRARY", library())
            .env("GRAPHPATCH_CACHE", shop.path("cache"))
            .env("TMPDIR", temp);
        run(&mut command)
    };
    let temp = shop.path("temp");
    std::fs::create_dir(&temp).expect("dir");
    for umask in ["000", "022", "077"] {
        let done = start(&temp, umask);
        let expected = format!("700\n{}\n", temp.display());
        assert_eq!(text(&done.stdout), expected, "{}", text(&done.stderr));
    }
    chmod(&temp, 0o777);
    let done = start(&temp, "022");
    assert_eq!(text(&done.stdout), "700\n/tmp\n");
    let said = text(&done.stderr);
    assert!(
        said.contains("other users") && said.contains("/tmp"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(&temp).expect("dir").count(), 0);
}

/// A compiler that hangs is killed with all its child processes, and the program runs without us.
#[test]
fn a_compiler_that_hangs_is_stopped() {
    let setup = Setup::new();
    setup.install("#!/bin/sh\nsleep 1000 & echo $! > \"$0.pid\"\nwait\n");
    let said = setup.said(|command| {
        command.env("GRAPHPATCH_COMPILER_LIMIT", "1");
    });
    assert!(
        said.contains("did not end within 1 s") && said.contains("GRAPHPATCH_COMPILER_LIMIT"),
        "{said}"
    );
    let child = std::fs::read_to_string(setup.shop.path("compiler.pid")).expect("started");
    let stat = Path::new("/proc").join(child.trim()).join("stat");
    // The process may still be a zombie, if its new parent has not waited for it yet.
    let state = std::fs::read_to_string(stat).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    assert!(adapters(&setup.cache).is_empty());
}

/// The first reads of the adapter fail, as on a network file system with a short outage.
#[test]
fn a_read_error_that_passes_builds_nothing() {
    let setup = Setup::new();
    setup.said(|_| {});
    let before = adapters(&setup.cache);
    let age = before[0].metadata().expect("adapter").mtime_nsec();
    let fails = setup.shop.shared(
        r#"
        #include <dlfcn.h>
        #include <errno.h>
        #include <stdio.h>
        #include <string.h>
        #include <unistd.h>
        static int left = 3;
        ssize_t read(int file, void *to, size_t size) {
          static ssize_t (*real)(int, void *, size_t);
          if (!real) real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
          char link[64], name[4096];
          snprintf(link, sizeof link, "/proc/self/fd/%d", file);
          ssize_t length = readlink(link, name, sizeof name - 1);
          name[length > 0 ? length : 0] = 0;
          if (left > 0 && strstr(name, "/adapter-s") && !strstr(name, ".lock")) {
            left--; fputs("failed once\n", stderr); errno = EIO; return -1;
          }
          return real(file, to, size);
        }"#,
        "libfails.so",
        &[],
    );
    let said = setup.said(|command| {
        command.env("LD_PRELOAD", &fails);
    });
    assert!(said.contains("failed once"), "{said}");
    assert!(
        said.contains(LOADED) && !said.contains("building"),
        "{said}"
    );
    assert_eq!(setup.calls().len(), 1);
    assert_eq!(adapters(&setup.cache), before);
    assert_eq!(before[0].metadata().expect("adapter").mtime_nsec(), age);
}

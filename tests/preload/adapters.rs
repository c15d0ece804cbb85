//! Building, caching and shipping adapters, with a stand-in for the compiler.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::shop::*;
use crate::stand_ins::*;

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn processes_that_start_together_build_once() {
    let setup = Setup::new();
    let together: Vec<_> = (0..3)
        .map(|_| setup.command().spawn().expect("starts"))
        .collect();
    let said: Vec<String> = together
        .into_iter()
        .map(|child| text(&child.wait_with_output().expect("ends").stderr))
        .collect();
    let calls = setup.calls();
    assert_eq!(calls.len(), 1, "{said:?}");
    assert!(
        calls[0].starts_with("[] -std=c++17 ") && calls[0].contains("-DNDEBUG"),
        "{calls:?}"
    );
    let building =
        "graphpatch: building the adapter for libtorch 2.9.1 (first use, about half a minute)…\n";
    assert_eq!(said.concat().matches(building).count(), 1, "{said:?}");
    assert_eq!(said.concat().matches(LOADED).count(), 3, "{said:?}");
    let [adapter] = &adapters(&setup.cache)[..] else {
        panic!("{:?}", adapters(&setup.cache))
    };
    assert!(
        adapter.to_string_lossy().contains("-torch2.9.1-"),
        "{adapter:?}"
    );
}

/// A damaged or foreign file in the place of a cached adapter is replaced by a new build, and none of its code runs.
#[test]
fn broken_cache_entries_are_built_anew() {
    let setup = Setup::new();
    setup.said(|_| {});
    let adapter = adapters(&setup.cache).remove(0);
    let whole = std::fs::read(&adapter).expect("read");
    let evil = setup.shop.shared(
        "#include <stdio.h>\n__attribute__((constructor)) static void f(void) { fputs(\"foreign code\\n\", stderr); }",
        "evil.so",
        &[],
    );
    let write = |bytes: &[u8]| std::fs::write(&adapter, bytes).expect("write");
    let breaks: [(&str, &dyn Fn()); 7] = [
        ("no seal", &|| write(b"")),
        ("no seal", &|| write(&whole[..whole.len() / 2])),
        ("damaged", &|| {
            let mut bytes = whole.clone();
            bytes[0x40] ^= 1;
            write(&bytes);
        }),
        ("no seal", &|| {
            std::fs::copy(&evil, &adapter).expect("copy");
        }),
        ("other users", &|| chmod(&adapter, 0o777)),
        ("no ordinary file", &|| {
            std::fs::remove_file(&adapter).expect("remove");
            std::os::unix::fs::symlink(&evil, &adapter).expect("link");
        }),
        // Somebody has renamed the adapter of another libtorch, so that its name fits here.
        ("was renamed", &|| {
            write(&whole[..whole.len() - 4]);
            let mut bytes = whole[..whole.len() - 4].to_vec();
            bytes.extend(b"xso\n");
            write(&bytes);
        }),
    ];
    for (at, (why, damage)) in breaks.into_iter().enumerate() {
        damage();
        let said = setup.said(|_| {});
        assert_eq!(setup.calls().len(), at + 2, "{why}: {said}");
        assert!(said.contains(why) && said.contains("built anew"), "{said}");
        assert!(
            said.contains(LOADED) && !said.contains("foreign code"),
            "{said}"
        );
        assert!(!setup.said(|_| {}).contains("building"), "{why}: it stays");
        assert_eq!(std::fs::read(&adapter).expect("read"), whole, "{why}");
    }
}

/// Compilers create files by the umask. Even if that lets others write, the next process must accept the adapter.
#[test]
fn a_generous_umask_does_no_harm() {
    let setup = Setup::new();
    let line = "umask 000; \"$@\"";
    for _ in 0..2 {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", line, "sh", GRAPHPATCH, "run", "--tree", "--"]);
        command.arg(&setup.program).arg("none");
        let done = run(setup.environment(&mut command));
        assert!(
            text(&done.stderr).contains(LOADED),
            "{}",
            text(&done.stderr)
        );
    }
    assert_eq!(setup.calls().len(), 1);
}

#[test]
fn a_build_that_fails_says_why_and_leaves_the_log() {
    let setup = Setup::new();
    setup.install("#!/bin/sh\necho 'adapter.h:7: error: No space left on device' >&2; exit 1\n");
    let failed = setup.said(|_| {});
    for part in ["does not compile", "No space left on device", ".log"] {
        assert!(failed.contains(part), "{failed}");
    }
    assert!(adapters(&setup.cache).is_empty());
    let left: Vec<_> = std::fs::read_dir(&setup.cache)
        .expect("cache")
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| {
            let name = name.to_string_lossy();
            !name.starts_with("python-") && !name.starts_with("preload-")
        })
        .collect();
    assert_eq!(
        left.len(),
        2,
        "the lock and the log, no work directories: {left:?}"
    );
}

#[test]
fn a_build_that_was_killed_midway_is_done_again() {
    let setup = Setup::new();
    setup.install("#!/bin/sh\nkill -9 $PPID\n");
    let died = run(&mut setup.command());
    assert_eq!(died.status.code(), Some(137), "{}", text(&died.stderr));
    let work = || {
        let all = std::fs::read_dir(&setup.cache).expect("cache").flatten();
        all.filter(|entry| entry.file_name().to_string_lossy().starts_with(".build-"))
            .count()
    };
    assert_eq!(work(), 1, "nobody was left to remove it");
    setup.install(COMPILER);
    let said = setup.said(|_| {});
    assert!(said.contains(LOADED), "{said}");
    assert_eq!(work(), 0);
}

#[test]
fn two_libtorchs_get_two_adapters() {
    let setup = Setup::new();
    let other = setup.libtorch("other", "2.9.1").join("lib");
    for _ in 0..2 {
        assert!(setup.said(|_| {}).contains(LOADED));
        let said = setup.said(|command| {
            command.env("LD_LIBRARY_PATH", &other);
        });
        assert!(said.contains(LOADED), "{said}");
    }
    assert_eq!(setup.calls().len(), 2);
    assert_eq!(adapters(&setup.cache).len(), 2);
}

#[test]
fn unsupported_versions_are_refused_with_a_way_out() {
    let setup = Setup::new();
    for (version, what) in [("2.3.1", "too old"), ("2.97.0", "newer than")] {
        setup.headers("torch", version);
        let said = setup.said(|_| {});
        let range = graphpatch_loader::supported();
        for part in [version, what, &range, "GRAPHPATCH_ANY_TORCH=1"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("building"), "{said}");
        let tried = setup.said(|command| {
            command.env("GRAPHPATCH_ANY_TORCH", "1");
        });
        assert!(tried.contains(LOADED), "{tried}");
    }
}

#[test]
fn headers_of_another_version_are_refused() {
    let setup = Setup::new();
    std::fs::write(setup.shop.path("torch/build-version"), "2.8.0+cpu\n").expect("write");
    let said = setup.said(|_| {});
    assert!(
        said.contains("those of libtorch 2.9.1") && said.contains("is 2.8.0"),
        "{said}"
    );
    assert!(setup.calls().is_empty());
}

/// If there is no home or it cannot be written, a private directory takes its place, and a message says so.
#[test]
fn homes_that_cannot_be_used() {
    let setup = Setup::new();
    let temp = setup.shop.path("tmp");
    std::fs::create_dir(&temp).expect("dir");
    let file = setup.shop.path("file");
    std::fs::write(&file, "").expect("write");
    // Root may write everywhere except in a file system such as /proc.
    let closed = setup.shop.path("closed");
    std::fs::create_dir(&closed).expect("dir");
    chmod(&closed, 0o555);
    // SAFETY: geteuid has no preconditions.
    let user = unsafe { libc::geteuid() };
    let read_only = if user == 0 {
        Path::new("/proc")
    } else {
        &closed
    };
    let homes = [None, Some(file.as_path()), Some(read_only)];
    let own = temp.join(format!("graphpatch-{user}"));
    for home in homes {
        let start = |command: &mut std::process::Command| {
            command
                .env_remove("GRAPHPATCH_CACHE")
                .env_remove("XDG_CACHE_HOME")
                .env_remove("HOME")
                .env("TMPDIR", &temp);
            if let Some(home) = home {
                command.env("HOME", home);
            }
        };
        let said = setup.said(start);
        assert!(
            said.contains(LOADED)
                && said.contains("may not last")
                && said.contains("GRAPHPATCH_CACHE"),
            "{home:?}: {said}"
        );
        assert!(!setup.said(start).contains("may not last"), "told once");
        assert_eq!(own.metadata().expect("made").mode() & 0o777, 0o700);
        assert_eq!(adapters(&own).len(), 1);
        std::fs::remove_dir_all(&own).expect("remove");
        // Somebody else's directory of that name is not used.
        std::fs::create_dir(&own).expect("dir");
        chmod(&own, 0o777);
        let refused = setup.said(start);
        assert!(
            refused.contains("not a directory of this user alone")
                && refused.contains("GRAPHPATCH_CACHE"),
            "{refused}"
        );
        std::fs::remove_dir_all(&own).expect("remove");
    }
    let named = setup.said(|command| {
        command.env("GRAPHPATCH_CACHE", &file);
    });
    assert!(
        named.contains("(GRAPHPATCH_CACHE) cannot be used"),
        "{named}"
    );
}

/// Adapters are built ahead, shipped beside the library or in a named folder, and used without compiler, headers and cache.
#[test]
fn adapters_that_were_built_ahead() {
    let setup = Setup::new();
    let (torch, prefix) = (setup.shop.path("torch"), setup.shop.path("prefix/lib"));
    let other = setup.libtorch("other", "2.10.0");
    let again = setup.libtorch("again", "2.9.1");
    let folder = prefix.join("graphpatch-adapters");
    for dir in [&torch, &other.join("lib")] {
        let options = [
            "--build",
            "--torch",
            &dir.to_string_lossy(),
            "--into",
            &folder.to_string_lossy(),
        ];
        let done = setup.doctor(&options, |_| {});
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stdout));
    }
    assert_eq!(adapters(&folder).len(), 2);
    let library_there = prefix.join("libgraphpatch.so");
    std::fs::copy(library(), &library_there).expect("copy");
    for dir in [&torch, &other, &again] {
        std::fs::remove_dir_all(dir.join("include")).expect("headers");
        // Without its headers, a libtorch has its version in other files, if anywhere.
    }
    let bare = |command: &mut std::process::Command| {
        command
            .env("PATH", "/nowhere")
            .env("CXX", "no-such-compiler")
            .env("GRAPHPATCH_CACHE", setup.shop.path("empty"));
    };
    let beside = setup.said(|command| {
        bare(command);
        command.env("GRAPHPATCH_LIBRARY", &library_there);
    });
    let named = setup.said(|command| {
        bare(command);
        command.env("GRAPHPATCH_ADAPTER_DIR", &folder);
    });
    for said in [&beside, &named] {
        assert!(
            said.contains(LOADED) && !said.contains("building"),
            "{said}"
        );
    }
    // Another build of the same version, which does not fit.
    std::fs::write(again.join("build-version"), "2.9.1").expect("write");
    let elsewhere = setup.said(|command| {
        bare(command);
        command
            .env("GRAPHPATCH_ADAPTER_DIR", &folder)
            .env("LD_LIBRARY_PATH", again.join("lib"));
    });
    for part in [
        "another build of libtorch 2.9.1",
        "built ahead for libtorch 2.10.0",
        "headers",
        "doctor --build --into",
    ] {
        assert!(elsewhere.contains(part), "{part} in {elsewhere}");
    }
    // Adapters that were damaged when they were copied.
    for file in adapters(&folder) {
        let bytes = std::fs::read(&file).expect("read");
        std::fs::write(&file, &bytes[..bytes.len() - 1]).expect("write");
    }
    std::fs::write(torch.join("build-version"), "2.9.1").expect("write");
    let damaged = setup.said(|command| {
        bare(command);
        command.env("GRAPHPATCH_ADAPTER_DIR", &folder);
    });
    assert!(damaged.contains("damaged"), "{damaged}");
}

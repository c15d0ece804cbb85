use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

fn wrong<T>(found: Result<T, Unfit>) -> String {
    match found.err().expect("refused") {
        Unfit::Wrong(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn folders_that_others_can_write_are_refused_wherever_they_stand() {
    let dir = tempfile::tempdir().expect("dir");
    let (outer, inner) = (dir.path().join("a"), dir.path().join("a/b"));
    std::fs::create_dir_all(&inner).expect("dirs");
    assert_eq!(
        Folder::open(&inner).expect("sound").path(),
        inner.canonicalize().expect("real")
    );
    for (mode, passes) in [
        (0o755, true),
        (0o775, false),
        (0o777, false),
        (0o1777, true),
    ] {
        chmod(&outer, mode);
        assert_eq!(Folder::open(&inner).is_ok(), passes, "above: {mode:o}");
    }
    chmod(&outer, 0o777);
    let why = wrong(Folder::open(&inner));
    assert!(
        why.contains("a, which can be written by other users"),
        "{why}"
    );
    chmod(&outer, 0o755);
    // Anybody may put files into a sticky folder.
    for mode in [0o1777, 0o720, 0o702] {
        chmod(&inner, mode);
        assert!(
            wrong(Folder::open(&inner)).contains("other users"),
            "{mode:o}"
        );
    }
    assert!(matches!(
        Folder::open(&dir.path().join("none")),
        Err(Unfit::Absent)
    ));
    std::fs::write(dir.path().join("file"), "").expect("write");
    assert!(wrong(Folder::open(&dir.path().join("file"))).contains("no folder"));
}

#[test]
fn links_of_our_own_are_followed_to_what_is_checked_there() {
    let dir = tempfile::tempdir().expect("dir");
    let real = dir.path().join("real");
    std::fs::create_dir(&real).expect("dir");
    for (name, target) in [
        ("whole", real.clone()),
        ("relative", "./x/../real".into()),
        ("round", "round".into()),
    ] {
        symlink(target, dir.path().join(name)).expect("link");
    }
    std::fs::create_dir(dir.path().join("x")).expect("dir");
    for name in ["whole", "relative", "relative/../whole"] {
        let folder = Folder::open(&dir.path().join(name)).expect("sound");
        assert_eq!(folder.path(), real.canonicalize().expect("real"), "{name}");
    }
    chmod(&real, 0o777);
    let why = wrong(Folder::open(&dir.path().join("whole")));
    assert!(why.contains("real, which can be written"), "{why}");
    assert!(wrong(Folder::open(&dir.path().join("round"))).contains("circle"));
}

#[test]
fn files_are_checked() {
    let dir = tempfile::tempdir().expect("dir");
    let (file, link) = (dir.path().join("a.so"), dir.path().join("b.so"));
    std::fs::write(&file, "x").expect("write");
    let open = |name: &str| Folder::open(dir.path())?.look_at(OsStr::new(name));
    for good in [0o600, 0o755] {
        chmod(&file, good);
        assert!(open("a.so").is_ok());
    }
    for bad in [0o620, 0o602, 0o777] {
        chmod(&file, bad);
        assert!(wrong(open("a.so")).contains("other users"), "{bad:o}");
    }
    symlink(&file, &link).expect("link");
    assert_eq!(wrong(open("b.so")), "is no ordinary file, but a link");
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(CWD, &pipe, Mode::RUSR).expect("pipe");
    assert!(wrong(open("pipe")).contains("no ordinary file"));
    assert!(matches!(open("none"), Err(Unfit::Absent)));
    let folder = Folder::open(dir.path()).expect("folder");
    let lock = |name: &str| folder.lock_file(OsStr::new(name)).is_some();
    assert!(lock("new.lock") && lock("new.lock") && !lock("pipe") && !lock("b.so"));
}

/// Only root can make a file that another user owns. So this test changes the file's metadata in memory instead; the tests
/// of the command do it with a real other user.
#[test]
fn what_belongs_to_another_user_is_refused() {
    let file = tempfile::tempfile().expect("file");
    let mut found = fstat(&file).expect("facts");
    assert!(check_file(&found).is_ok());
    found.st_uid = 0;
    assert!(check_file(&found).is_ok(), "root's");
    found.st_uid = user() + 1234;
    let why = check_file(&found).expect_err("another's");
    assert_eq!(why, format!("belongs to another user ({})", user() + 1234));
}

#[test]
fn a_folder_that_was_renamed_is_still_the_one_that_was_checked() {
    let dir = tempfile::tempdir().expect("dir");
    let place = dir.path().join("place");
    std::fs::create_dir(&place).expect("dir");
    std::fs::write(place.join("code.so"), "good").expect("write");
    let sound = Folder::open(&place)
        .and_then(|folder| folder.file(OsStr::new("code.so")))
        .expect("sound");
    std::fs::rename(&place, dir.path().join("elsewhere")).expect("rename");
    std::fs::create_dir(&place).expect("dir");
    std::fs::write(place.join("code.so"), "evil").expect("write");
    let path = sound.loadable();
    assert!(path.ends_with("code.so"));
    assert_eq!(std::fs::read(path).expect("read"), b"good");
}

#[test]
fn a_user_namespace_knows_whom_it_maps() {
    let everybody = "         0          0 4294967295\n";
    assert!(is_mapped(everybody, NOBODY) && is_mapped(everybody, 0));
    let some = "0 1000 1\n1 100000 65536\n";
    assert!(is_mapped(some, 0) && is_mapped(some, 65536) && !is_mapped(some, 65537));
    assert!(!is_mapped("0 1000 1\n", NOBODY) && !is_mapped("", NOBODY) && !is_mapped("x", 0));
}

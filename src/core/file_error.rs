//! What the operating system says of a file, in words that tell a person what is wrong and where.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::Error;
use crate::output::folder_of;

/// The error for a file that cannot be read.
#[must_use]
pub fn unreadable(file: &Path, why: &std::io::Error) -> Error {
    Error::File {
        file: file.to_owned(),
        why: reason(file, why),
    }
}

/// The error for a file that cannot be written.
#[must_use]
pub fn not_written(file: &Path, why: &std::io::Error) -> Error {
    Error::File {
        file: file.to_owned(),
        why: format!("cannot be written: {}", reason(file, why)),
    }
}

/// Why a file cannot be used, without the file's name and without the number of the system's error.
#[must_use]
pub fn reason(file: &Path, why: &std::io::Error) -> String {
    let folder = folder_of(file);
    match why.kind() {
        ErrorKind::NotFound if file.is_symlink() => "its symbolic links lead nowhere".to_owned(),
        ErrorKind::NotFound if !folder.exists() => {
            format!("the folder {} is not there", folder.display())
        }
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::IsADirectory => "it is a folder, not a file".to_owned(),
        ErrorKind::NotADirectory if folder.is_dir() => "it is not a folder".to_owned(),
        ErrorKind::NotADirectory => format!("{} is not a folder", folder.display()),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::StorageFull => "no space is left on its disk".to_owned(),
        _ => without_number(why.to_string()),
    }
}

fn without_number(text: String) -> String {
    match text.split_once(" (os error ") {
        Some((said, _)) => said.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_errors_are_said_in_words() {
        let dir = tempfile::tempdir().expect("dir");
        let read = |name: &str| {
            let file = dir.path().join(name);
            let why = std::fs::read(&file).expect_err("unreadable");
            unreadable(&file, &why).to_string()
        };
        std::fs::write(dir.path().join("text"), "text").expect("write");
        std::os::unix::fs::symlink("gone", dir.path().join("link")).expect("link");
        assert!(read("absent").ends_with("absent: there is no such file"));
        assert!(read("gone/absent").ends_with("gone is not there"));
        assert!(read("link").ends_with("link: its symbolic links lead nowhere"));
        assert!(read(".").ends_with("it is a folder, not a file"));
        assert!(read("text/file").ends_with("text is not a folder"));
        let text = dir.path().join("text");
        let why = std::fs::read_dir(&text).expect_err("no folder");
        assert!(reason(&text, &why).ends_with("it is not a folder"));
        let other = std::io::Error::from_raw_os_error(24);
        let said = not_written(Path::new("f"), &other).to_string();
        assert_eq!(said, "f: cannot be written: Too many open files");
    }
}

//! Which files a process has mapped, and where: `/proc/PID/maps`.

use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub range: Range<u64>,
    pub executable: bool,
    pub writable: bool,
    pub offset: u64,
    pub inode: u64,
    /// The file, or a name in brackets; empty for memory of its own. A file that was removed since ends with ` (deleted)`.
    pub path: PathBuf,
}

/// All mappings of a process, in the order of their addresses.
///
/// # Errors
///
/// The file cannot be read.
pub fn of(pid: u32) -> std::io::Result<Vec<Mapping>> {
    let text = std::fs::read(format!("/proc/{pid}/maps"))?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

fn parse(line: &[u8]) -> Option<Mapping> {
    // The path comes last and may contain spaces.
    let mut rest = line;
    let mut fields = [""; 5];
    for field in &mut fields {
        let begin = rest.iter().position(|byte| *byte != b' ')?;
        let end = rest[begin..]
            .iter()
            .position(|byte| *byte == b' ')
            .map_or(rest.len(), |at| at + begin);
        *field = std::str::from_utf8(&rest[begin..end]).ok()?;
        rest = &rest[end..];
    }
    let [range, rights, offset, _, inode] = fields;
    let (start, end) = range.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let path = rest.iter().position(|byte| *byte != b' ');
    let path = path.map_or(&b""[..], |at| &rest[at..]);
    Some(Mapping {
        range: number(start)?..number(end)?,
        writable: rights.contains('w'),
        executable: rights.contains('x'),
        offset: number(offset)?,
        inode: inode.parse().ok()?,
        path: PathBuf::from(OsString::from_vec(path.to_vec())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line =
            b"7f00-7f80 r-xp 00001000 08:01 42                         /opt/a b/lib.so (deleted)";
        let found = parse(line).expect("a line");
        assert_eq!((found.range, found.offset), (0x7f00..0x7f80, 0x1000));
        assert_eq!(
            (found.inode, found.executable, found.writable),
            (42, true, false)
        );
        assert_eq!(found.path, PathBuf::from("/opt/a b/lib.so (deleted)"));
        let own = parse(b"7f00-7f80 rw-p 00000000 00:00 0").expect("no path");
        assert_eq!(own.path, PathBuf::new());
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"x-y r-xp 0 0 0"), None);
    }

    #[test]
    fn this_process_has_a_stack() {
        let all = of(std::process::id()).expect("maps");
        let local = 0_u8;
        let at = &raw const local as u64;
        assert!(
            all.iter()
                .any(|one| one.range.contains(&at) && one.writable)
        );
    }
}

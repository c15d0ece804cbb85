//! The table of a sweep whose `-o` was left out.

use std::path::PathBuf;

use crate::voice::Stop;

/// Its name.
const TABLE: &str = "sweep.csv";

/// Its file. An existing file is never overwritten by it.
pub(super) fn file() -> Result<PathBuf, Stop> {
    let table = PathBuf::from(TABLE);
    match table.symlink_metadata() {
        Err(_) => Ok(table),
        Ok(_) => Err(Stop::usage(format!(
            "{TABLE} is there already, and no -o names another table: give -o FILE (-o {TABLE} replaces it)"
        ))),
    }
}

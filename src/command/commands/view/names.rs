//! What files are called in pages and messages.

use std::path::Path;

/// The name of a file, without the folder.
pub fn name_of(file: &Path) -> String {
    match file.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => file.display().to_string(),
    }
}

//! The environment variable by which a user or an operator switches the library off, in a process and in all that it starts.

use std::ffi::OsStr;

/// The environment variable. Empty and `0` mean that nothing is switched off.
pub const DISABLE_VARIABLE: &str = "GRAPHPATCH_DISABLE";

/// Whether the library is switched off in this process.
pub fn is_disabled() -> bool {
    means_yes(std::env::var_os(DISABLE_VARIABLE).as_deref())
}

fn means_yes(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !value.is_empty() && value != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let means = |value: &str| means_yes(Some(OsStr::new(value)));
        assert!(means("1") && means("yes") && !means("0") && !means("") && !means_yes(None));
    }
}

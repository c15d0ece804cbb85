//! Which libtorch versions the adapter's source is known to fit, and what to do about others.

use super::{Libtorch, environment};
use graphpatch_core::error::{Error, Result};

/// The oldest libtorch whose dispatcher the adapter's source fits.
pub const OLDEST: (u32, u32) = (2, 4);

/// The newest libtorch that the adapter was compiled and run with.
pub const NEWEST: (u32, u32) = (2, 15);

/// The environment variable that a user sets to `1` to try any other version.
pub const ANYWAY: &str = "GRAPHPATCH_ANY_TORCH";

impl Libtorch {
    /// Refuses a libtorch that is too old or not known yet, unless the user has set [`ANYWAY`]. A libtorch whose version no
    /// file tells is accepted: its build id still decides which adapter it gets.
    ///
    /// # Errors
    ///
    /// [`Error::Torch`], which names both versions and says what to do.
    pub fn check_version(&self) -> Result<()> {
        self.check(environment::text(ANYWAY).is_some_and(|value| value == "1"))
    }

    fn check(&self, anyway: bool) -> Result<()> {
        let Some(have) = self.version_numbers() else {
            return Ok(());
        };
        let (what, way_out) = if have < OLDEST {
            ("too old for", "use a newer PyTorch")
        } else if have > NEWEST {
            (
                "newer than what is known to",
                "use a newer libgraphpatch, or a PyTorch of these",
            )
        } else {
            return Ok(());
        };
        if anyway {
            return Ok(());
        }
        Err(Error::Torch(format!(
            "libtorch {} in {} is {what} libgraphpatch {}, which supports {}: {way_out}; or set {ANYWAY}=1 to try it all \
             the same",
            self.version,
            self.lib_dir.display(),
            env!("CARGO_PKG_VERSION"),
            supported()
        )))
    }
}

/// `2.4 to 2.15`.
pub fn supported() -> String {
    format!("{}.{} to {}.{}", OLDEST.0, OLDEST.1, NEWEST.0, NEWEST.1)
}

#[cfg(test)]
mod tests {
    use super::super::libtorch::tests::libtorch;
    use super::*;

    #[test]
    fn known_versions_pass() {
        for good in ["2.4.0", "2.4.1", "2.11.0", "2.15.0", "2.15.9", "unknown"] {
            assert!(libtorch(good).check(false).is_ok(), "{good}");
        }
    }

    #[test]
    fn others_are_refused_with_a_way_out() {
        for (bad, what) in [
            ("2.3.1", "too old"),
            ("1.13.0", "too old"),
            ("2.16.0", "newer than"),
            ("3.0.0", "newer than"),
        ] {
            let text = libtorch(bad).check(false).expect_err(bad).to_string();
            for part in [bad, what, "2.4 to 2.15", "/opt/torch/lib", ANYWAY] {
                assert!(text.contains(part), "{text}");
            }
            assert!(libtorch(bad).check(true).is_ok(), "{bad}");
        }
    }
}

//! How `run`, `sweep` and `bisect` treat the program: what a patch does that cannot be applied, and where operations outside of
//! models are listed.

use std::fmt;
use std::path::Path;

use clap::{Args, ValueEnum};
use graphpatch_core::patch::{OnError, PatchSpec};
use graphpatch_protocol::{Operations, Options};

use crate::patch_arguments::absolute;
use crate::voice::Stop;

#[derive(Args)]
pub struct RunOptions {
    /// What to do when a patch cannot be applied: `run` skips it unless told otherwise, `sweep` raises
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "How")]
    on_error: Option<Answer>,
    #[command(flatten)]
    pub listing: Listing,
}

/// Those of them that concern the program alone, which `bisect` has, too: it has no patches of the user's.
#[derive(Args)]
pub struct Listing {
    /// List operations that are called outside of all models, flat, in runs of a root `operations`
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Flat::Auto, help_heading = "How")]
    operations: Flat,
    /// Let such a run begin anew at each call of operation NAME; `MODULE.NAME` if it reads a parameter of MODULE (repeatable)
    #[arg(long, value_name = "NAME", help_heading = "How")]
    pub run_at: Vec<String>,
    /// Show the inside of an operation: scores, mask and probabilities (a path that leads there shows it as well)
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "How")]
    inside: Option<Inside>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Inside {
    /// Of scaled_dot_product_attention, which becomes a scope
    Attention,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Answer {
    /// Throw an error that the program sees
    Raise,
    /// Leave the value alone and count it
    Skip,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq)]
enum Flat {
    /// In C++ programs that neither call TorchScript nor mark runs themselves
    Auto,
    /// In all programs but Python's, beside the models that they call
    Always,
    /// Nowhere
    Never,
}

impl fmt::Display for RunOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "on-error {}, operations {:?}",
            self.on_error
                .map_or("unset".into(), |answer| format!("{answer:?}")),
            self.listing.operations
        )?;
        let mut names = self.listing.run_at.iter();
        names.try_for_each(|name| write!(out, ", run-at {name}"))?;
        let mut inside = self.listing.inside.iter();
        inside.try_for_each(|what| write!(out, ", inside {what:?}"))
    }
}

impl RunOptions {
    /// What happens with a patch that cannot be applied; `otherwise`, if the user did not say it.
    pub fn on_error(&self, otherwise: OnError) -> OnError {
        match self.on_error {
            Some(Answer::Raise) => OnError::Raise,
            Some(Answer::Skip) => OnError::Skip,
            None => otherwise,
        }
    }
}

impl Listing {
    pub fn check(&self) -> Result<(), Stop> {
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let mut names = self.run_at.iter();
        if let Some(name) = names.find(|name| !name.split('.').all(is_name)) {
            return Err(Stop::usage(format!(
                "--run-at {name}: not the name of an operation; write it as aten has it (embedding), or with the module in \
                 front whose parameter it reads (wte.embedding)"
            )));
        }
        match self.run_at.first() {
            Some(name) if self.operations == Flat::Never => Err(Stop::usage(format!(
                "--run-at {name}: there are no such runs with --operations never"
            ))),
            _ => Ok(()),
        }
    }

    /// The options for the program's processes. Their reports go to `report_dir`.
    pub fn options(
        &self,
        record: bool,
        patches: &[PatchSpec],
        report_dir: &Path,
        on_error: OnError,
    ) -> Result<Options, Stop> {
        Ok(Options {
            record,
            trace: false,
            patches: absolute(patches)?,
            on_error,
            operations: match self.operations {
                Flat::Auto => Operations::Auto,
                Flat::Always => Operations::Always,
                Flat::Never => Operations::Never,
            },
            run_at: self.run_at.clone(),
            inside_attention: matches!(self.inside, Some(Inside::Attention)),
            live: false,
            compiled_values: false,
            fork: None,
            report_dir: report_dir.to_path_buf(),
        })
    }
}

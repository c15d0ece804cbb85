//! One patch at one value of a run: applied, skipped, or failed as the session's policy says.

use std::cell::Cell;
use std::sync::Arc;

use super::Run;
use graphpatch_apply::{self as apply, Outcome, Scalar, View};
use graphpatch_core::error::Error;
use graphpatch_core::patch::action::Action;
use graphpatch_core::patch::{OnError, Patch};

/// The result of applying a patch to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Applied,
    /// The patch failed, and the value stays as it is.
    Skipped,
    /// The patch failed, and the host gets [`Run::failure`].
    Raise,
    /// The patch was not applied here. libtorch has to do it, and the caller then calls [`Run::applied_elsewhere`].
    Elsewhere,
}

thread_local! {
    /// Why the function of a patch that was called on this thread failed, as it reported itself.
    static FUNCTION_FAILED: Cell<Option<String>> = const { Cell::new(None) };
}

/// Notes why the function of a patch on this thread fails, for the message about that patch.
pub fn function_failed(why: &str) {
    FUNCTION_FAILED.set(Some(why.to_owned()));
}

impl Run {
    pub(super) fn patch(&self, index: u32) -> Option<Arc<Patch>> {
        self.plan.as_ref()?.patches.get(index as usize).cloned()
    }

    /// Applies patch `index` to a tensor in CPU memory.
    pub fn apply(&mut self, index: u32, view: &View<'_>) -> Verdict {
        let Some(patch) = self.patch(index) else {
            return Verdict::Skipped;
        };
        let Some(slice) = &patch.slice else {
            return Verdict::Elsewhere;
        };
        match apply::cpu::apply(view, slice, &patch.patch.action) {
            Ok(Outcome::Done) => self.succeeded(&patch),
            Ok(Outcome::Unsupported) => Verdict::Elsewhere,
            Err(Error::Slice { why, .. }) => self.failed(&patch, &why, Some(view.sizes)),
            Err(error) => self.failed(&patch, &error.to_string(), Some(view.sizes)),
        }
    }

    /// Applies patch `index` to a plain number.
    pub fn apply_scalar(&mut self, index: u32, number: &mut Scalar) -> Verdict {
        let Some(patch) = self.patch(index) else {
            return Verdict::Skipped;
        };
        if !patch.patch.picks.is_empty() {
            return self.failed(&patch, "a plain number takes no slice", None);
        }
        if let Action::Keep(kept) = &patch.patch.action {
            let kept = kept.clone();
            return match number.tensor() {
                Ok(tensor) => {
                    kept.push(tensor);
                    self.succeeded(&patch)
                }
                Err(error) => self.failed(&patch, &error.to_string(), None),
            };
        }
        match number.apply(&patch.patch.action) {
            Ok(new) => {
                *number = new;
                self.succeeded(&patch)
            }
            Err(error) => self.failed(&patch, &error.to_string(), None),
        }
    }

    /// Whether the probe or record `index` wants one more value. A value over the limit counts as matched.
    pub fn keep_wanted(&self, index: u32) -> bool {
        let Some(patch) = self.patch(index) else {
            return false;
        };
        match &patch.patch.action {
            Action::Keep(kept) if kept.wants() => true,
            _ => {
                patch.count_match();
                false
            }
        }
    }

    /// Keeps a copy of the tensor for the probe or record `index`.
    pub fn keep(&mut self, index: u32, view: &View<'_>) -> Verdict {
        let Some(patch) = self.patch(index) else {
            return Verdict::Skipped;
        };
        match (&patch.patch.action, apply::gather::gather(view)) {
            (Action::Keep(kept), Ok(copy)) => {
                kept.push(copy);
                self.succeeded(&patch)
            }
            (_, Ok(_)) => Verdict::Skipped,
            (_, Err(error)) => self.failed(&patch, &error.to_string(), Some(view.sizes)),
        }
    }

    /// libtorch has applied patch `index`, or `why` says why it could not.
    pub fn applied_elsewhere(&mut self, index: u32, why: &str, sizes: Option<&[i64]>) -> Verdict {
        let said = FUNCTION_FAILED.take();
        match self.patch(index) {
            None => Verdict::Skipped,
            Some(patch) if !why.is_empty() && said.is_some() => {
                let said = said.unwrap_or_default();
                self.failed(&patch, &format!("the function failed: {said}"), sizes)
            }
            Some(patch) if why.is_empty() => self.succeeded(&patch),
            Some(patch) => self.failed(&patch, why, sizes),
        }
    }

    pub(super) fn succeeded(&mut self, patch: &Patch) -> Verdict {
        patch.count_match();
        patch.count_applied();
        Verdict::Applied
    }

    pub(super) fn failed(&mut self, patch: &Patch, why: &str, sizes: Option<&[i64]>) -> Verdict {
        let shape = sizes.map(|sizes| {
            let sizes: Vec<String> = sizes.iter().map(i64::to_string).collect();
            format!("shape ({})", sizes.join(", "))
        });
        let index = Some(patch.patch.index_text()).filter(|text| !text.is_empty());
        let slice = index.map(|text| format!("slice {text}"));
        let facts: Vec<String> = shape.into_iter().chain(slice).collect();
        let mut text = format!(
            "graphpatch: patch {:?} cannot be applied at {}: {}",
            patch.text,
            patch.patch.path,
            why.lines().next().unwrap_or_default(),
        );
        if !facts.is_empty() {
            text.push_str(&format!(" ({})", facts.join(", ")));
        }
        patch.count_match();
        patch.count_failed(&text);
        self.failure = text;
        match self.plan.as_ref().map(|plan| plan.on_error) {
            Some(OnError::Skip) => Verdict::Skipped,
            _ => Verdict::Raise,
        }
    }

    /// Why the last verdict was [`Verdict::Raise`].
    pub fn failure(&self) -> &str {
        &self.failure
    }
}

//! Calls of modules in a run: a scope opens and closes, and its place in the user's source is noted.

use std::sync::Arc;

use crate::frame::Frame;
use crate::record::Source;
use crate::run::{Entered, Run};
use crate::scope::Scope;
use crate::wants::Wants;
use graphpatch_core::graph::SourceLine as Line;
use graphpatch_core::path::Name;

/// So many scopes may be open inside each other below the root. Trees are built, merged, written and freed by functions that call
/// themselves for what is inside, on threads of any stack; and no more could be read from a file (`graphpatch_core::nested`).
pub(crate) const DEEPEST: usize = 1000;

/// The note about calls that are deeper.
pub(crate) const TOO_DEEP: &str = "modules are called more than 1,000 deep inside each other: what is deeper is neither recorded nor \
                                   patched; nest fewer modules, or begin a run of its own for those inside";

impl Run {
    /// A module is called from the innermost scope.
    pub fn enter(&mut self, scope: Arc<Scope>) -> Entered {
        let quiet = |wants| Entered {
            wants,
            unknown: None,
        };
        if self.wants().is_cold() {
            self.cold += 1;
            return quiet(Wants::NOTHING);
        }
        if self.frames.len() > DEEPEST {
            self.note(TOO_DEEP);
            self.cold += 1;
            return quiet(Wants::NOTHING);
        }
        let handed = self.wants().has(Wants::OPERANDS);
        let reads = self.frames.iter().any(|frame| frame.patches_parameters);
        if !self.concerns(scope.family()) {
            if handed || reads {
                self.open(None, scope, None, None);
                return quiet(self.want_parameters(reads));
            }
            self.cold += 1;
            return quiet(Wants::NOTHING.with(Wants::IGNORED, true));
        }
        let name = match self.frames.last_mut() {
            Some(frame) => frame.names().create(scope.candidate()),
            None => scope.candidate(),
        };
        let site = self.site(0, name);
        let observed = self.recorder.is_some() || self.times.is_some();
        // A flat run enters the same scope again, which then has the same name.
        if site.is_none() && !observed && self.modules && !handed && !reads {
            self.cold += 1;
            return quiet(Wants::NOTHING);
        }
        let (event, unknown) = self.note_call(name, &scope);
        let mut wants = self.open(Some(name), scope, site, event);
        if handed || reads {
            wants = self.want_parameters(reads);
        }
        Entered {
            wants: wants.with(Wants::SOURCE, unknown.is_some()),
            unknown,
        }
    }

    /// Notes the call for the trace and on the tape. Returns the tape's event, and [`Entered::unknown`].
    fn note_call(&mut self, name: Name, scope: &Scope) -> (Option<usize>, Option<(usize, bool)>) {
        if let Some(times) = &self.times {
            times.lock().enter(name, &scope.class_name);
        }
        let Some(recorder) = &mut self.recorder else {
            return (None, None);
        };
        let mut tape = recorder.tape();
        let known = tape.knows_scope(name);
        let event = tape.enter(
            name,
            &scope.class_name,
            &scope.module_path,
            Source::default(),
        );
        // In a flat run no call of a module is seen: the scope stands for operations on its parameters, so it has no place of
        // its own.
        let unknown = (!known && self.modules).then(|| (event, scope.is_script()));
        (Some(event), unknown)
    }

    /// The innermost scope may be given a parameter by the scope around it. So its inputs have to be shown, even if nothing else is
    /// wanted of it. If a scope around it has patches of a parameter, it may read that one by itself, wherever it has it from, and it
    /// may return it: then its operands and its output are wanted, too. A recording shows which ones it reads.
    fn want_parameters(&mut self, reads: bool) -> Wants {
        let shown = reads || self.recorder.is_some() && !self.parameters.is_empty();
        if let Some(frame) = self.frames.last_mut() {
            let mut wants = frame.wants;
            for bit in [Wants::INPUTS, Wants::INSIDE] {
                wants = wants.with(bit, true);
            }
            for (bit, wanted) in [
                (Wants::OUTPUT, reads),
                (Wants::OPERANDS, shown),
                (Wants::OPERATIONS, reads),
            ] {
                wants = wants.with(bit, wanted && !frame.scope.opaque || wants.has(bit));
            }
            frame.wants = wants;
            if reads {
                frame.scopes = u64::MAX; // so may each scope that is called here
            }
        }
        self.wants()
    }

    /// Notes where the scope was called that began with this event of the tape.
    pub(crate) fn locate(&mut self, event: usize, source: Source) {
        if let Some(recorder) = &mut self.recorder {
            recorder.tape().locate(event, source);
        }
    }

    /// The lines of TorchScript source from which the innermost scope was called.
    pub fn called_from(&mut self, frames: Vec<Line>) {
        if let Some(event) = self.frames.last().and_then(|frame| frame.event) {
            let source = Source {
                frames,
                ..Source::default()
            };
            self.locate(event, source);
        }
    }

    /// The innermost module has returned. Returns its frame, if it had one; the root's frame stays open.
    pub(crate) fn leave(&mut self) -> Option<Frame> {
        if self.cold > 0 {
            self.cold -= 1;
            return None;
        }
        if self.frames.len() <= 1 {
            return None;
        }
        let frame = self.frames.pop()?;
        if let (Some(times), Some(_)) = (&self.times, frame.name) {
            times.lock().leave();
        }
        if let Some(recorder) = &mut self.recorder
            && frame.name.is_some()
        {
            recorder.tape().leave();
        }
        Some(frame)
    }
}

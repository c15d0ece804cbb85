//! The state of a run at one point, for a part of the run that is computed elsewhere: later again, or on another thread.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::frame::Frame;
use crate::held::Held;
use crate::record::{Recorder, Source};
use crate::run::Run;
use crate::scope::Root;
use crate::session::Session;
use crate::wants::Wants;
use graphpatch_core::patch::Plan;

/// The state of a run. It may be used on any thread.
#[derive(Debug)]
pub struct Snapshot {
    session: Arc<Session>,
    plan: Option<Arc<Plan>>,
    recording: bool,
    root: Arc<Root>,
    frames: Vec<Frame>,
    /// See [`Run::cold`].
    cold: u32,
    holding: Vec<bool>,
    parameters: FxHashMap<usize, SmallVec<[u32; 1]>>,
    /// Keeps the parameters alive, so that their addresses are not used again.
    held: Vec<Arc<dyn Held>>,
}

impl Run {
    /// The state of the run now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            session: self.session.clone(),
            plan: self.plan.clone(),
            recording: self.recorder.is_some(),
            root: self.root.clone(),
            frames: self.frames.clone(),
            cold: self.cold,
            holding: self.holding.clone(),
            parameters: self.parameters.clone(),
            held: self.held.iter().chain(&self.origin).cloned().collect(),
        }
    }

    /// A run that starts from the other run's state, under the same patches. With `record` it is recorded if the other run is,
    /// and what it does is added to the scopes that were open. `None` if nothing is wanted of it.
    pub fn resume(from: &Snapshot, record: bool) -> Option<(Run, Wants)> {
        let record = record && from.recording;
        if from.plan.is_none() && !record {
            return None;
        }
        let mut tape = record.then(|| from.session.part_tape(&from.root.name));
        let mut frames = from.frames.clone();
        for frame in &mut frames {
            if let (Some(tape), Some(name)) = (&mut tape, frame.name) {
                let scope = &frame.scope;
                let source = Source::default();
                frame.event = Some(tape.enter(name, &scope.class_name, &scope.module_path, source));
            }
            frame.look(from.plan.as_deref(), record);
        }
        let run = Run {
            met: frames.iter().map(|frame| frame.serial).max().unwrap_or(0),
            frames,
            cold: from.cold,
            holding: from.holding.clone(),
            parameters: from.parameters.clone(),
            resumed: true,
            origin: from.held.clone(),
            ..Run::new(
                from.session.clone(),
                from.plan.clone(),
                from.root.clone(),
                tape.map(|tape| Recorder::Own(Box::new(tape))),
            )
        };
        let wants = run.wants();
        Some((run, wants))
    }
}

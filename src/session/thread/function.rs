//! Functions of the user's that are called inside a run: what they run is no part of it.

use super::host::end_run;
use super::{is_inside, suspend, take_up, with};

/// A function of the user's is about to be called: the models that it runs are no part of this run.
pub fn begin_function() {
    suspend();
    with(|state| state.level.for_function = true);
}

/// It has returned; runs that it left open end.
pub fn end_function() {
    while is_inside() {
        if end_run().is_err() {
            break;
        }
    }
    take_up();
}

//! Functions of the user's that are called inside a run. The models that they run are not part of the run.

use super::host::end_run;
use super::{is_inside, suspend, take_up, with};

/// A function of the user's is about to be called. The models that it runs are not part of this run.
pub fn begin_function() {
    suspend();
    with(|state| state.level.for_function = true);
}

/// The function has returned. Runs that it left open end here.
pub fn end_function() {
    while is_inside() {
        if end_run().is_err() {
            break;
        }
    }
    take_up();
}

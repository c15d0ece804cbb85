//! Work that has to grow with the number of modules or patches, and not with its square. It is counted in bytes that are asked of
//! the allocator: a plan, a map or a list that is made anew for each of n things takes n times n of them.

use std::sync::Arc;

use allocation_counter::measure;

use super::run_tests::{tensor, value};
use super::{Root, Run, Scope, Session, ValueKind, ops};

/// How many bytes `work` allocates on this thread.
fn bytes(work: impl FnOnce()) -> u64 {
    measure(work).bytes_total
}

/// Ten times the things may cost ten times the bytes, and as much again, since lists grow by doubling.
fn assert_proportional(cost: impl Fn(usize) -> u64, few: usize) {
    let (small, large) = (cost(few), cost(10 * few));
    assert!(small > 0, "nothing was counted");
    assert!(
        large < 20 * small,
        "{small} bytes for {few}, {large} for {}",
        10 * few
    );
}

/// Records the first run of a root that calls `n` modules, each with a parameter of its own, and returns its cost.
fn first_run(n: usize) -> u64 {
    let session = Session::open();
    session.set_recording(true);
    let scope = Arc::new(Scope::new("", "", "Chain", vec!["x".into()]));
    let parameters = (0..n).map(|at| format!("layers.{at}.weight")).collect();
    let root = Arc::new(Root::new(scope, &format!("Chain{n}"), parameters));
    let layers: Vec<_> = (0..n)
        .map(|at| {
            let path = format!("layers.{at}");
            Arc::new(Scope::new(&path, &path, "Layer", vec!["x".into()]))
        })
        .collect();
    let add = ValueKind::Op(ops::define("aten::add.Tensor"));
    bytes(|| {
        let (mut run, _) = Run::begin_for(session, root).unwrap();
        run.set_parameters(1..=n);
        let mut targeted = Vec::new();
        for (at, layer) in layers.iter().enumerate() {
            run.enter(layer.clone());
            run.operand(0, at + 1, Some(&tensor(at + 1, &[4])));
            value(
                &mut run,
                add,
                "add",
                tensor(n + at + 1, &[4]),
                &mut targeted,
            );
            run.leave();
        }
        run.end();
    })
}

#[test]
fn a_first_run_costs_in_proportion_to_its_modules() {
    first_run(1); // what is made once for the process
    assert_proportional(first_run, 400);
}

#[test]
fn adding_patches_one_by_one_costs_in_proportion_to_them() {
    let added = |n: usize| {
        let session = Session::open();
        bytes(|| {
            for at in 0..n {
                let patch = format!("layers_{at}.output=zero");
                session.add_patch(patch.parse().unwrap()).unwrap();
            }
            assert_eq!(session.plan().unwrap().patches.len(), n);
        })
    };
    assert_proportional(added, 300);
}

//! The adapter's calls for models that AOTInductor has compiled.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use graphpatch_locks::Mutex;

use super::guard::guard;
use super::lent::{borrowed, text};
use super::values::{raw_token, raw_wants};
use crate::seam_generated as raw;
use graphpatch_core::path::Name;
use graphpatch_packages::{How, Node, Package, Shows, View, read};
use graphpatch_session::{InnerScope, Root, Scope, ValuePath, ops, thread};

thread_local! {
    /// Why the last package could not be read.
    static WHY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The packages that were read, each under the name of its root.
static KNOWN: Mutex<Vec<(String, &'static Known)>> = Mutex::new(Vec::new());

/// A package and what its structs of the seam point into.
struct Known {
    package: Package,
    raw: raw::GpPackage,
    _root: Arc<Root>,
    _nodes: Vec<Vec<raw::GpNode>>,
    _outputs: Vec<Vec<raw::GpOutput>>,
    _calls: Vec<raw::GpCall>,
}

// SAFETY: nothing of it changes after it was made; its pointers point into itself, and to a root and a scope, which any thread
// may use.
unsafe impl Send for Known {}
// SAFETY: as above.
unsafe impl Sync for Known {}

pub(super) unsafe extern "C" fn package_read(
    library: raw::GpStr,
    why: *mut raw::GpStr,
) -> *const raw::GpPackage {
    guard(std::ptr::null(), || {
        // SAFETY: text lent for this call.
        let library = Path::new(unsafe { text(library) });
        let package = match read(library) {
            Ok(package) => package,
            Err(error) => {
                WHY.with_borrow_mut(|last| {
                    *last = error.to_string();
                    // SAFETY: a place for the answer.
                    unsafe { *why = borrowed(last) };
                });
                return std::ptr::null();
            }
        };
        &raw const known(package).raw
    })
}

/// The same package if it was read before, else a new one, whose root has a name that no other package's root has.
fn known(package: Package) -> &'static Known {
    let mut all = KNOWN.lock();
    if let Some((_, same)) = all.iter().find(|(_, known)| known.package == package) {
        return same;
    }
    let class = &package.class_name;
    let mut name = format!("{class}.run");
    for number in 1.. {
        if all.iter().all(|(other, _)| *other != name) {
            break;
        }
        name = format!("{class}_{number}.run");
    }
    let made: &'static Known = Box::leak(Box::new(Known::new(package, &name)));
    all.push((name, made));
    made
}

impl Known {
    fn new(package: Package, name: &str) -> Known {
        // The path is the scope's where a module calls the model.
        let scope = Scope::new(
            "aoti_model",
            "",
            &package.class_name,
            package.inputs.clone(),
        );
        let scope = Arc::new(scope);
        let root = Arc::new(Root::new(scope.clone(), name, Vec::new()));
        let (mut calls, mut outputs, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = package.nodes.as_slice();
        for (index, call) in package.calls.iter().enumerate() {
            let (own, others) = rest.split_at(rest.partition_point(|node| node.call <= index));
            rest = others;
            let own: Vec<_> = own.iter().map(|node| raw_node(&package, node)).collect();
            let given: Vec<_> = call.outputs.iter().map(raw_output).collect();
            calls.push(raw::GpCall {
                symbol: borrowed(&call.symbol),
                integers: call.integers as u32,
                floats: call.floats as u32,
                outputs: given.as_ptr(),
                n_outputs: given.len(),
                nodes: own.as_ptr(),
                n_nodes: own.len(),
            });
            outputs.push(given);
            nodes.push(own);
        }
        let raw = raw::GpPackage {
            root: Arc::as_ptr(&root).cast_mut().cast(),
            scope: Arc::as_ptr(&scope).cast_mut().cast(),
            calls: calls.as_ptr(),
            n_calls: calls.len(),
            n_inputs: package.inputs.len(),
        };
        Known {
            package,
            raw,
            _root: root,
            _nodes: nodes,
            _outputs: outputs,
            _calls: calls,
        }
    }
}

fn raw_output(output: &graphpatch_packages::Output) -> raw::GpOutput {
    let how = match output.how {
        How::Data => raw::GP_HOW_DATA,
        How::Handle => raw::GP_HOW_HANDLE,
        How::Result => raw::GP_HOW_RESULT,
    };
    raw::GpOutput {
        how: how as u8,
        position: output.position as u32,
    }
}

/// The node as a struct of the seam. Its place is kept as long as the process lives, as the package is.
fn raw_node(package: &Package, node: &Node) -> raw::GpNode {
    let mut made = raw::GpNode {
        place: std::ptr::from_ref(Box::leak(Box::new(place(package, &node.path)))).cast(),
        operation: ops::define(&node.target),
        ..raw::GpNode::default()
    };
    match &node.shows {
        Shows::All => made.shows = raw::GP_SHOWS_ALL as u8,
        Shows::One { output, view } => {
            made.shows = raw::GP_SHOWS_ONE as u8;
            made.output = *output as u32;
            if let Some(View { sizes, order }) = view {
                made.reshaped = 1;
                made.sizes = sizes.as_ptr();
                made.rank = sizes.len();
                made.order = order.as_ref().map_or(std::ptr::null(), |o| o.as_ptr());
            }
        }
        Shows::Nothing(text) => {
            made.shows = raw::GP_SHOWS_NOTHING as u8;
            made.text = borrowed(text);
        }
    }
    made
}

fn place(package: &Package, path: &[String]) -> ValuePath {
    let outer = path.split_last().map_or(&[][..], |(_, outer)| outer);
    let inner = |depth: usize| {
        let scope = package.scope(&path[..=depth]);
        InnerScope {
            name: Name::parse(&path[depth]),
            class_name: scope.class_name.into(),
            module_path: scope.module_path.into(),
        }
    };
    ValuePath {
        scopes: (0..outer.len()).map(inner).collect(),
        name: Name::parse(path.last().map_or("", String::as_str)),
    }
}

pub(super) unsafe extern "C" fn computed(node: *const raw::GpNode, out: *mut raw::GpToken) -> u32 {
    guard(0, || {
        // SAFETY: a node of `package_read`'s, whose place lives as long as the process.
        let (place, operation) =
            unsafe { (&*(*node).place.cast::<ValuePath>(), (*node).operation) };
        let Some((token, wants)) = thread::computed(place, operation) else {
            return 0;
        };
        // SAFETY: a place for the answer.
        unsafe { *out = raw_token(&token) };
        raw_wants(wants)
    })
}

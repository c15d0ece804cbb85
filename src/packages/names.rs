//! Which nodes the values of a model are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::calls::{SHIM, Source};
use crate::owners::{owners, scopes};
use crate::package::{Node, Package, Scope, Shows, View};
use crate::unreadable::Unreadable;

/// The file in a package that names its values as the program names them that it was compiled from. It was made by comparing
/// the two: a value has a node's name if a change of the one has the same effect as a change of the other.
pub const NAMES: &str = "graphpatch_names.json";

/// The newest version of that file. The first one had no orders.
const VERSION: u32 = 2;

/// The file's content.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Names {
    version: u32,
    /// The CRC-32 of the source that the names belong to.
    source: u32,
    class: String,
    inputs: Vec<String>,
    /// Path, class and attribute path of each scope.
    scopes: Vec<(String, String, String)>,
    nodes: Vec<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// The path of the kernel's own node for the call that computes the value, or behind which it would stand.
    kernel: String,
    path: String,
    target: String,
    /// The call's output; none where the value was fused away.
    output: Option<usize>,
    /// Its sizes, if they differ from those in memory. A number below 0 is -1 - 64 * INPUT - DIMENSION: a size of an input.
    sizes: Option<Vec<i64>>,
    /// Its dimensions in the order of memory, if its elements have another order there than those of the tensor.
    #[serde(default)]
    order: Option<Vec<u32>>,
    /// Where a value went that was fused away, and which ones are nearest.
    fused: Option<String>,
}

pub(crate) fn parse(file: &[u8], source: &[u8]) -> Result<Names, Unreadable> {
    let wrong = |why: String| Unreadable::Names(why);
    let names: Names = serde_json::from_slice(file).map_err(|why| wrong(why.to_string()))?;
    if !(1..=VERSION).contains(&names.version) {
        return Err(wrong(format!(
            "its version is {}, not {VERSION} or less",
            names.version
        )));
    }
    match crc32fast::hash(source) == names.source {
        true => Ok(names),
        false => Err(wrong(
            "it was made for another compilation of the model".into(),
        )),
    }
}

/// The package: the calls of its source, and their nodes.
pub(crate) fn arrange(source: Source, names: Option<Names>) -> Result<Package, Unreadable> {
    let mut package = Package {
        class_name: "AOTInductor".to_owned(),
        inputs: source.inputs,
        calls: source.calls,
        nodes: Vec::new(),
        scopes: BTreeMap::new(),
    };
    add_own(&mut package);
    if let Some(names) = names {
        take(&mut package, names)?;
    }
    package.nodes.sort_by_key(|node| node.call);
    Ok(package)
}

/// Takes over the names of a file. A kernel keeps its own node if one of its outputs has no name.
fn take(package: &mut Package, names: Names) -> Result<(), Unreadable> {
    if names.inputs.len() == package.inputs.len() {
        package.inputs = names.inputs;
    }
    package.class_name = names.class;
    for (path, class_name, module_path) in names.scopes {
        let scope = Scope {
            class_name,
            module_path,
        };
        package.scopes.insert(path, scope);
    }
    let own = package.nodes.iter();
    let own: BTreeMap<String, usize> = own.map(|node| (node.path.join("."), node.call)).collect();
    let mut named: BTreeSet<(usize, usize)> = BTreeSet::new();
    for given in names.nodes {
        let missing = || Unreadable::Names(format!("`{}` has no such value", given.kernel));
        let call = *own.get(&given.kernel).ok_or_else(missing)?;
        let shows = match (given.output, given.fused) {
            (Some(output), None) if output < package.calls[call].outputs.len() => {
                named.insert((call, output));
                let view = view(given.sizes, given.order);
                let view = view.ok_or_else(|| no_layout(&given.path))?;
                Shows::One { output, view }
            }
            (None, Some(text)) => Shows::Nothing(text),
            _ => return Err(missing()),
        };
        package.nodes.push(Node {
            call,
            path: given.path.split('.').map(str::to_owned).collect(),
            target: given.target,
            shows,
        });
    }
    let calls = &package.calls;
    let is_named =
        |call: usize| (0..calls[call].outputs.len()).all(|at| named.contains(&(call, at)));
    package
        .nodes
        .retain(|node| node.shows != Shows::All || !is_named(node.call));
    Ok(())
}

/// How a value lies in memory: `Some(None)` if as the tensor. None if the file contradicts itself.
fn view(sizes: Option<Vec<i64>>, order: Option<Vec<u32>>) -> Option<Option<View>> {
    let Some(sizes) = sizes else {
        return order.is_none().then_some(None);
    };
    if let Some(order) = &order {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..sizes.len() as u32) {
            return None;
        }
    }
    Some(Some(View { sizes, order }))
}

fn no_layout(path: &str) -> Unreadable {
    Unreadable::Names(format!(
        "the order of `{path}` does not name each of its dimensions once"
    ))
}

/// Adds a node under the kernel's own name for each call that has outputs. It stands in the scope of the module whose weights the
/// call alone reads.
fn add_own(package: &mut Package) {
    let owners = owners(&package.calls);
    let mut given: BTreeSet<Vec<String>> = BTreeSet::new();
    for (index, call) in package.calls.iter().enumerate() {
        if call.outputs.is_empty() {
            continue;
        }
        let mut path = Vec::new();
        for (name, module_path) in scopes(&owners[index]) {
            path.push(name);
            let scope = Scope {
                class_name: "Module".to_owned(),
                module_path,
            };
            package.scopes.entry(path.join(".")).or_insert(scope);
        }
        let own = call.symbol.strip_prefix(SHIM).unwrap_or(&call.symbol);
        let own = own.trim_start_matches('_').trim_end_matches("_out");
        path.push(own.to_owned());
        // The same kernel may run several times.
        for number in 1.. {
            if given.insert(path.clone()) {
                break;
            }
            if let Some(last) = path.last_mut() {
                *last = format!("{own}_{number}");
            }
        }
        package.nodes.push(Node {
            call: index,
            path,
            target: format!("aoti::{}", call.symbol),
            shows: Shows::All,
        });
    }
}

//! Where a call belongs among the modules of the original model, as far as the weights that it reads tell.

use std::collections::{BTreeMap, BTreeSet};

use crate::calls::{Call, SHIM};

/// For each call the attribute path of the module whose weights it reads. Empty where it reads none, or those of several, or one
/// that another call reads as well (a head that shares its weight with an embedding, say), and for kernels in which several
/// operations were fused.
pub(crate) fn owners(calls: &[Call]) -> Vec<String> {
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    for path in calls.iter().flat_map(|call| &call.reads) {
        *readers.entry(path).or_default() += 1;
    }
    let alone = |path: &String| readers.get(path.as_str()) == Some(&1);
    let owner = |call: &Call| {
        let modules = call.reads.iter().map(|path| match alone(path) {
            true => path.rsplit_once('.').map_or("", |(module, _)| module),
            false => "",
        });
        let modules: BTreeSet<&str> = modules.collect();
        match modules.first() {
            Some(module) if modules.len() == 1 && call.symbol.starts_with(SHIM) => {
                (*module).to_owned()
            }
            _ => String::new(),
        }
    };
    calls.iter().map(owner).collect()
}

/// The names of the scopes on the way to a module: `h.0.mlp.up` is `h_0`, `mlp`, `up`. Only a container has a number as an
/// attribute, and most containers are not called.
pub(crate) fn scopes(module: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for part in module.split('.').filter(|part| !part.is_empty()) {
        let number = part.chars().all(|c| c.is_ascii_digit());
        match found.last_mut() {
            Some((name, path)) if number => {
                *name = format!("{name}_{part}");
                *path = format!("{path}.{part}");
            }
            _ if number => found.push((format!("sub_{part}"), part.to_owned())),
            _ => found.push((part.to_owned(), part.to_owned())),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(symbol: &str, reads: &[&str]) -> Call {
        Call {
            symbol: symbol.to_owned(),
            integers: 0,
            floats: 0,
            outputs: Vec::new(),
            reads: reads.iter().map(|&path| path.to_owned()).collect(),
        }
    }

    #[test]
    fn a_weight_that_two_calls_read_tells_nothing() {
        let calls = [
            call(
                "aoti_torch_cpu_addmm_out",
                &["h.0.up.weight", "h.0.up.bias"],
            ),
            call("aoti_torch_cpu_mm_out", &["embed.weight"]),
            call("aoti_torch_cpu_embedding", &["embed.weight"]),
            call("aoti_torch_cpu_bmm_out", &[]),
            call("aoti_torch_cpu_bmm_out", &["a.weight", "b.weight"]),
            call(
                "cpp_fused_native_layer_norm_0",
                &["norm.weight", "norm.bias"],
            ),
            call("aoti_torch_cpu_mm_out", &["weight"]),
        ];
        assert_eq!(owners(&calls), ["h.0.up", "", "", "", "", "", ""]);
    }

    #[test]
    fn a_number_belongs_to_the_container() {
        let names = |module| scopes(module).into_iter().map(|(name, _)| name);
        assert!(names("h.0.mlp.up").eq(["h_0", "mlp", "up"]));
        assert!(names("0.1").eq(["sub_0_1"]));
        assert!(names("").eq([""; 0]));
    }
}

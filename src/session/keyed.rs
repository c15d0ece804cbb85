//! Kept values under the keys that safetensors files give them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::KeptValues;
use graphpatch_core::tensor::{HostTensor, safetensors};

/// Values under the keys that files give them.
#[derive(Debug, Default)]
pub struct Keyed {
    pub tensors: Vec<(String, Arc<HostTensor>)>,
    /// A line for each key whose value a file cannot hold.
    pub unsaved: Vec<String>,
}

/// The path is the key of a probe; a record has `PATH#0`, `PATH#1` and so on. The second probe (or record) of one path
/// is `PATH~2`.
pub fn keyed(kept: &[KeptValues]) -> Keyed {
    let (mut met, mut taken, mut all) = (HashMap::new(), HashSet::new(), Keyed::default());
    for one in kept {
        let times = met.entry((&one.path, one.record)).or_insert(0u32);
        *times += 1;
        let label = match *times {
            1 => one.path.clone(),
            n => format!("{}~{n}", one.path),
        };
        for (index, value) in one.values.iter().enumerate() {
            let mut key = match one.record {
                true => format!("{label}#{index}"),
                false => label.clone(),
            };
            // A key is taken already only if a path itself ends like the key of another one.
            while !taken.insert(key.clone()) {
                key.push('~');
            }
            if safetensors::holds(value.dtype()) {
                all.tensors.push((key, value.clone()));
            } else {
                let dtype = value.dtype().name();
                all.unsaved
                    .push(format!("{key}: safetensors cannot hold {dtype}"));
            }
        }
    }
    all
}

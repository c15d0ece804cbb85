//! What differs between the graphs of a page and those of another recording.

use graphpatch_core::graph::{self, Difference, Graph};
use serde::Serialize;

#[derive(Serialize)]
pub struct Compared {
    /// The other file's name.
    file: String,
    /// One for each graph of the page, in their order.
    graphs: Vec<Differences>,
    /// The roots of the other file that this one has not.
    only: Vec<String>,
}

#[derive(Serialize)]
struct Differences {
    differences: Vec<Difference>,
}

impl Compared {
    /// Compares graphs of the same name; where each file has only one, whatever their names are.
    pub fn of(file: String, graphs: &[Graph], others: &[Graph]) -> Compared {
        let partner = |own: &Graph| match (graphs, others) {
            ([_], [other]) => Some(other),
            _ => others.iter().find(|other| other.name == own.name),
        };
        let all = graphs.iter().map(|own| Differences {
            differences: match partner(own) {
                Some(other) => graph::diff(own, other, true),
                None => Vec::new(),
            },
        });
        let is_alone = |other: &&Graph| {
            (graphs.len(), others.len()) != (1, 1)
                && graphs.iter().all(|own| own.name != other.name)
        };
        Compared {
            file,
            graphs: all.collect(),
            only: others
                .iter()
                .filter(is_alone)
                .map(|other| other.name.clone())
                .collect(),
        }
    }
}

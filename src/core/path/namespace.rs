//! The names given in one scope of one run, unique the way `torch.fx` makes them so.

use rustc_hash::{FxHashMap, FxHashSet};

use super::name::{Base, ILLEGAL, Name, lookup};

/// The names of one scope. [`Namespace::clear`] keeps the memory, so that scopes can draw it from a pool.
///
/// The rules are those of `torch/fx/graph.py`, `_Namespace.create_name`, one surprise of it included: the count that
/// a collision continues from is stored under the base, but looked up under the whole candidate. So `layers_0`
/// called twice gives `layers_0` and `layers_1`, and a `layers_1` called after that gives `layers_2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    used: FxHashSet<Name>,
    counts: FxHashMap<Base, i32>,
}

impl Namespace {
    /// An empty namespace.
    pub fn new() -> Namespace {
        Namespace::default()
    }

    /// Forgets all names and keeps the memory.
    pub fn clear(&mut self) {
        self.used.clear();
        self.counts.clear();
    }

    /// The next free name for an operation, a scope or a parameter; never one that shadows a Python keyword or builtin.
    pub fn create(&mut self, candidate: Name) -> Name {
        self.create_above(candidate, ILLEGAL.1)
    }

    /// The next free name for an input, which may shadow a builtin (`input` stays `input`), though not a keyword.
    pub fn create_exact(&mut self, candidate: Name) -> Name {
        self.create_above(candidate, ILLEGAL.0)
    }

    /// Marks a name as taken.
    pub fn reserve(&mut self, name: Name) {
        self.used.insert(name);
    }

    /// Whether a name is taken.
    pub fn is_used(&self, name: Name) -> bool {
        self.used.contains(&name)
    }

    /// As `create_name`; bases below `legal` get a number from the start.
    fn create_above(&mut self, candidate: Name, legal: Base) -> Name {
        let mut name = candidate;
        let mut num = candidate.num;
        if num < 0 || self.used.contains(&candidate) {
            num = self.count(candidate);
            if candidate.num < 0 && candidate.base < legal {
                num += 1;
                name.num = num;
            }
        }
        while !self.used.insert(name) {
            num = num.saturating_add(1);
            name.num = num;
        }
        self.counts.insert(name.base, num);
        name
    }

    /// The count under the candidate's whole text, which differs from its base when it has a number.
    fn count(&self, candidate: Name) -> i32 {
        let key = match candidate.num {
            ..0 => Some(candidate.base),
            0.. => lookup(&candidate.to_string()),
        };
        key.and_then(|base| self.counts.get(&base))
            .copied()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(create: fn(&mut Namespace, Name) -> Name, candidates: &str) -> String {
        let mut space = Namespace::new();
        let made = candidates
            .split(' ')
            .map(|c| create(&mut space, Name::candidate(c)).to_string());
        made.collect::<Vec<_>>().join(" ")
    }

    /// The right side is what torch 2.11's own `_Namespace().create_name(candidate, None)` returned for the left
    /// side, one fresh namespace a line. (So were 3000 random sequences, compared once by script.)
    #[test]
    fn same_names_as_torch_fx() {
        for (candidates, expected) in [
            ("add add_1 add add", "add add_1 add_2 add_3"),
            ("linear_1 linear linear", "linear_1 linear linear_2"),
            (
                "layers_0 layers_0 layers_1 layers_0",
                "layers_0 layers_1 layers_2 layers_3",
            ),
            ("sum sum sum_1 sum_5 sum", "sum_1 sum_2 sum_3 sum_5 sum_6"),
            ("pow pow", "pow_1 pow_2"),
            ("add_5 add_2 add add", "add_5 add_2 add add_3"),
            ("add_ add_ add__1", "add_ add__1 add__2"),
            ("a_1_2 a_1 a_1 a_1", "a_1_2 a_1 a_3 a_4"),
            (
                "inf torch device input class lambda_1 lambda",
                "inf_1 torch_1 device_1 input_1 class_1 lambda_1 lambda_2",
            ),
            ("_1 _1 __1 __1", "_1 _1_1 __1 __2"),
            ("x_0 x x", "x_0 x x_1"),
            ("x x_0 x_0 x", "x x_0 x_1 x_2"),
            ("add_1 add_1 add_1 add", "add_1 add_2 add_3 add"),
            ("layers_8_mlp layers_8_mlp", "layers_8_mlp layers_8_mlp_1"),
            ("max_1 max", "max_1 max_2"),
        ] {
            assert_eq!(names(Namespace::create, candidates), expected);
        }
    }

    #[test]
    fn inputs_and_parameters_may_shadow_builtins_only() {
        assert_eq!(
            names(Namespace::create_exact, "input input id class"),
            "input input_1 id class_1"
        );
        let mut space = Namespace::new();
        assert_eq!(
            space.create_exact(Name::parse("input")).to_string(),
            "input"
        );
        assert_eq!(space.create(Name::parse("input")).to_string(), "input_1");
    }

    #[test]
    fn reserved_names_are_skipped_until_cleared() {
        let mut space = Namespace::new();
        let output = Name::parse("output");
        space.reserve(output);
        assert!(space.is_used(output));
        assert_eq!(space.create(output).to_string(), "output_1");
        space.clear();
        assert!(!space.is_used(output));
        assert_eq!(space.create(output), output);
    }
}

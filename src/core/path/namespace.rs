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
    numbers: FxHashMap<Base, Numbers>,
}

/// The names of one base that are taken. Nearly always their numbers rise by one, so most are kept as a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Numbers {
    /// The count that a collision continues from.
    count: i32,
    /// The base without a number.
    plain: bool,
    /// The base with the number 0.
    zero: bool,
    /// The numbers from 1 to this one.
    upto: i32,
    /// Numbers above `upto`, with a gap before each sequence of them.
    more: FxHashSet<i32>,
}

impl Numbers {
    fn has(&self, num: i32) -> bool {
        match num {
            ..0 => self.plain,
            0 => self.zero,
            _ => num <= self.upto || self.more.contains(&num),
        }
    }

    /// Takes a number; `false` if it was taken.
    fn take(&mut self, num: i32) -> bool {
        match num {
            ..0 => !std::mem::replace(&mut self.plain, true),
            0 => !std::mem::replace(&mut self.zero, true),
            _ if num <= self.upto => false,
            _ if num > self.upto + 1 => self.more.insert(num),
            _ => {
                self.upto = num;
                while !self.more.is_empty() && self.more.remove(&(self.upto + 1)) {
                    self.upto += 1;
                }
                true
            }
        }
    }

    /// Whether the next name continues the range, and all after it are free.
    fn is_even(&self) -> bool {
        self.count == self.upto && self.more.is_empty()
    }
}

impl Namespace {
    /// An empty namespace.
    pub fn new() -> Namespace {
        Namespace::default()
    }

    /// Forgets all names and keeps the memory.
    pub fn clear(&mut self) {
        self.numbers.clear();
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
        self.numbers.entry(name.base).or_default().take(name.num);
    }

    /// Whether a name is taken.
    pub fn is_used(&self, name: Name) -> bool {
        let numbers = self.numbers.get(&name.base);
        numbers.is_some_and(|numbers| numbers.has(name.num))
    }

    /// The number of the name that [`Namespace::create`] gave last for `base` without a number, if the names that it gives
    /// next have the numbers that follow, without a gap.
    pub fn rises_from(&self, base: Base) -> Option<i32> {
        let numbers = self.numbers.get(&base)?;
        let named = numbers.plain || base < ILLEGAL.1;
        (named && numbers.is_even()).then_some(numbers.count)
    }

    /// The same as `n` calls of [`Namespace::create`] for `base` without a number.
    pub fn skip(&mut self, base: Base, n: u32) {
        if self.rises_from(base).is_some()
            && let Some(numbers) = self.numbers.get_mut(&base)
            && let Some(count) = i32::try_from(n)
                .ok()
                .and_then(|n| numbers.count.checked_add(n))
        {
            numbers.count = count;
            numbers.upto = count;
            return;
        }
        for _ in 0..n {
            self.create(Name::of(base));
        }
    }

    /// As `create_name`; bases below `legal` get a number from the start.
    fn create_above(&mut self, candidate: Name, legal: Base) -> Name {
        let mut name = candidate;
        let mut num = candidate.num;
        if num >= 0 && self.is_used(candidate) {
            num = self.count(candidate);
        }
        let numbers = self.numbers.entry(candidate.base).or_default();
        if candidate.num < 0 {
            num = numbers.count;
            if candidate.base < legal {
                num += 1;
                name.num = num;
            }
        }
        while !numbers.take(name.num) {
            num = num.saturating_add(1);
            name.num = num;
        }
        numbers.count = num;
        name
    }

    /// The count under the text of a candidate that has a number. It is that of another base, or none.
    fn count(&self, candidate: Name) -> i32 {
        let key = lookup(&candidate.to_string());
        let numbers = key.and_then(|base| self.numbers.get(&base));
        numbers.map_or(0, |numbers| numbers.count)
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

    /// Names that are skipped are taken as those that are given, whatever was there before.
    #[test]
    fn skipping_is_giving() {
        for before in [
            "",
            "add",
            "add add_1",
            "add_3 add",
            "add_0 add add_2 add_5",
            "sum",
            "sum sum_4",
            "add_1 add_1 sum_1",
        ] {
            for base in ["add", "sum"] {
                for n in [0, 1, 2, 7] {
                    let mut given = Namespace::new();
                    for name in before.split_whitespace() {
                        given.create(Name::candidate(name));
                    }
                    let mut skipped = given.clone();
                    let base = Name::candidate(base);
                    (0..n).for_each(|_| _ = given.create(base));
                    skipped.skip(base.base, n);
                    assert_eq!(given, skipped, "{before}, {n}");
                    if let Some(last) = given.rises_from(base.base) {
                        assert_eq!(given.create(base).num, last + 1, "{before}, {n}");
                    }
                }
            }
        }
    }
}

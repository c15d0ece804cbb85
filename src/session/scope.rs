//! What is known of a scope and of a root before they run. Made once, shared by all runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use graphpatch_locks::{Mutex, OnceLock};
use rustc_hash::{FxHashMap, FxHashSet};

use graphpatch_core::patch::Plan;
use graphpatch_core::path::{Base, Name, Namespace, family_text, sanitize};

/// One call of one module in a root's code.
#[derive(Debug)]
pub struct Scope {
    /// Attribute path below the nearest enclosing called module, such as `layers.8`.
    pub module_path: Arc<str>,
    /// Attribute path below the root.
    pub absolute_path: Arc<str>,
    pub class_name: Arc<str>,
    /// Names of `forward`'s arguments.
    pub inputs: Vec<String>,
    candidate: Name,
    family: Base,
    /// Whether `absolute_path` is counted from the scope that a program called the code through (TorchScript), which
    /// need not be the root.
    relative: bool,
    /// Whether the inside of its code cannot be seen. Only its inputs and its output are recorded then.
    pub opaque: bool,
    /// The names for the place from which the scope was called first, which is nearly always the only one.
    first: OnceLock<(CalledIn, Arc<Prepared>)>,
    others: Mutex<FxHashMap<CalledIn, Arc<Prepared>>>,
}

/// Where a scope is called: everything that the names in it depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CalledIn {
    /// [`Root`]'s number.
    root: u64,
    /// See [`Scope::base`].
    base: Arc<str>,
}

/// What every call of the scope begins with.
#[derive(Debug)]
pub struct Prepared {
    /// The names that inputs, own parameters and the output have from the start. An operation that asks for one of them gets a
    /// number, whether or not the parameter is used before the operation.
    pub names: Namespace,
    /// The inputs' names, by index.
    pub inputs: Vec<Name>,
    pub output: Name,
    /// By the parameter's index in the root: its name here if it is the module's own, which `names` holds already. A parameter of
    /// another module gets its name when it is read, with a number if the name is taken. The names of all parameters below each
    /// module would take time and memory by the square of how deep modules are nested.
    pub parameters: FxHashMap<u32, Option<Name>>,
    /// See [`Root::targets`], and how many bytes of each stand for the scope itself.
    targets: Arc<[Arc<str>]>,
    above: usize,
    /// The names that parameters may have here, collected when they are needed first.
    parameter_names: OnceLock<ParameterNames>,
}

/// The names that parameters may have in a scope: names of the module's own parameters, and families of the others' names.
#[derive(Debug, Default)]
struct ParameterNames {
    own: FxHashSet<Name>,
    families: FxHashSet<Base>,
}

impl Prepared {
    /// The same names, with parameters that became known later.
    pub fn with_parameters(
        &self,
        parameters: FxHashMap<u32, Option<Name>>,
        new: &Prepared,
    ) -> Prepared {
        Prepared {
            names: self.names.clone(),
            inputs: self.inputs.clone(),
            output: self.output,
            parameters,
            targets: new.targets.clone(),
            above: new.above,
            parameter_names: OnceLock::new(),
        }
    }

    /// The name that another module's parameter of this index asks for.
    pub fn candidate(&self, index: u32) -> Name {
        let path = self.targets.get(index as usize);
        Name::candidate(path.and_then(|path| path.get(self.above..)).unwrap_or(""))
    }

    /// Whether a parameter may have this name.
    pub fn may_be_parameter(&self, name: Name) -> bool {
        let known = self.parameter_names.get_or_init(|| {
            let mut known = ParameterNames::default();
            for (index, own) in &self.parameters {
                match own {
                    Some(name) => known.own.insert(*name),
                    None => known.families.insert(self.candidate(*index).family()),
                };
            }
            known
        });
        known.own.contains(&name)
            || !known.families.is_empty() && known.families.contains(&name.family())
    }
}

impl Scope {
    pub fn new(
        module_path: &str,
        absolute_path: &str,
        class_name: &str,
        inputs: Vec<String>,
    ) -> Scope {
        let called = if module_path.is_empty() {
            class_name.rsplit('.').next().unwrap_or(class_name)
        } else {
            module_path
        };
        let candidate = Name::candidate(called);
        Scope {
            module_path: module_path.into(),
            absolute_path: absolute_path.into(),
            class_name: class_name.into(),
            inputs,
            candidate,
            family: candidate.family(),
            relative: false,
            opaque: false,
            first: OnceLock::new(),
            others: Mutex::default(),
        }
    }

    /// The same scope, with its absolute path counted from the scope that its code is called through.
    pub fn relative(self) -> Scope {
        Scope {
            relative: true,
            ..self
        }
    }

    /// Whether its code is TorchScript.
    pub fn is_script(&self) -> bool {
        self.relative
    }

    /// The same scope, whose inside cannot be seen if `opaque`.
    pub fn opaque(self, opaque: bool) -> Scope {
        Scope { opaque, ..self }
    }

    /// The attribute path that relative scopes inside this one count from; `base` is the enclosing scope's.
    pub fn base(&self, base: &Arc<str>) -> Arc<str> {
        match self.relative {
            true => base.clone(),
            false => self.absolute_path.clone(),
        }
    }

    /// The name that the scope's first call asks for.
    pub fn candidate(&self) -> Name {
        self.candidate
    }

    /// [`Name::family`] of that name.
    pub fn family(&self) -> Base {
        self.family
    }

    /// Names for a call in a run of `root`; `base` is the scope's own [`Scope::base`].
    pub fn prepared(&self, root: &Root, base: &Arc<str>) -> Arc<Prepared> {
        let make = || Arc::new(self.prepare(root, base));
        let here = || CalledIn {
            root: root.id,
            base: base.clone(),
        };
        let (first, prepared) = self.first.get_or_init(|| (here(), make()));
        if first.root == root.id && first.base == *base {
            return prepared.clone();
        }
        let mut others = self.others.lock();
        others.entry(here()).or_insert_with(make).clone()
    }

    fn prepare(&self, root: &Root, base: &str) -> Prepared {
        let parts = [if self.relative { base } else { "" }, &self.absolute_path];
        let path: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        let path = path.join(".");
        let mut names = Namespace::new();
        let inputs = self
            .inputs
            .iter()
            .map(|input| names.create_exact(Name::candidate(input)))
            .collect();
        let output = names.create_exact(Name::candidate("output"));
        let mut known = FxHashMap::default();
        let above = match path.is_empty() {
            true => 0,
            false => path.len() + 1,
        };
        for index in root.below(&path) {
            let relative = &root.parameters[index as usize][above..];
            let own = !relative.contains('.');
            known.insert(index, own.then(|| names.create(Name::candidate(relative))));
        }
        Prepared {
            names,
            inputs,
            output,
            parameters: known,
            targets: root.targets.clone(),
            above,
            parameter_names: OnceLock::new(),
        }
    }
}

/// What a program calls from outside: a scope and the parameters below it.
#[derive(Debug)]
pub struct Root {
    /// A number that no other root of the process has.
    id: u64,
    pub scope: Arc<Scope>,
    /// Class and method.
    pub name: String,
    /// Attribute paths of all parameters and buffers, in the order in which a run gives their identities.
    pub parameters: Vec<String>,
    /// The same paths, as nodes show them.
    targets: Arc<[Arc<str>]>,
    /// Indices of the parameters in the order of their paths, in which those below a module stand together.
    sorted: OnceLock<Vec<u32>>,
    /// Families of all names that a parameter may have in any scope.
    families: OnceLock<FxHashSet<Box<str>>>,
    /// The plan last asked about by [`Root::may_patch_parameter`], times 2, plus the answer.
    answer: AtomicU64,
}

impl Root {
    pub fn new(scope: Arc<Scope>, name: &str, parameters: Vec<String>) -> Root {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Root {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            scope,
            name: name.to_owned(),
            targets: parameters.iter().map(|path| path.as_str().into()).collect(),
            parameters,
            sorted: OnceLock::new(),
            families: OnceLock::new(),
            answer: AtomicU64::new(0),
        }
    }

    /// Indices of the parameters below the module at `path`, in their own order.
    fn below(&self, path: &str) -> Vec<u32> {
        if path.is_empty() {
            return (0..self.parameters.len() as u32).collect();
        }
        let path_of = |index: &u32| self.parameters[*index as usize].as_str();
        let sorted = self.sorted.get_or_init(|| {
            let mut all: Vec<u32> = (0..self.parameters.len() as u32).collect();
            all.sort_by(|a, b| path_of(a).cmp(path_of(b)));
            all
        });
        let prefix = format!("{path}.");
        let first = sorted.partition_point(|index| path_of(index) < prefix.as_str());
        let rest = sorted[first..].iter().copied();
        let mut found: Vec<u32> = rest
            .take_while(|index| path_of(index).starts_with(&prefix))
            .collect();
        found.sort_unstable();
        found
    }

    /// Families of the names that each parameter may have: its path below each module that contains it gives one.
    fn parameter_families(&self) -> FxHashSet<Box<str>> {
        let mut families = FxHashSet::default();
        for path in &self.parameters {
            let mut below = path.as_str();
            loop {
                let name = sanitize(below);
                families.insert(family_text(&name).into());
                match below.split_once('.') {
                    Some((_, rest)) => below = rest,
                    None => break,
                }
            }
        }
        families
    }

    /// The attribute path of a parameter.
    pub fn target(&self, index: u32) -> Arc<str> {
        self.targets
            .get(index as usize)
            .cloned()
            .unwrap_or_default()
    }

    /// Whether a patch of the plan may name a parameter. The last answer is kept and given again for the same plan.
    pub fn may_patch_parameter(&self, plan: &Plan) -> bool {
        let known = self.answer.load(Ordering::Relaxed);
        if known / 2 == plan.serial {
            return known % 2 == 1;
        }
        let families = self.families.get_or_init(|| self.parameter_families());
        let answer = plan.ends_with(|family| families.contains(family));
        self.answer
            .store(plan.serial * 2 + u64::from(answer), Ordering::Relaxed);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_named_below_their_scope() {
        let scope = Arc::new(Scope::new(
            "layers.0",
            "layers.0",
            "Block",
            vec!["weight".into()],
        ));
        let parameters = [
            "layers.0.weight",
            "layers.0.norm.bias",
            "layers.01.weight",
            "layers.0.max",
        ];
        let root = Root::new(
            scope.clone(),
            "Model.forward",
            parameters.map(String::from).into(),
        );
        let prepared = scope.prepared(&root, &scope.base(&Arc::default()));
        assert_eq!(scope.candidate().to_string(), "layers_0");
        assert_eq!(prepared.inputs[0].to_string(), "weight");
        let own = |index| prepared.parameters[&index].map(|name| name.to_string());
        assert_eq!(own(0).as_deref(), Some("weight_1"));
        assert_eq!(
            (own(1), prepared.candidate(1).to_string()),
            (None, "norm_bias".into())
        );
        assert_eq!(own(3).as_deref(), Some("max_1"), "as max() is a builtin");
        assert_eq!(prepared.parameters.len(), 3);
    }
}

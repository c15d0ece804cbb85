//! What is known of a scope and of a root before they run. Made once, shared by all runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use graphpatch_core::patch::Plan;
use graphpatch_core::path::{Base, Name, Namespace};

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
    /// Its code cannot be looked into: its inputs and its output are all that there is.
    pub opaque: bool,
    /// For the place where it is called first, which is nearly always the only one.
    first: OnceLock<(Place, Arc<Prepared>)>,
    others: Mutex<FxHashMap<Place, Arc<Prepared>>>,
}

/// The root's number, and the attribute path from which a relative scope counts.
type Place = (u64, Arc<str>);

/// What every call of the scope begins with.
#[derive(Debug)]
pub struct Prepared {
    /// The names that inputs, own parameters and the output hold from the start. An operation that comes to the
    /// same name gets a number, whether or not the parameter is used before it.
    pub names: Namespace,
    /// The inputs' names, by index.
    pub inputs: Vec<Name>,
    pub output: Name,
    /// By the parameter's index in the root: its name here, and whether `names` holds it already.
    pub parameters: FxHashMap<u32, (Name, bool)>,
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

    /// What its first call is named.
    pub fn candidate(&self) -> Name {
        self.candidate
    }

    /// [`Name::family`] of that name.
    pub fn family(&self) -> Base {
        self.family
    }

    /// Names for a call in a run of `root`; `base` is the scope's own [`Scope::base`].
    pub fn prepared(&self, root: &Root, base: &Arc<str>) -> Arc<Prepared> {
        let make = || Arc::new(self.prepare(&root.parameters, base));
        let (place, prepared) = self.first.get_or_init(|| ((root.id, base.clone()), make()));
        if place.0 == root.id && place.1 == *base {
            return prepared.clone();
        }
        let mut others = self.others.lock();
        others
            .entry((root.id, base.clone()))
            .or_insert_with(make)
            .clone()
    }

    fn prepare(&self, parameters: &[String], base: &str) -> Prepared {
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
        let below = |parameter: &str| {
            if path.is_empty() {
                return Some(parameter.to_owned());
            }
            parameter
                .strip_prefix(path.as_str())?
                .strip_prefix('.')
                .map(str::to_owned)
        };
        let mut known = FxHashMap::default();
        for (index, parameter) in parameters.iter().enumerate() {
            let Some(relative) = below(parameter) else {
                continue;
            };
            let candidate = Name::candidate(&relative);
            let own = !relative.contains('.');
            let name = if own {
                names.create(candidate)
            } else {
                candidate
            };
            known.insert(index as u32, (name, own));
        }
        Prepared {
            names,
            inputs,
            output,
            parameters: known,
        }
    }
}

/// What a program calls from outside: a scope and the parameters below it.
#[derive(Debug)]
pub struct Root {
    /// Another number for every root of the process.
    id: u64,
    pub scope: Arc<Scope>,
    /// Class and method.
    pub name: String,
    /// Attribute paths of all parameters and buffers, in the order in which a run gives their identities.
    pub parameters: Vec<String>,
    /// The same paths, as nodes show them.
    targets: Vec<Arc<str>>,
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
            answer: AtomicU64::new(0),
        }
    }

    /// The attribute path of a parameter.
    pub fn target(&self, index: u32) -> Arc<str> {
        self.targets
            .get(index as usize)
            .cloned()
            .unwrap_or_default()
    }

    /// Whether a patch of the plan could mean a parameter. Answered from memory while the plan stays the same.
    pub fn may_patch_parameter(&self, plan: &Plan) -> bool {
        let known = self.answer.load(Ordering::Relaxed);
        if known / 2 == plan.serial {
            return known % 2 == 1;
        }
        let answer = plan.last_names().any(|name| {
            let name = name.to_string();
            self.parameters.iter().any(|path| {
                let whole = Name::candidate(path).to_string();
                let last = path.rsplit('.').next().unwrap_or(path);
                whole.ends_with(&name) || name.starts_with(last)
            })
        });
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
        assert_eq!(prepared.parameters[&0].0.to_string(), "weight_1");
        assert_eq!(prepared.parameters[&1].0.to_string(), "norm_bias");
        assert_eq!(
            prepared.parameters[&3].0.to_string(),
            "max_1",
            "as max() is a builtin"
        );
        assert_eq!(prepared.parameters.len(), 3);
    }
}

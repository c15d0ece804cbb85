//! Which functions of libtorch the program's own objects call, as the symbols that they import tell.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::elf;
use super::libtorch::is_libtorch_cpu;

/// Loading, compiling and calling TorchScript.
const TORCHSCRIPT: [&str; 5] = [
    "_ZN5torch3jit4loadE",
    "_ZN5torch3jit16import_ir_moduleE",
    "_ZN5torch3jit15_load_for_mobileE",
    "_ZN5torch3jit7compileE",
    "_ZNK5torch3jit6MethodclE",
];

/// The prefix of this library's C ABI. A program that imports such symbols marks its own runs.
const OURS: &str = "gp_";

/// The prefix of members of `torch::nn::Module`, which every class of modules has.
const MODULE: &str = "_ZN5torch2nn6Module";

/// Whether one of the process's objects, besides libtorch's own, calls TorchScript or this library. If so, these calls tell
/// where runs begin and end. An object that cannot be read counts as one that does not.
pub fn tells_of_runs() -> bool {
    any_imports(|name| {
        name.starts_with(OURS) || TORCHSCRIPT.iter().any(|prefix| name.starts_with(prefix))
    })
}

/// The files of those of these objects that have classes of `torch::nn` modules.
pub fn with_modules() -> Vec<PathBuf> {
    let mut objects = programs_objects();
    objects.retain(|path| imports(path, |name| name.starts_with(MODULE)));
    objects
}

fn any_imports(wanted: fn(&str) -> bool) -> bool {
    programs_objects().iter().any(|path| imports(path, wanted))
}

/// The files of all objects besides libtorch's own and this library. There are none before libtorch is loaded.
fn programs_objects() -> Vec<PathBuf> {
    let mut objects = objects();
    let home = objects
        .iter()
        .find(|path| is_libtorch_cpu(path))
        .and_then(|path| path.parent())
        .map(Path::to_path_buf);
    let Some(home) = home else {
        return Vec::new();
    };
    let own = super::own_object();
    objects.retain(|path| path.parent() != Some(&home) && Some(path) != own.as_ref());
    objects
}

fn imports(object: &Path, wanted: fn(&str) -> bool) -> bool {
    // Few objects need libtorch at all. Only their tables of symbols are read.
    let knows = elf::dynamic(object).is_some_and(|dynamic| {
        let words = ["torch", "c10", "graphpatch"];
        let names = |name: &String| words.iter().any(|word| name.contains(word));
        dynamic.needed.iter().any(names)
    });
    knows && elf::imports(object, wanted)
}

/// Whether this is a Python interpreter, or has one inside.
pub fn has_python() -> bool {
    // SAFETY: a look-up of a valid name in the objects of this process; the address is not used.
    !unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"Py_IsInitialized".as_ptr()) }.is_null()
}

/// The files of the executable and of all libraries.
fn objects() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::env::current_exe().into_iter().collect();
    graphpatch_objects::find(|object| {
        found.extend(object.file().map(Path::to_path_buf));
        ControlFlow::<()>::Continue(())
    });
    found
}

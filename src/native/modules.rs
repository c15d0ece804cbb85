//! The files that are loaded into this process, and which of them are not the user's.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use graphpatch_core::graph::CodeAddress;

use super::Stack;

struct Module {
    file: Arc<Path>,
    /// What was added to the file's own addresses.
    bias: u64,
    /// Beginnings and ends of what is mapped.
    ranges: Vec<(u64, u64)>,
    users: bool,
}

/// What is loaded at one moment.
pub struct Modules(Vec<Module>);

impl Modules {
    /// What is loaded now.
    pub fn now() -> Modules {
        let mut found: Vec<Module> = Vec::new();
        graphpatch_objects::find(|object| {
            found.push(Module {
                file: object.file().unwrap_or(Path::new("")).into(),
                bias: object.bias(),
                ranges: object.ranges().collect(),
                users: false,
            });
            ControlFlow::<()>::Continue(())
        });
        for module in &mut found {
            // The program itself has no name.
            if module.file.as_os_str().is_empty()
                && let Ok(program) = std::env::current_exe()
            {
                module.file = program.into();
            } else if module.file.is_relative()
                && let Ok(whole) = std::path::absolute(&module.file)
            {
                module.file = whole.into();
            }
            module.users = is_users(&module.file);
        }
        Modules(found)
    }

    /// The user's addresses on a stack, innermost last.
    pub fn addresses(&self, stack: &Stack) -> Vec<CodeAddress> {
        let locate = |address: &usize| {
            // The return address lies after the call, so the byte before it belongs to the call's own line.
            let address = (*address as u64).checked_sub(1)?;
            let module = self.0.iter().find(|module| module.holds(address))?;
            module.users.then(|| CodeAddress {
                file: module.file.clone(),
                address: address.wrapping_sub(module.bias),
            })
        };
        stack.0.iter().rev().filter_map(locate).collect()
    }
}

impl Module {
    fn holds(&self, address: u64) -> bool {
        let within = |range: &(u64, u64)| (range.0..range.1).contains(&address);
        self.ranges.iter().any(within)
    }
}

/// How the names of files begin that are not the user's: libtorch, this library and its adapters, system libraries that
/// these use, and the Python interpreter.
const OTHERS: &[&str] = &[
    "libtorch",
    "libc10",
    "libgraphpatch",
    "adapter-s",
    "libc.",
    "libc-",
    "libm.",
    "libpthread",
    "ld-linux",
    "libgcc_s",
    "libstdc++",
    "libc++",
    "libgomp",
    "libomp",
    "libiomp",
    "libmkl",
    "libffi",
    "_ctypes",
    "libpython",
    "python3",
    "linux-vdso",
];

fn is_users(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    !name.is_empty() && name != "python" && !OTHERS.iter().any(|other| name.starts_with(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_leads_into_this_program() {
        let program = std::env::current_exe().unwrap();
        let addresses = Modules::now().addresses(&Stack::here());
        assert!(addresses.len() > 2, "{addresses:?}");
        assert!(addresses.iter().all(|address| *address.file == *program));
        let nowhere = Stack(Box::new([0, 1, usize::MAX]));
        assert!(Modules::now().addresses(&nowhere).is_empty());
    }

    #[test]
    fn others_are_known_by_their_names() {
        for file in [
            "/a/libtorch_cpu.so",
            "/b/libc.so.6",
            "/usr/bin/python3.11",
            "[vdso]/",
        ] {
            let users = is_users(Path::new(file));
            assert_eq!(users, file == "[vdso]/", "{file}");
        }
        assert!(is_users(Path::new("/opt/libcats.so")) && is_users(Path::new("infer")));
        assert!(!is_users(Path::new("")));
    }
}

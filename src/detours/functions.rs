//! The member functions of an object, as its symbols tell of them.

use std::collections::HashMap;
use std::path::Path;

use object::{Object, ObjectSymbol, SymbolKind};

use crate::elf;

/// A function, as a symbol tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Mangled.
    pub symbol: String,
    /// In the file; what the object was loaded at comes on top.
    pub address: u64,
    pub size: u64,
}

/// The member functions of that name that the object itself defines, each address once. Copies that the compiler has made for
/// some callers take other arguments; they are left out. An object that cannot be read has none.
pub fn members(object: &Path, name: &str) -> Vec<Function> {
    let part = format!("{}{name}", name.len());
    let mut found = HashMap::new();
    elf::read(object, |file| {
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            let is_function = symbol.kind() == SymbolKind::Text && symbol.is_definition();
            if let Ok(name) = symbol.name()
                && is_function
                && may_be_member(name, &part)
            {
                found.entry(symbol.address()).or_insert_with(|| Function {
                    symbol: name.to_owned(),
                    address: symbol.address(),
                    size: symbol.size(),
                });
            }
        }
    });
    let mut found: Vec<Function> = found.into_values().collect();
    found.sort_by_key(|function| function.address);
    found
}

/// Whether the mangled name may be one of a member function, in whose name this is a part. What is local to such a function begins
/// with `_ZZ`.
fn may_be_member(symbol: &str, part: &str) -> bool {
    symbol.starts_with("_ZN") && !symbol.contains('.') && symbol.contains(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_members() {
        let may_be = |symbol| may_be_member(symbol, "7forward");
        assert!(may_be("_ZN3Net7forwardEi"));
        assert!(may_be("_ZNK3Net7forwardEi"));
        assert!(!may_be("_ZN3Net7forwardEi.cold"));
        assert!(!may_be("_ZZN3Net7forwardEiENKUlvE_clEv"));
        assert!(!may_be("_ZN3Net6encodeEi"));
    }

    #[test]
    fn what_is_no_object_has_none() {
        assert_eq!(members(Path::new("/proc/self/cmdline"), "forward"), []);
        assert_eq!(members(Path::new("/does/not/exist"), "forward"), []);
    }
}

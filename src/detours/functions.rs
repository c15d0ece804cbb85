//! The functions of an object whose symbols say that they are named `forward`.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use object::read::ReadCache;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSymbol, SymbolKind};

/// A function, as a symbol tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Mangled.
    pub symbol: String,
    /// In the file; what the object was loaded at comes on top.
    pub address: u64,
    pub size: u64,
}

/// The member functions named `forward` that the object itself defines, each address once. Copies that the compiler has made for
/// some callers take other arguments; they are left out. An object that cannot be read has none.
pub fn forwards(object: &Path) -> Vec<Function> {
    let Ok(file) = File::open(object) else {
        return Vec::new();
    };
    let cache = ReadCache::new(file);
    let Ok(file) = ElfFile64::<Endianness, _>::parse(&cache) else {
        return Vec::new();
    };
    let mut found = HashMap::new();
    for symbol in file.symbols().chain(file.dynamic_symbols()) {
        let is_function = symbol.kind() == SymbolKind::Text && symbol.is_definition();
        if let Ok(name) = symbol.name()
            && is_function
            && is_forward(name)
        {
            found.entry(symbol.address()).or_insert_with(|| Function {
                symbol: name.to_owned(),
                address: symbol.address(),
                size: symbol.size(),
            });
        }
    }
    let mut found: Vec<Function> = found.into_values().collect();
    found.sort_by_key(|function| function.address);
    found
}

/// Whether the mangled name may be one of a member function `forward`. What is local to such a function begins with `_ZZ`.
fn is_forward(symbol: &str) -> bool {
    symbol.starts_with("_ZN") && !symbol.contains('.') && symbol.contains("7forward")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_named_forward() {
        assert!(is_forward("_ZN7GptImpl7forwardEN2at6TensorE"));
        assert!(is_forward("_ZNK7GptImpl7forwardEN2at6TensorE"));
        assert!(!is_forward("_ZN7GptImpl7forwardEN2at6TensorE.cold"));
        assert!(!is_forward("_ZZN7GptImpl7forwardEN2at6TensorEENKUlvE_clEv"));
        assert!(!is_forward("_ZN7GptImpl6encodeEN2at6TensorE"));
    }

    #[test]
    fn what_is_no_object_has_none() {
        assert_eq!(forwards(Path::new("/proc/self/cmdline")), []);
        assert_eq!(forwards(Path::new("/does/not/exist")), []);
    }
}

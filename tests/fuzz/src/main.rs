//! The fuzz target of the readers. The environment variable `READER` says by its name in `loaders::NAMES` which one this process
//! feeds: a slow reader then holds no other one back, and each has a corpus of its own.
#![no_main]

mod loaders;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static READER: LazyLock<fn(&[u8]) -> bool> = LazyLock::new(|| {
    let name = std::env::var("READER").unwrap_or_default();
    let found = loaders::NAMES.iter().position(|known| *known == name);
    let at = found.unwrap_or_else(|| panic!("READER={name:?} is none of {:?}", loaders::NAMES));
    loaders::READERS[at]
});

fuzz_target!(|input: &[u8]| {
    READER(input);
});

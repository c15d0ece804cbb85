//! The fuzz target: the first byte says which reader gets the rest.
#![no_main]

mod loaders;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some((which, bytes)) = input.split_first() {
        loaders::READERS[usize::from(*which) % loaders::READERS.len()](bytes);
    }
});

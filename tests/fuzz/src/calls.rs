//! The fuzz target of the C ABI: the input is a sequence of calls.
#![no_main]

mod objects;
mod sequence;

use graphpatch::ffi;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| sequence::run(input));

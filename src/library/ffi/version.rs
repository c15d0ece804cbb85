//! Which library this is.

use std::ffi::c_char;

/// The library's version, such as "0.1.0": what GRAPHPATCH_VERSION says of the header. Static text.
///
/// Thread: any. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The number of the library's ABI: what GRAPHPATCH_ABI_VERSION says of the header, and the number of the SONAME. A
/// program runs with every library of the ABI that it was made for and of its header's version or a later one. Those
/// that open the library by its file name should compare the two.
///
/// Thread: any. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn gp_abi_version() -> u32 {
    #[allow(clippy::panic)] // while compiling
    const NUMBER: u32 = match u32::from_str_radix(env!("GRAPHPATCH_ABI"), 10) {
        Ok(number) => number,
        Err(_) => panic!("build.rs gives a number"),
    };
    NUMBER
}

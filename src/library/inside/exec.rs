//! A process that becomes another program runs no exit handlers, so its report is written before. A child of `vfork`
//! shares its parent's memory: there the hooks only call the real function.

use std::ffi::{c_char, c_int};

use super::reports;
use super::table;

type List = *const *const c_char;

macro_rules! report_then_call {
    ($name:ident($($argument:ident: $kind:ty),*), $real:ident) => {
        /// # Safety
        /// As the C function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> c_int {
            let _ = std::panic::catch_unwind(reports::report_before_exec);
            let real = table::$real.get();
            if real.is_null() {
                // SAFETY: errno is this thread's own.
                unsafe { *libc::__errno_location() = libc::ENOSYS };
                return -1;
            }
            // SAFETY: the address is that of libc's function, which has this signature; the arguments are the caller's.
            unsafe {
                let real = std::mem::transmute::<
                    *mut std::ffi::c_void,
                    unsafe extern "C" fn($($kind),*) -> c_int,
                >(real);
                real($($argument),*)
            }
        }
    };
}

report_then_call!(execv(path: *const c_char, arguments: List), EXECV);
report_then_call!(execvp(file: *const c_char, arguments: List), EXECVP);
report_then_call!(
    execve(path: *const c_char, arguments: List, environment: List),
    EXECVE
);
report_then_call!(
    execvpe(file: *const c_char, arguments: List, environment: List),
    EXECVPE
);

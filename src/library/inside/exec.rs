//! A process that becomes another program by `exec` runs no exit handlers, so its report is written before. In a child of
//! `vfork`, which shares its parent's memory, the hooks write no report. Each hook looks whether the new program's
//! environment preloads the library; the command is told of programs that lose it.

use std::ffi::{c_char, c_int, c_void};

use super::lost::{self, List};
use super::reports;
use super::table;

macro_rules! report_then_call {
    ($name:ident($($argument:ident: $kind:ty),*), $real:ident, $path:ident, $environment:expr) => {
        /// # Safety
        /// As the C function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> c_int {
            let _ = std::panic::catch_unwind(reports::report_before_exec);
            // SAFETY: what the caller gives the C library.
            unsafe { lost::look_before_start($path, $environment) };
            let real = table::$real.get();
            if real.is_null() {
                // SAFETY: errno is this thread's own.
                unsafe { *libc::__errno_location() = libc::ENOSYS };
                return -1;
            }
            // SAFETY: the address is that of libc's function, which has this signature; the arguments are the caller's.
            unsafe {
                let real = std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn($($kind),*) -> c_int,
                >(real);
                real($($argument),*)
            }
        }
    };
}

report_then_call!(execv(path: *const c_char, arguments: List), EXECV, path, None);
report_then_call!(execvp(file: *const c_char, arguments: List), EXECVP, file, None);
report_then_call!(
    execve(path: *const c_char, arguments: List, environment: List),
    EXECVE,
    path,
    Some(environment)
);
report_then_call!(
    execvpe(file: *const c_char, arguments: List, environment: List),
    EXECVPE,
    file,
    Some(environment)
);

macro_rules! look_then_call {
    ($name:ident, $real:ident) => {
        /// # Safety
        /// As the C function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            pid: *mut libc::pid_t,
            path: *const c_char,
            actions: *const c_void,
            attributes: *const c_void,
            arguments: List,
            environment: List,
        ) -> c_int {
            // SAFETY: what the caller gives the C library.
            unsafe { lost::look_before_start(path, Some(environment)) };
            let real = table::$real.get();
            if real.is_null() {
                return libc::ENOSYS;
            }
            // SAFETY: the address is that of libc's function, which has this signature; the arguments are the caller's.
            unsafe {
                std::mem::transmute::<*mut c_void, Spawn>(real)(
                    pid,
                    path,
                    actions,
                    attributes,
                    arguments,
                    environment,
                )
            }
        }
    };
}

type Spawn = unsafe extern "C" fn(
    *mut libc::pid_t,
    *const c_char,
    *const c_void,
    *const c_void,
    List,
    List,
) -> c_int;

look_then_call!(posix_spawn, SPAWN);
look_then_call!(posix_spawnp, SPAWNP);

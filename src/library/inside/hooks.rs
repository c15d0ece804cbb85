//! The C symbols of a preloaded process that stand before libc's own.
//!
//! * `__libc_start_main` wraps `main`: the options are read when every constructor has run.
//! * `dlopen`, `dlsym` look whether libtorch was loaded, **before** the real function runs, and then jump to it. glibc
//!   resolves `$ORIGIN`, RUNPATH and `RTLD_NEXT` by the caller's return address, so our frame must be gone by then. A
//!   library that a `dlopen` loads is therefore seen at the next `dlopen` or `dlsym`; as a rule the program looks up a
//!   function of it by `dlsym`.
//! * `_exit`, `_Exit`, `abort` write the report first. `exit` and `quick_exit` need no hook: they run the handlers that
//!   `reports` has registered.
//!
//! While a `dlopen` is under way its libraries are mapped but not initialised, and their constructors may call `dlsym`.
//! Since our hook jumps to the real `dlopen`, it does not notice when that returns. So `OPENING` keeps where the outermost
//! `dlopen` of the thread was called from. A `dlopen` on another thread needs no such care: loading the adapter waits for
//! the dynamic linker's lock.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use super::attach;
use super::process;
use super::real::Real;
use super::sudden_end::{Ending, report_before};
use super::table;

type Main = unsafe extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) -> c_int;
type StartMain = unsafe extern "C" fn(
    Main,
    c_int,
    *mut *mut c_char,
    Option<unsafe extern "C" fn()>,
    Option<unsafe extern "C" fn()>,
    Option<unsafe extern "C" fn()>,
    *mut c_void,
) -> c_int;

/// Calls `before(stack, return address)` with the argument registers saved and jumps to the address that it answers.
macro_rules! look_then_jump {
    ($before:ident) => {{
        #[cfg(target_arch = "x86_64")]
        core::arch::naked_asm!(
            ".cfi_startproc",
            "endbr64",
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "lea rdi, [rsp + 24]",
            "mov rsi, [rsp + 24]",
            "call {before}",
            "add rsp, 8",
            ".cfi_adjust_cfa_offset -8",
            "pop rsi",
            ".cfi_adjust_cfa_offset -8",
            "pop rdi",
            ".cfi_adjust_cfa_offset -8",
            "jmp rax",
            ".cfi_endproc",
            before = sym $before,
        );
        #[cfg(target_arch = "aarch64")]
        core::arch::naked_asm!(
            ".cfi_startproc",
            "stp x29, x30, [sp, #-32]!",
            ".cfi_def_cfa_offset 32",
            ".cfi_offset x29, -32",
            ".cfi_offset x30, -24",
            "mov x29, sp",
            "stp x0, x1, [sp, #16]",
            "add x0, sp, #32",
            "mov x1, x30",
            "bl {before}",
            "mov x16, x0",
            "ldp x0, x1, [sp, #16]",
            "ldp x29, x30, [sp], #32",
            ".cfi_restore x29",
            ".cfi_restore x30",
            ".cfi_def_cfa_offset 0",
            "br x16",
            ".cfi_endproc",
            before = sym $before,
        );
    }};
}

static PROGRAM_MAIN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// # Safety
/// Called by the program's `_start` alone, with what the C library's start expects.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_start_main(
    main: Main,
    argc: c_int,
    argv: *mut *mut c_char,
    init: Option<unsafe extern "C" fn()>,
    fini: Option<unsafe extern "C" fn()>,
    rtld_fini: Option<unsafe extern "C" fn()>,
    stack_end: *mut c_void,
) -> c_int {
    let real = table::START.get();
    if real.is_null() {
        const MESSAGE: &[u8] =
            b"graphpatch: the C library has no __libc_start_main behind libgraphpatch's\n";
        // SAFETY: async-signal-safe calls; without the C library's start nothing can run.
        unsafe {
            libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::syscall(libc::SYS_exit_group, 127 as libc::c_long);
        }
    }
    PROGRAM_MAIN.store(main as *mut c_void, Ordering::Release);
    // SAFETY: the address is that of libc's function, which has this signature; the arguments are its own.
    unsafe {
        let real = std::mem::transmute::<*mut c_void, StartMain>(real);
        real(before_main, argc, argv, init, fini, rtld_fini, stack_end)
    }
}

unsafe extern "C" fn before_main(
    argc: c_int,
    argv: *mut *mut c_char,
    environment: *mut *mut c_char,
) -> c_int {
    let _ = std::panic::catch_unwind(attach::open);
    let main = PROGRAM_MAIN.load(Ordering::Acquire);
    // SAFETY: stored by `__libc_start_main` above, before it let the C library call us; never null.
    unsafe { std::mem::transmute::<*mut c_void, Main>(main)(argc, argv, environment) }
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void {
    look_then_jump!(before_dlopen)
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    look_then_jump!(before_dlsym)
}

/// Where one of our hooks was called from: the stack pointer there, and the return address.
#[derive(Clone, Copy)]
struct Caller {
    stack: usize,
    back: usize,
}

extern "C" fn before_dlopen(stack: usize, back: usize) -> *mut c_void {
    if process::is_waiting() {
        look(Caller { stack, back }, true);
    }
    or_null_function(table::DLOPEN.get())
}

extern "C" fn before_dlsym(stack: usize, back: usize) -> *mut c_void {
    if process::is_waiting() {
        look(Caller { stack, back }, false);
    }
    or_null_function(table::DLSYM.get())
}

/// The jump of a hook needs a target, also where the C library does not have the function.
fn or_null_function(real: *mut c_void) -> *mut c_void {
    extern "C" fn null() -> *mut c_void {
        std::ptr::null_mut()
    }
    if real.is_null() {
        null as extern "C" fn() -> *mut c_void as *mut c_void
    } else {
        real
    }
}

thread_local! {
    /// The outermost `dlopen` of this thread that may not have returned yet. The cells have no destructor and need no
    /// initialisation at run time, so a hook may use them at any moment of the thread's life.
    static OPENING: Cell<Option<Caller>> = const { Cell::new(None) };
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}

/// How many objects the dynamic linker had ever added when we last looked.
static ADDED: AtomicU64 = AtomicU64::new(0);
/// libtorch is mapped, but was still being opened when we saw it.
static COMING: AtomicBool = AtomicBool::new(false);

fn look(caller: Caller, opens: bool) {
    if LOOKING.replace(true) {
        return;
    }
    // SAFETY: errno is this thread's own; the caller must find it as it was.
    let errno = unsafe { *libc::__errno_location() };
    let under_way = OPENING
        .get()
        .is_some_and(|outermost| may_be_inside(outermost, caller));
    if !under_way {
        OPENING.set(opens.then_some(caller));
    }
    let added = objects_added();
    if ADDED.swap(added, Ordering::AcqRel) != added && graphpatch_loader::loaded_path().is_some() {
        COMING.store(true, Ordering::Release);
    }
    if COMING.load(Ordering::Acquire) && !under_way {
        let _ = std::panic::catch_unwind(attach::attach_if_loaded);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    LOOKING.set(false);
}

/// Whether `now` may be a call from within the `dlopen` called at `outermost`. It is not when the stack has been unwound
/// to that point, or when the return address that the `dlopen` needs is no longer where it was.
fn may_be_inside(outermost: Caller, now: Caller) -> bool {
    if now.stack >= outermost.stack {
        return false;
    }
    !cfg!(target_arch = "x86_64")
        || read_word(outermost.stack).is_none_or(|word| word == outermost.back)
}

/// Reads a word of this process that may not be mapped any more (a coroutine's stack).
fn read_word(address: usize) -> Option<usize> {
    let mut word = 0_usize;
    let local = libc::iovec {
        iov_base: (&raw mut word).cast(),
        iov_len: size_of::<usize>(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut c_void,
        iov_len: size_of::<usize>(),
    };
    // SAFETY: the local vector is one writable word; the kernel checks the remote one.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    (read == size_of::<usize>() as isize).then_some(word)
}

/// The dynamic linker's count of objects ever added.
fn objects_added() -> u64 {
    graphpatch_objects::find(|object| ControlFlow::Break(object.ever_added())).unwrap_or_default()
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _exit(code: c_int) -> ! {
    end_with(code, &table::EXIT)
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Exit(code: c_int) -> ! {
    end_with(code, &table::EXIT_C99)
}

fn end_with(code: c_int, real: &Real) -> ! {
    report_before(Ending::Exit(code));
    // `attach::open` has looked it up already, so in a signal handler this only loads an address.
    let real = real.get();
    if !real.is_null() {
        // SAFETY: the address is that of libc's function, which has this signature.
        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int)>(real)(code) };
    }
    loop {
        // SAFETY: the plain system call.
        unsafe { libc::syscall(libc::SYS_exit_group, libc::c_long::from(code)) };
    }
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn abort() -> ! {
    report_before(Ending::Abort);
    let real = table::ABORT.get();
    if !real.is_null() {
        // SAFETY: the address is that of libc's function, which has this signature.
        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(real)() };
    }
    loop {
        // SAFETY: async-signal-safe calls: what abort does, without its locks.
        unsafe {
            libc::signal(libc::SIGABRT, libc::SIG_DFL);
            libc::raise(libc::SIGABRT);
            libc::syscall(libc::SYS_exit_group, 127 as libc::c_long);
        }
    }
}

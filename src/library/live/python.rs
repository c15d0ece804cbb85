//! Lets the library see calls of modules in a Python program that runs already: a thread of ours takes Python's lock and runs
//! a file of ours there, in variables of its own.
//!
//! Python ends a thread by `pthread_exit` if it asks for the lock when Python itself is finished, be it in the middle of our
//! file. This unwinds the stack to the thread's beginning, so all frames below a call of Python's hold plain values only, and what
//! they need lies in a [`Job`].

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use crate::python::find_symbol;
use graphpatch_loader::trust::Folder;

use super::quiet;

/// How long an `import torch` that is under way is waited for, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE_NS: libc::c_long = 20_000_000;
/// What Python's grammar calls a whole file.
const FILE_INPUT: c_int = 257;
/// Our file is smaller than this.
const LONGEST: u64 = 1 << 20;
/// The most bytes of the result's text that are kept.
const MOST_SAID: usize = 1000;

const END: &CStr = c"\
import sys
_outermost = sys.modules.get('libgraphpatch._outermost')
if _outermost is not None:
    _outermost.uninstall()
";

type Object = *mut c_void;

macro_rules! interpreter {
    ($($field:ident = $symbol:literal: ($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions of CPython that are needed, all of its stable ABI.
        #[derive(Clone, Copy)]
        struct Interpreter {
            $($field: unsafe extern "C-unwind" fn($($argument),*) -> $result,)*
        }

        impl Interpreter {
            fn find() -> Option<Interpreter> {
                let found = Interpreter {
                    $($field: {
                        let symbol = find_symbol($symbol)?;
                        // SAFETY: CPython declares the function with this signature since 3.2.
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C-unwind" fn($($argument),*) -> $result>(symbol)
                        }
                    },)*
                };
                // SAFETY: this one may be called at any time.
                (unsafe { (found.is_initialized)() } != 0).then_some(found)
            }
        }
    };
}

interpreter! {
    is_initialized = c"Py_IsInitialized": () -> c_int;
    ensure = c"PyGILState_Ensure": () -> c_int;
    release = c"PyGILState_Release": (c_int) -> ();
    compile = c"Py_CompileString": (*const c_char, *const c_char, c_int) -> Object;
    evaluate = c"PyEval_EvalCode": (Object, Object, Object) -> Object;
    builtins = c"PyEval_GetBuiltins": () -> Object;
    text = c"PyUnicode_FromString": (*const c_char) -> Object;
    chars = c"PyUnicode_AsUTF8AndSize": (Object, *mut isize) -> *const c_char;
    new_dict = c"PyDict_New": () -> Object;
    set = c"PyDict_SetItemString": (Object, *const c_char, Object) -> c_int;
    get = c"PyDict_GetItemString": (Object, *const c_char) -> Object;
    decrease = c"Py_DecRef": (Object) -> ();
    clear = c"PyErr_Clear": () -> ();
}

/// The code to be run, and its result.
struct Job {
    python: Interpreter,
    code: CString,
    place: CString,
    library: CString,
    sockets: CString,
    until: Instant,
    said: [u8; MOST_SAID],
    length: usize,
    then: Box<dyn FnOnce(Option<String>) + Send>,
}

/// Runs the file on a thread of its own, and then `then`, with the reason why calls of modules are not seen. A program without
/// Python has none to see. `then` does not come if Python is finished first.
pub fn begin(
    file: &Path,
    library: &Path,
    sockets: &Path,
    then: impl FnOnce(Option<String>) + Send + 'static,
) {
    let Some(python) = Interpreter::find() else {
        return then(None);
    };
    let text = |text: &[u8]| CString::new(text).map_err(|_| "our file has a zero in it".to_owned());
    let made = || {
        Ok::<_, String>((
            text(&read(file)?)?,
            text(file.as_os_str().as_encoded_bytes())?,
            text(library.as_os_str().as_encoded_bytes())?,
            text(sockets.as_os_str().as_encoded_bytes())?,
        ))
    };
    match made() {
        Ok((code, place, library, sockets)) => spawn(Job {
            python,
            code,
            place,
            library,
            sockets,
            until: Instant::now() + PATIENCE,
            said: [0; MOST_SAID],
            length: 0,
            then: Box::new(then),
        }),
        Err(why) => then(Some(why)),
    }
}

/// Has modules called as they were before [`begin`], soon. Does nothing where there was none. If it fails, each call of a module goes
/// on to cost a test.
pub fn end() {
    if let Some(python) = Interpreter::find() {
        spawn(Job {
            python,
            code: END.to_owned(),
            place: c"libgraphpatch".to_owned(),
            library: CString::default(),
            sockets: CString::default(),
            until: Instant::now(),
            said: [0; MOST_SAID],
            length: 0,
            then: Box::new(|_| ()),
        });
    }
}

fn spawn(job: Job) {
    let job = Box::into_raw(Box::new(job));
    if !quiet::spawn_that_may_exit(start, job.cast()) {
        // SAFETY: made above; no thread has taken it.
        let job = unsafe { Box::from_raw(job) };
        (job.then)(Some("there can be no further thread".into()));
    }
}

extern "C-unwind" fn start(job: *mut c_void) -> *mut c_void {
    let job = job.cast::<Job>();
    // SAFETY: made by `spawn` for this thread alone.
    unsafe { run(&mut *job) };
    let finish = || {
        // SAFETY: as above; the borrow has ended.
        let job = unsafe { Box::from_raw(job) };
        let said = String::from_utf8_lossy(&job.said[..job.length]).into_owned();
        (job.then)((!said.is_empty()).then_some(said));
    };
    let _ = catch_unwind(AssertUnwindSafe(finish));
    null_mut()
}

/// Runs the code until it says something other than `later`.
///
/// # Safety
///
/// The interpreter's functions are those of this process.
unsafe fn run(job: &mut Job) {
    loop {
        // SAFETY: the interpreter is initialized; this thread holds its lock until the release.
        unsafe {
            let state = (job.python.ensure)();
            run_locked(job);
            (job.python.clear)();
            (job.python.release)(state);
        }
        if &job.said[..job.length] != b"later" {
            return;
        }
        if Instant::now() >= job.until {
            return job.say(b"torch is still being imported");
        }
        let pause = libc::timespec {
            tv_sec: 0,
            tv_nsec: PAUSE_NS,
        };
        // SAFETY: the time is a local, and nobody asks for what is left.
        unsafe { libc::nanosleep(&raw const pause, null_mut()) };
    }
}

/// # Safety
///
/// This thread holds the interpreter's lock. Each object that is made here is released here, and NULL is checked before use.
unsafe fn run_locked(job: &mut Job) {
    job.say(b"Python refused to run our file");
    let python = job.python;
    // SAFETY: as the caller's; all texts end with a zero and stay.
    unsafe {
        let variables = (python.new_dict)();
        if variables.is_null() {
            return;
        }
        (python.set)(variables, c"__builtins__".as_ptr(), (python.builtins)());
        for (name, value) in [
            (c"__file__", &job.place),
            (c"library", &job.library),
            (c"sockets", &job.sockets),
        ] {
            let value = (python.text)(value.as_ptr());
            if !value.is_null() {
                (python.set)(variables, name.as_ptr(), value);
                (python.decrease)(value);
            }
        }
        let compiled = (python.compile)(job.code.as_ptr(), job.place.as_ptr(), FILE_INPUT);
        if !compiled.is_null() {
            let result = (python.evaluate)(compiled, variables, variables);
            (python.decrease)(compiled);
            if !result.is_null() {
                (python.decrease)(result);
                keep_said(job, variables);
            }
        }
        (python.decrease)(variables);
    }
}

/// Copies the text that the code has left in `said`.
///
/// # Safety
///
/// As [`run_locked`]; `variables` is a dict.
unsafe fn keep_said(job: &mut Job, variables: Object) {
    job.length = 0;
    // SAFETY: as the caller's; the dict holds the text while it is copied.
    unsafe {
        let value = (job.python.get)(variables, c"said".as_ptr());
        if value.is_null() {
            return;
        }
        let mut length = 0;
        let chars = (job.python.chars)(value, &raw mut length);
        if !chars.is_null() {
            job.say(std::slice::from_raw_parts(
                chars.cast::<u8>(),
                length as usize,
            ));
        }
    }
}

impl Job {
    fn say(&mut self, text: &[u8]) {
        self.length = text.len().min(MOST_SAID);
        self.said[..self.length].copy_from_slice(&text[..self.length]);
    }
}

/// The file, if nobody else can have written it.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err("the file for Python has no folder".into());
    };
    let open = Folder::open(folder).and_then(|folder| folder.look_at(name));
    let open = open.map_err(|why| format!("{} {}", file.display(), why.why()))?;
    let mut code = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(open, LONGEST), &mut code)
        .map_err(|why| format!("{}: {why}", file.display()))?;
    Ok(code)
}

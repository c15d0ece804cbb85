//! Has calls of modules known in a Python program that runs already: a thread of ours takes Python's lock and runs a file of
//! ours there, in variables of its own.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::time::{Duration, Instant};

use graphpatch_loader::trust::Folder;

/// How long an `import torch` that is under way is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// What Python's grammar calls a whole file.
const FILE_INPUT: c_int = 257;
/// The file is larger than this only if it is not ours.
const LONGEST: u64 = 1 << 20;

type Object = *mut c_void;

/// The functions of CPython that are needed, all of its stable ABI.
struct Interpreter {
    is_initialized: unsafe extern "C" fn() -> c_int,
    ensure: unsafe extern "C" fn() -> c_int,
    release: unsafe extern "C" fn(c_int),
    compile: unsafe extern "C" fn(*const c_char, *const c_char, c_int) -> Object,
    evaluate: unsafe extern "C" fn(Object, Object, Object) -> Object,
    builtins: unsafe extern "C" fn() -> Object,
    text: unsafe extern "C" fn(*const c_char) -> Object,
    chars: unsafe extern "C" fn(Object, *mut isize) -> *const c_char,
    new_dict: unsafe extern "C" fn() -> Object,
    set: unsafe extern "C" fn(Object, *const c_char, Object) -> c_int,
    get: unsafe extern "C" fn(Object, *const c_char) -> Object,
    decrease: unsafe extern "C" fn(Object),
    clear: unsafe extern "C" fn(),
}

/// Runs the file to its end. An error says why calls of modules are not seen.
pub fn begin(file: &Path, library: &Path) -> Result<(), String> {
    let Some(python) = Interpreter::find() else {
        return Ok(());
    };
    let code = read(file)?;
    let place = file.to_string_lossy();
    let library = library.to_string_lossy();
    let end = Instant::now() + PATIENCE;
    loop {
        let said = python.run(
            &code,
            &place,
            &[("__file__", &place), ("library", &library)],
        )?;
        match said.as_str() {
            "" => return Ok(()),
            "later" if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            "later" => return Err("torch is still being imported".into()),
            why => return Err(why.into()),
        }
    }
}

/// Has modules called as they were before [`begin`]. Does nothing where there was none.
pub fn end() {
    const CODE: &str = "\
import sys
_outermost = sys.modules.get('libgraphpatch._outermost')
if _outermost is not None:
    _outermost.uninstall()
";
    if let Some(python) = Interpreter::find() {
        // It was of use as long as it was there; what failed here costs one test for each call of a module.
        let _ = python.run(CODE.as_bytes(), "libgraphpatch", &[]);
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

impl Interpreter {
    fn find() -> Option<Interpreter> {
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: CPython declares the function with the signature of its field since 3.2.
                unsafe { std::mem::transmute(find($name)?) }
            };
        }
        let found = Interpreter {
            is_initialized: function!(c"Py_IsInitialized"),
            ensure: function!(c"PyGILState_Ensure"),
            release: function!(c"PyGILState_Release"),
            compile: function!(c"Py_CompileString"),
            evaluate: function!(c"PyEval_EvalCode"),
            builtins: function!(c"PyEval_GetBuiltins"),
            text: function!(c"PyUnicode_FromString"),
            chars: function!(c"PyUnicode_AsUTF8AndSize"),
            new_dict: function!(c"PyDict_New"),
            set: function!(c"PyDict_SetItemString"),
            get: function!(c"PyDict_GetItemString"),
            decrease: function!(c"Py_DecRef"),
            clear: function!(c"PyErr_Clear"),
        };
        // SAFETY: this one may be called at any time.
        (unsafe { (found.is_initialized)() } != 0).then_some(found)
    }

    /// Runs code with these variables, and returns the text that it leaves in `said`.
    fn run(&self, code: &[u8], place: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let zero =
            |text: &[u8]| CString::new(text).map_err(|_| "a path has a zero in it".to_owned());
        let (code, place) = (zero(code)?, zero(place.as_bytes())?);
        let mut named = Vec::new();
        for (name, value) in variables {
            named.push((zero(name.as_bytes())?, zero(value.as_bytes())?));
        }
        // SAFETY: the interpreter is initialized; this thread holds its lock until the release. All texts end with a zero;
        // each object that is made here is released here, and NULL is checked before use.
        unsafe {
            let state = (self.ensure)();
            let said = self.run_locked(&code, &place, &named);
            (self.clear)();
            (self.release)(state);
            said
        }
    }

    /// # Safety
    ///
    /// This thread holds the interpreter's lock.
    unsafe fn run_locked(
        &self,
        code: &CStr,
        place: &CStr,
        named: &[(CString, CString)],
    ) -> Result<String, String> {
        let failed = || "Python refused to run our file".to_owned();
        // SAFETY: as the caller's.
        unsafe {
            let variables = (self.new_dict)();
            if variables.is_null() {
                return Err(failed());
            }
            (self.set)(variables, c"__builtins__".as_ptr(), (self.builtins)());
            for (name, value) in named {
                let value = (self.text)(value.as_ptr());
                if !value.is_null() {
                    (self.set)(variables, name.as_ptr(), value);
                    (self.decrease)(value);
                }
            }
            let compiled = (self.compile)(code.as_ptr(), place.as_ptr(), FILE_INPUT);
            let mut said = Err(failed());
            if !compiled.is_null() {
                let result = (self.evaluate)(compiled, variables, variables);
                (self.decrease)(compiled);
                if !result.is_null() {
                    (self.decrease)(result);
                    said = Ok(self.text_in(variables, c"said"));
                }
            }
            (self.decrease)(variables);
            said
        }
    }

    /// # Safety
    ///
    /// As [`Self::run_locked`]; `variables` is a dict.
    unsafe fn text_in(&self, variables: Object, name: &CStr) -> String {
        // SAFETY: as the caller's; the dict holds the text while it is copied.
        unsafe {
            let value = (self.get)(variables, name.as_ptr());
            if value.is_null() {
                return String::new();
            }
            let mut length = 0;
            let chars = (self.chars)(value, &raw mut length);
            if chars.is_null() {
                return String::new();
            }
            let bytes = std::slice::from_raw_parts(chars.cast::<u8>(), length as usize);
            String::from_utf8_lossy(bytes).into_owned()
        }
    }
}

fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a look-up in the process's global scope.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

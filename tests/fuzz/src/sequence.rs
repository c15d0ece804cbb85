//! Makes a sequence of calls of the C ABI that the bytes of an input choose. Objects are used after they were freed, freed
//! twice, passed as another type, made up, and used by two threads at once. Used by fuzzing and by the library's tests.
//!
//! The state of each pointer is known here, so each result is checked: a call with a wrong object must be refused, and a call
//! with valid objects must not be refused because of them. While two threads call, only internal errors are failures.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::File;
use std::io::Write;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::ptr::{null, null_mut};
use std::sync::LazyLock;

use super::ffi::status::Status;
use super::ffi::{
    aside, call, compiled, cuda, dlpack, function, graphs, guard, host_values, kept, module, nodes,
    patch, register, run, session, source, spec, string, text, value,
};
use super::objects::{Bytes, Objects, Type, Worth};

/// Makes the calls. The first byte of the input decides whether two threads share them.
pub fn run(input: &[u8]) {
    let shared = input.first().is_some_and(|first| first % 8 == 7);
    let mut caller = Caller::new(!shared);
    if shared {
        let (first, second) = input.split_at(input.len() / 2);
        caller.run(&first[..first.len().min(40)]);
        let mut other = caller.clone();
        std::thread::scope(|scope| {
            scope.spawn(|| other.run(second));
            caller.run(first);
        });
        other.end();
    } else {
        caller.run(input);
    }
    caller.end();
}

/// Texts of every kind that calls take, right and wrong ones.
static TEXTS: [&CStr; 18] = [
    c"linear.output",
    c"x",
    c"",
    c"a..b",
    c"root:a.b|sub_1",
    c"[0]",
    c"[..., ::2]",
    c"[1",
    c"x=zero",
    c"x[0]=add:1",
    c"x=probe",
    c"x=record:2",
    c"2..4",
    c"**",
    c"(2;TN",
    c"{1;3:keyF0.5;",
    c"\xff",
    c"*,768",
];

/// A file with a saved graph, which has no name of its own.
static GRAPH: LazyLock<(File, CString)> = LazyLock::new(|| {
    let mut file = tempfile::tempfile().expect("a place for files");
    file.write_all(include_bytes!("../seeds/graph-tuple.json"))
        .expect("room for it");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    (file, CString::new(path).expect("a path has no NUL"))
});

/// A folder that is not there.
const NOWHERE: &CStr = c"/nowhere/at/all";

#[derive(Clone)]
struct Caller {
    objects: Objects,
    /// Numbers of patches and sets.
    numbers: Vec<u64>,
    /// Whether no other thread uses the objects.
    alone: bool,
}

/// The text that a byte of the input chooses; one of the choices is NULL.
fn any_text(bytes: &mut Bytes) -> *const c_char {
    let byte = bytes.next() as usize;
    TEXTS
        .get(byte % (TEXTS.len() + 1))
        .map_or(null(), |text| text.as_ptr())
}

impl Caller {
    fn new(alone: bool) -> Caller {
        let mut caller = Caller {
            objects: Objects::default(),
            numbers: vec![0],
            alone,
        };
        // One object of most types to begin with. Graphs are costly, so they are made only if the input asks for them.
        for kind in [0, 2, 3, 4, 5] {
            caller.make(kind, &mut Bytes(&[]));
        }
        caller
    }

    fn run(&mut self, input: &[u8]) {
        let mut bytes = Bytes(input);
        while !bytes.0.is_empty() {
            let which = bytes.next();
            match which % 10 {
                0 => self.make(which / 10, &mut bytes),
                1 => self.free(which / 10, &mut bytes),
                2 => self.session(which / 10, &mut bytes),
                3 => self.patch(which / 10, &mut bytes),
                4 => self.graphs(which / 10, &mut bytes),
                5 => self.nodes(which / 10, &mut bytes),
                6 | 7 => self.spec(which / 10, &mut bytes),
                8 => self.runs(which / 10, &mut bytes),
                _ => self.texts(which / 10, &mut bytes),
            }
        }
    }

    /// Checks the status that a call returned.
    fn judge(&mut self, status: Status) {
        assert_ne!(status, Status::Internal, "{:?}", last_error());
        let worth = self.objects.judged();
        if !self.alone {
            return;
        }
        if worth == Worth::Wrong {
            assert_ne!(status, Status::Ok, "a wrong object was taken");
        }
        // Only these two statuses have fixed messages: other refusals quote the input.
        if worth == Worth::Right && matches!(status, Status::Argument | Status::State) {
            let why = last_error().to_string_lossy();
            for words in [
                "that was freed",
                "of this library",
                ", no gp_",
                "another call",
            ] {
                assert!(!why.contains(words), "a right object was refused: {why}");
            }
        }
    }

    fn number(&self, bytes: &mut Bytes) -> u64 {
        self.numbers[bytes.next() as usize % self.numbers.len()]
    }

    fn keep_text(&mut self, out: *mut c_char, status: Status) {
        self.judge(status);
        if status == Status::Ok {
            // SAFETY: a text that a call has just handed over; the second free is refused.
            unsafe {
                let _ = CStr::from_ptr(out).to_bytes().len();
                string::gp_string_free(out);
                if self.alone {
                    string::gp_string_free(out);
                    assert!(last_error().to_string_lossy().contains("was freed"));
                }
            }
        }
    }

    /// The same for a text that may be missing.
    fn keep_given(&mut self, out: *mut c_char, status: Status) {
        match out.is_null() {
            true => self.judge(status),
            false => self.keep_text(out, status),
        }
    }

    fn make(&mut self, which: u8, bytes: &mut Bytes) {
        let (x, root) = (c"x".as_ptr(), c"root".as_ptr());
        macro_rules! made {
            ($kind:expr, $out:ident => $call:expr) => {{
                let mut $out = null_mut();
                // SAFETY: texts and places of this function.
                let status = unsafe { $call };
                self.judge(status);
                assert_eq!(status == Status::Ok, !$out.is_null());
                self.objects.hold($kind, $out);
            }};
        }
        match which % 9 {
            0 => made!(Type::Session, out => session::gp_session_open(&raw mut out)),
            1 => made!(Type::Graphs, out => graphs::gp_graphs_load(GRAPH.1.as_ptr(), &raw mut out)),
            2 => made!(Type::Spec, out => spec::gp_spec_new(TEXTS[0].as_ptr(), &raw mut out)),
            3 => made!(Type::Value, out => value::gp_value_int(1, &raw mut out)),
            4 => {
                made!(Type::Root, out => module::gp_root_new(root, x, null(), 0, null(), 0, false, &raw mut out))
            }
            5 => {
                made!(Type::Scope, out => module::gp_scope_new(x, x, x, null(), 0, false, &raw mut out))
            }
            6 => {
                let from = self.objects.choose(Type::Session, bytes);
                made!(Type::Graphs, out => graphs::gp_session_graphs(from, &raw mut out));
            }
            7 => made!(Type::Value, out => value::gp_value_float(0.5, &raw mut out)),
            _ => {
                made!(Type::Value, out => value::gp_value_text(c"2.5".as_ptr(), &raw mut out))
            }
        }
    }

    fn free(&mut self, which: u8, bytes: &mut Bytes) {
        macro_rules! freed {
            ($kind:expr, $free:path) => {{
                let pointer = self.objects.choose($kind, bytes);
                $free(pointer);
                let _ = self.objects.judged();
                self.objects.ended($kind, pointer);
            }};
        }
        match which % 8 {
            0 => freed!(Type::Session, session::gp_session_close),
            1 => freed!(Type::Graphs, graphs::gp_graphs_free),
            2 => freed!(Type::Spec, spec::gp_spec_free),
            3 => freed!(Type::Value, value::gp_value_free),
            4 => freed!(Type::Root, module::gp_root_free),
            5 => freed!(Type::Aside, aside::gp_aside_free),
            6 => freed!(Type::Snapshot, call::gp_snapshot_free),
            _ => freed!(Type::Scope, module::gp_scope_free),
        }
    }

    fn session(&mut self, which: u8, bytes: &mut Bytes) {
        let of = self.objects.choose(Type::Session, bytes);
        let (mut number, mut out) = (0, null_mut());
        // SAFETY: texts and places of this function.
        unsafe {
            let status = match which % 13 {
                0 => session::gp_session_record(of, bytes.next() & 1 == 0),
                1 => session::gp_session_on_error(of, bytes.next().into()),
                2 => session::gp_session_runs(of, &raw mut number),
                3 => session::gp_session_note(of, any_text(bytes)),
                4 => session::gp_session_detach(of),
                5 => kept::gp_kept_count(of, self.number(bytes), &raw mut number, null_mut()),
                6 => kept::gp_kept_tensor(of, self.number(bytes), 0, &raw mut out),
                7 => kept::gp_kept_save(of, NOWHERE.as_ptr()),
                8 => session::gp_session_inside(of, any_text(bytes), bytes.next() & 1 == 0),
                9 => source::gp_session_source(of, Some(no_frames), null_mut()),
                10 => source::gp_session_source(of, None, null_mut()),
                11 => {
                    let mut missed = null_mut();
                    let status = session::gp_session_missed(of, &raw mut missed);
                    return self.keep_text(missed, status);
                }
                _ => {
                    let mut notes = null_mut();
                    let status = session::gp_session_notes(of, &raw mut notes);
                    return self.keep_text(notes, status);
                }
            };
            self.judge(status);
        }
    }

    fn patch(&mut self, which: u8, bytes: &mut Bytes) {
        let of = self.objects.choose(Type::Session, bytes);
        let mut number = 0;
        let given = self.number(bytes);
        // SAFETY: texts and places of this function; a list is as long as said.
        unsafe {
            let status = match which % 11 {
                0 => patch::gp_patch_add(of, any_text(bytes), &raw mut number),
                1 => patch::gp_patch_remove(of, given),
                2 => patch::gp_patch_remove_all(of, [given, 7].as_ptr(), 2),
                3 => patch::gp_patch_enable(of, given, bytes.next() & 1 == 0),
                4 => patch::gp_set_begin(of, &raw mut number),
                5 => patch::gp_set_end(of, given),
                6 => {
                    let spec = self.objects.choose(Type::Spec, bytes);
                    register::gp_patch_register(of, spec, &raw mut number)
                }
                7 => {
                    let specs: [*mut spec::gp_spec; 2] =
                        [(); 2].map(|()| self.objects.choose(Type::Spec, bytes));
                    let specs = specs.map(|spec| spec.cast_const());
                    let mut ids = [0; 2];
                    let status =
                        register::gp_patch_register_all(of, specs.as_ptr(), 2, ids.as_mut_ptr());
                    number = ids[0];
                    status
                }
                8 => {
                    let value = self.objects.choose(Type::Value, bytes);
                    cuda::gp_patch_set_value(of, given, value)
                }
                9 => {
                    let mut counts = patch::gp_patch_counts {
                        size: size_of::<patch::gp_patch_counts>()
                            - usize::from(bytes.next() % 3) * 8,
                        ..std::mem::zeroed()
                    };
                    patch::gp_patch_get_counts(of, given, &raw mut counts)
                }
                _ => {
                    let mut why = null_mut();
                    let status = patch::gp_patch_last_error(of, given, &raw mut why);
                    return self.keep_text(why, status);
                }
            };
            self.judge(status);
            if number != 0 {
                self.numbers.push(number);
            }
        }
    }

    fn graphs(&mut self, which: u8, bytes: &mut Bytes) {
        let of = self.objects.choose(Type::Graphs, bytes);
        let index = usize::from(bytes.next() > 200);
        let mut out = null_mut();
        // SAFETY: texts and places of this function.
        unsafe {
            let path = any_text(bytes);
            let status = match which % 9 {
                0 => graphs::gp_graphs_tree(of, index, path, &raw mut out),
                1 => graphs::gp_graphs_children(of, index, path, &raw mut out),
                2 => graphs::gp_graphs_shape(of, index, path, &raw mut out),
                3 => graphs::gp_graphs_code(of, index, path, &raw mut out),
                4 => graphs::gp_graphs_json(of, index, &raw mut out),
                5 => graphs::gp_graphs_complete(of, path, &raw mut out),
                6 => return self.judge(graphs::gp_graphs_check(of, &raw const path, 1)),
                7 => {
                    let count = graphs::gp_graphs_count(of);
                    let right = self.objects.judged() == Worth::Right;
                    assert!(!self.alone || right || count == 0);
                    return;
                }
                _ => return self.judge(graphs::gp_graphs_save(of, NOWHERE.as_ptr())),
            };
            self.keep_text(out, status);
        }
    }

    fn nodes(&mut self, which: u8, bytes: &mut Bytes) {
        let of = self.objects.choose(Type::Graphs, bytes);
        let (mut out, mut name) = (null_mut(), null_mut());
        let (mut smallest, mut largest) = ([0; 4], [0; 4]);
        // SAFETY: texts and places of this function.
        unsafe {
            let path = any_text(bytes);
            let status = match which % 6 {
                0 => {
                    let number = usize::from(bytes.next());
                    let child =
                        nodes::gp_graphs_child(of, 0, path, number, &raw mut name, &raw mut out);
                    if !name.is_null() {
                        string::gp_string_free(name);
                    }
                    child
                }
                1 => nodes::gp_graphs_find(of, 0, path, any_text(bytes), &raw mut out),
                2 => nodes::gp_graphs_search(
                    of,
                    0,
                    any_text(bytes),
                    path,
                    null(),
                    null(),
                    &raw mut out,
                ),
                3 => {
                    let n = usize::from(bytes.next() % 5);
                    let (low, high) = (smallest.as_mut_ptr(), largest.as_mut_ptr());
                    let status = nodes::gp_graphs_sizes(of, 0, path, low, high, n);
                    return self.judge(status);
                }
                4 => {
                    let mut node: nodes::gp_node = std::mem::zeroed();
                    let given: *mut nodes::gp_node = &raw mut node;
                    // What every struct of the ABI begins with: the size that its caller knows.
                    given
                        .cast::<usize>()
                        .write(size_of::<nodes::gp_node>() - usize::from(bytes.next() % 3) * 8);
                    return self.judge(nodes::gp_graphs_node(of, 0, path, given));
                }
                _ => {
                    let found = graphs::gp_graphs_name(of, 0);
                    let right = self.objects.judged() == Worth::Right;
                    assert!(!self.alone || right || found.is_null());
                    return;
                }
            };
            self.keep_text(out, status);
        }
    }

    fn spec(&mut self, which: u8, bytes: &mut Bytes) {
        let of = self.objects.choose(Type::Spec, bytes);
        // SAFETY: texts of this program.
        let status = unsafe {
            match which % 15 {
                0 => spec::gp_spec_slice(of, any_text(bytes)),
                1 => spec::gp_spec_index(of, bytes.next().into()),
                2 => spec::gp_spec_zero(of),
                3 => spec::gp_spec_add(of, self.objects.choose(Type::Value, bytes)),
                4 => spec::gp_spec_replace(of, self.objects.choose(Type::Value, bytes)),
                5 => spec::gp_spec_probe(of),
                6 => spec::gp_spec_record(of, bytes.next().into()),
                7 => register::gp_spec_runs(of, any_text(bytes)),
                8 => register::gp_spec_this_thread(of, bytes.next() & 1 == 0),
                9 => cuda::gp_spec_live(of, bytes.next() & 1 == 0),
                10 => cuda::gp_spec_keep_on_device(of, bytes.next() & 1 == 0),
                11 => spec::gp_spec_index_tensor(of, null_mut(), false),
                12 => function::gp_spec_custom(of, Some(leaves_it), null_mut()),
                13 => function::gp_spec_release(of, Some(nothing)),
                _ => spec::gp_spec_zero(of),
            }
        };
        self.judge(status);
    }

    fn runs(&mut self, which: u8, bytes: &mut Bytes) {
        let (mut wants, mut plan) = (0, 0);
        // SAFETY: texts and places of this function.
        let status = unsafe {
            match which % 23 {
                0 => {
                    let of = self.objects.choose(Type::Session, bytes);
                    let root = self.objects.choose(Type::Root, bytes);
                    call::gp_run_open(of, root, &raw mut wants, &raw mut plan)
                }
                1 => call::gp_scope_open(self.objects.choose(Type::Scope, bytes), &raw mut wants),
                2 => call::gp_scope_script(self.objects.choose(Type::Scope, bytes), &raw mut wants),
                3 => host_values::gp_scope_input(
                    0,
                    any_text(bytes),
                    [null()].as_ptr(),
                    1,
                    &raw mut wants,
                ),
                4 => host_values::gp_scope_inputs(any_text(bytes), null(), 0, &raw mut wants),
                5 => host_values::gp_scope_output(any_text(bytes), null(), 0, true, &raw mut wants),
                6 => call::gp_scope_unwind(bytes.next().into()),
                7 => run::gp_run_begin(any_text(bytes)),
                8 => run::gp_run_end(),
                9 => run::gp_run_decline(bytes.next() & 1 == 0),
                10 => run::gp_scope_enter(any_text(bytes)),
                11 => run::gp_scope_leave(),
                12 => {
                    run::gp_runs_wanted();
                    return;
                }
                13 => {
                    let mut names = null_mut();
                    let status = compiled::gp_run_named(&raw mut names);
                    return self.keep_given(names, status);
                }
                14 => {
                    let (mut any, mut paths) = (false, null_mut());
                    let status = compiled::gp_run_patched(&raw mut any, &raw mut paths);
                    return self.keep_given(paths, status);
                }
                15 => {
                    let mut fits = false;
                    compiled::gp_run_computes(any_text(bytes), &raw mut fits)
                }
                16 => call::gp_run_parameters(null(), 0),
                17 => {
                    let mut out = null_mut();
                    let status = aside::gp_calls_set_aside(&raw mut out);
                    self.judge(status);
                    self.objects.hold(Type::Aside, out);
                    return;
                }
                18 => {
                    let given = self.objects.choose(Type::Aside, bytes);
                    let status = aside::gp_calls_take_up(given);
                    if status == Status::Ok {
                        self.objects.ended(Type::Aside, given);
                    }
                    status
                }
                19 => {
                    let mut out = null_mut();
                    let status = call::gp_run_snapshot(&raw mut out);
                    self.judge(status);
                    self.objects.hold(Type::Snapshot, out);
                    return;
                }
                20 => {
                    let snapshot = self.objects.choose(Type::Snapshot, bytes);
                    let on = bytes.next() & 1 == 0;
                    call::gp_run_resume(snapshot, on, &raw mut wants, &raw mut plan)
                }
                21 => {
                    let mut leaf: host_values::gp_leaf = std::mem::zeroed();
                    leaf.size = size_of::<host_values::gp_leaf>();
                    host_values::gp_scope_leaf(bytes.next().into(), &raw mut leaf)
                }
                _ => {
                    assert_eq!(function::gp_callback_fail(any_text(bytes)), 1);
                    return;
                }
            }
        };
        self.judge(status);
    }

    fn texts(&mut self, which: u8, bytes: &mut Bytes) {
        let mut out = null_mut();
        // The next line of the input is itself the text.
        let rest = bytes.0;
        let length = rest.iter().position(|byte| *byte == b'\n');
        let (own, left) = rest.split_at(length.unwrap_or(rest.len()));
        bytes.0 = left.get(1..).unwrap_or_default();
        let own = CString::new(own).unwrap_or_default();
        // SAFETY: texts and places of this function.
        unsafe {
            let status = match which % 5 {
                0 => text::gp_path_parse(own.as_ptr(), &raw mut out),
                1 => text::gp_slice_parse(own.as_ptr(), &raw mut out),
                2 => {
                    let mut elements = 0;
                    let sizes = [3, 2];
                    let n = usize::from(which % 3);
                    return self.judge(text::gp_slice_check(
                        own.as_ptr(),
                        sizes.as_ptr(),
                        n,
                        &raw mut elements,
                    ));
                }
                3 => {
                    let mut wants = 0;
                    return self.judge(host_values::gp_scope_inputs(
                        own.as_ptr(),
                        null(),
                        0,
                        &raw mut wants,
                    ));
                }
                _ => {
                    let of = self.objects.choose(Type::Graphs, bytes);
                    nodes::gp_graphs_search(
                        of,
                        0,
                        null(),
                        null(),
                        null(),
                        own.as_ptr(),
                        &raw mut out,
                    )
                }
            };
            self.keep_text(out, status);
        }
    }

    /// Frees all objects, including those that were freed before.
    fn end(self) {
        macro_rules! all {
            ($($kind:expr => $free:path),*) => {
                $(for pointer in self.objects.all($kind) {
                    $free(pointer);
                })*
            };
        }
        all!(
            Type::Session => session::gp_session_close,
            Type::Graphs => graphs::gp_graphs_free,
            Type::Spec => spec::gp_spec_free,
            Type::Value => value::gp_value_free,
            Type::Root => module::gp_root_free,
            Type::Scope => module::gp_scope_free,
            Type::Aside => aside::gp_aside_free,
            Type::Snapshot => call::gp_snapshot_free
        );
    }
}

/// Callbacks that do nothing.
unsafe extern "C" fn no_frames(_: *mut c_void, frames: *mut source::gp_frames) {
    // SAFETY: what the callback was given, and NULL for all that is not known.
    unsafe { source::gp_frames_add(frames, null(), 0, null(), null()) };
}

unsafe extern "C" fn leaves_it(
    _: *mut c_void,
    _: *mut dlpack::DLManagedTensorVersioned,
    _: *mut *mut dlpack::DLManagedTensorVersioned,
) -> i32 {
    0
}

unsafe extern "C" fn nothing(_: *mut c_void) {}

/// The message of the last call that failed, valid until the next failure.
fn last_error<'a>() -> &'a CStr {
    // SAFETY: never NULL.
    unsafe { CStr::from_ptr(guard::gp_last_error()) }
}

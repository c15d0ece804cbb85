//! A driver for tests without a card. It records every call, and can run the kernels' own source on the CPU, in a separate
//! process under the address sanitizer (`tests/kernels/emulator.cpp`).

use std::cell::Cell;
use std::ffi::CStr;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use graphpatch_locks::{Mutex, OnceLock};

use super::device::Cuda;
use super::driver::{Answer, Arguments, Driver, Facts, Fault, Launch};
use super::work::{Batch, Kernel, Picks, Work};

/// One call that would have reached the card.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a test's list is short")]
pub enum Call {
    Load {
        context: usize,
    },
    Alloc(usize),
    Free(u64),
    /// A mark is set in a stream.
    Record {
        event: usize,
        stream: usize,
    },
    /// Later work of the stream waits for the mark.
    Wait {
        stream: usize,
        event: usize,
    },
    Upload {
        address: u64,
        bytes: usize,
    },
    Launch {
        kernel: Kernel,
        grid: u32,
        block: u32,
        stream: usize,
        context: usize,
        works: Vec<Work>,
        picks: Option<Picks>,
    },
}

/// The process that the kernels run in.
pub struct Emulator {
    process: Child,
    to: ChildStdin,
    from: ChildStdout,
}

/// Compiles the emulator once.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let own = std::env::current_exe().unwrap();
        let out = own.with_file_name(format!("kernel-emulator-{}", std::process::id()));
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let done = Command::new(compiler)
            .args([
                "-std=c++17",
                "-O1",
                "-g",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Wno-unknown-pragmas",
                "-ffp-contract=off",
            ])
            .args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
            .arg(root.join("tests/kernels/emulator.cpp"))
            .arg("-o")
            .arg(&out)
            .output()
            .expect("a C++ compiler");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        out
    })
}

impl Emulator {
    pub fn start() -> Emulator {
        let mut process = Command::new(program())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env("ASAN_OPTIONS", "detect_leaks=0")
            .spawn()
            .unwrap();
        let (to, from) = (
            process.stdin.take().unwrap(),
            process.stdout.take().unwrap(),
        );
        Emulator { process, to, from }
    }

    fn ask(&mut self, letter: u8, numbers: &[u64], bytes: &[u8]) {
        let mut message = vec![letter];
        message.extend(numbers.iter().flat_map(|n| n.to_ne_bytes()));
        message.extend(bytes);
        self.to
            .write_all(&message)
            .expect("the emulator stopped: see what the address sanitizer says");
        self.to.flush().unwrap();
    }

    fn answer<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.from
            .read_exact(&mut bytes)
            .expect("the emulator stopped: see what the address sanitizer says");
        bytes
    }

    pub fn alloc(&mut self, bytes: usize) -> u64 {
        self.ask(b'A', &[bytes as u64], &[]);
        u64::from_ne_bytes(self.answer())
    }

    pub fn free(&mut self, address: u64) {
        self.ask(b'F', &[address], &[]);
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        self.ask(b'W', &[address, bytes.len() as u64], bytes);
    }

    pub fn read(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        self.ask(b'R', &[address, bytes as u64], &[]);
        let mut out = vec![0; bytes];
        self.from.read_exact(&mut out).unwrap();
        out
    }

    fn launch(&mut self, launch: &Launch<'_>) {
        fn bytes<T>(value: &T, out: &mut Vec<u8>) {
            out.resize(out.len().next_multiple_of(16), 0);
            // SAFETY: the structs of `work.rs` have no bytes but their fields', all plain numbers.
            let raw = unsafe {
                std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>())
            };
            out.extend(raw);
        }
        let mut arguments = Vec::new();
        match launch.arguments {
            Arguments::Work(work) => bytes::<Work>(work, &mut arguments),
            Arguments::Any(work, picks) => {
                bytes::<Work>(work, &mut arguments);
                bytes::<Picks>(picks, &mut arguments);
            }
            Arguments::Batch(batch) => bytes::<Batch>(batch, &mut arguments),
        }
        let mut name = launch.kernel.name().to_bytes().to_vec();
        name.resize(24, 0);
        for number in [
            launch.grid.into(),
            launch.block.into(),
            arguments.len() as u64,
        ] {
            name.extend(u64::to_ne_bytes(number));
        }
        name.extend(arguments);
        self.ask(b'L', &[], &name);
        self.answer::<1>();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a test sets and reads. The driver holds the same object.
#[derive(Default)]
pub struct State {
    pub calls: Mutex<Vec<Call>>,
    pub emulator: Mutex<Option<Emulator>>,
    pub capturing: AtomicBool,
    /// The error that the next launches answer.
    pub fault: AtomicU32,
    pub current: Mutex<Vec<usize>>,
    pub relaxed: AtomicU32,
    /// Streams that belong to another context than the device's primary one, each with its context.
    pub elsewhere: Mutex<Vec<(usize, usize)>>,
    /// How many marks were made, and how many of them still exist.
    pub events: AtomicUsize,
    pub live_events: AtomicUsize,
    next: Mutex<u64>,
}

impl State {
    /// The calls since the last `take`.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock())
    }
}

pub struct Recording {
    pub state: Arc<State>,
    pub version: i32,
    pub cards: Vec<Facts>,
}

pub fn card() -> Facts {
    Facts {
        name: "Recording card".into(),
        capability: (9, 0),
        processors: 2,
        pools: true,
    }
}

/// CUDA with two cards. With `emulate` the kernels really run.
pub fn cuda(emulate: bool) -> (Arc<Cuda>, Arc<State>) {
    cuda_on(card(), emulate)
}

/// The same with two cards of the given kind.
pub fn cuda_on(card: Facts, emulate: bool) -> (Arc<Cuda>, Arc<State>) {
    let state = Arc::new(State::default());
    *state.emulator.lock() = emulate.then(Emulator::start);
    let recording = Recording {
        state: state.clone(),
        version: 12040,
        cards: vec![card.clone(), card],
    };
    (Cuda::new(Box::new(recording)).unwrap(), state)
}

impl Driver for Recording {
    fn version(&self) -> Answer<i32> {
        Ok(self.version)
    }
    fn devices(&self) -> Answer<u32> {
        Ok(self.cards.len() as u32)
    }
    fn facts(&self, device: u32) -> Answer<Facts> {
        Ok(self.cards[device as usize].clone())
    }
    fn active(&self, device: u32) -> bool {
        device == 0
    }
    fn retain(&self, device: u32) -> Answer<usize> {
        Ok(100 + device as usize)
    }
    fn current(&self) -> usize {
        self.state.current.lock().last().copied().unwrap_or(0)
    }
    fn push(&self, context: usize) -> Answer<()> {
        self.state.current.lock().push(context);
        Ok(())
    }
    fn pop(&self) {
        self.state.current.lock().pop();
    }
    fn context_of(&self, stream: usize) -> Answer<usize> {
        let elsewhere = self.state.elsewhere.lock();
        let found = elsewhere.iter().find(|(other, _)| *other == stream);
        // A stream that no test has listed belongs to the current context, if there is one.
        Ok(found.map_or(0, |(_, context)| *context))
    }
    fn load(&self, image: &CStr) -> Answer<[usize; Kernel::ALL.len()]> {
        let text = image.to_str().unwrap();
        for kernel in Kernel::ALL {
            let entry = format!(".visible .entry {}(", kernel.name().to_str().unwrap());
            assert!(text.contains(&entry), "no {entry} in the PTX");
        }
        self.state.calls.lock().push(Call::Load {
            context: self.current(),
        });
        Ok(std::array::from_fn(|at| 1 + at))
    }
    fn stream(&self) -> Answer<usize> {
        Ok(7)
    }
    fn is_capturing(&self, _stream: usize) -> Answer<bool> {
        Ok(self.state.capturing.load(Ordering::Relaxed))
    }
    fn relax(&self, on: bool) {
        self.state.relaxed.store(on.into(), Ordering::Relaxed);
    }
    fn alloc(&self, bytes: usize, stream: Option<usize>) -> Answer<u64> {
        assert_eq!(stream, self.cards[0].pools.then_some(7));
        assert_eq!(
            self.state.relaxed.load(Ordering::Relaxed),
            1,
            "captures of other threads would forbid this"
        );
        self.state.calls.lock().push(Call::Alloc(bytes));
        let mut next = self.state.next.lock();
        *next += 1 << 20;
        let emulated = self
            .state
            .emulator
            .lock()
            .as_mut()
            .map(|emulator| emulator.alloc(bytes));
        Ok(emulated.unwrap_or((1 << 40) + *next))
    }
    fn free(&self, address: u64, stream: Option<usize>) {
        assert_eq!(stream, self.cards[0].pools.then_some(7));
        self.state.calls.lock().push(Call::Free(address));
        if let Some(emulator) = self.state.emulator.lock().as_mut() {
            emulator.free(address);
        }
    }
    fn upload(&self, address: u64, bytes: &[u8], stream: usize) -> Answer<()> {
        assert_eq!(stream, 7, "copies go to our own stream");
        self.state.calls.lock().push(Call::Upload {
            address,
            bytes: bytes.len(),
        });
        if let Some(emulator) = self.state.emulator.lock().as_mut() {
            emulator.write(address, bytes);
        }
        Ok(())
    }
    fn event(&self) -> Answer<usize> {
        self.state.live_events.fetch_add(1, Ordering::Relaxed);
        Ok(1 + self.state.events.fetch_add(1, Ordering::Relaxed))
    }
    fn record(&self, event: usize, stream: usize) -> Answer<()> {
        assert_ne!(self.current(), 0, "a mark belongs to a context");
        self.state.calls.lock().push(Call::Record { event, stream });
        Ok(())
    }
    fn wait(&self, stream: usize, event: usize) -> Answer<()> {
        self.state.calls.lock().push(Call::Wait { stream, event });
        Ok(())
    }
    fn drop_event(&self, _event: usize) {
        self.state.live_events.fetch_sub(1, Ordering::Relaxed);
    }
    fn launch(&self, function: usize, launch: &Launch<'_>) -> Answer<()> {
        assert_eq!(function, 1 + launch.kernel.index());
        let code = self.state.fault.load(Ordering::Relaxed);
        if code != 0 {
            return Err(Fault {
                code,
                text: "the driver says no".into(),
            });
        }
        let (works, picks) = match launch.arguments {
            Arguments::Work(work) => (vec![*work], None),
            Arguments::Any(work, picks) => (vec![*work], Some(*picks)),
            Arguments::Batch(batch) => (batch.works[..batch.count as usize].to_vec(), None),
        };
        let Launch {
            kernel,
            grid,
            block,
            stream,
            ..
        } = *launch;
        let context = self.current();
        self.state.calls.lock().push(Call::Launch {
            kernel,
            grid,
            block,
            stream,
            context,
            works,
            picks,
        });
        if let Some(emulator) = self.state.emulator.lock().as_mut() {
            emulator.launch(launch);
        }
        Ok(())
    }
}

thread_local! {
    static INSTEAD: Cell<Option<&'static Arc<Cuda>>> = const { Cell::new(None) };
}

/// The CUDA that this thread uses instead of the machine's own, if a test has set one.
pub fn instead() -> Option<&'static Arc<Cuda>> {
    INSTEAD.get()
}

/// Makes this thread use `cuda` instead of the machine's own.
pub fn put(cuda: Arc<Cuda>) {
    INSTEAD.set(Some(Box::leak(Box::new(cuda))));
}

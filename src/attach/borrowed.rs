//! A thread that was borrowed: functions are called on it, one after the other, and then it is given back as it was.
//!
//! Each call returns to `syscall; ret` with the function's answer in the register that names the system call. There the thread
//! stops, and the answer is read. The number of the call is then replaced by none. If nobody watches any more, the kernel knows no call
//! of that number, and the thread returns into the frame that restores it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use libc::user_regs_struct;

use super::call::{Call, Called};
use super::frame::Frame;
use super::image::offset_of;
use super::maps::{self, Mapping};
use super::process::Process;
use super::safe_points::{SafePoints, read, write};
use super::search::{self, Found};
use super::tracee::{Stop, Tracee, keep_news};

/// Signals that an instruction causes. They are never blocked: the kernel would take the program's handler away.
const CAUSED: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
];

pub fn call(process: &Process, call: &Call<'_>) -> Result<Called, String> {
    let points = SafePoints::of(process)?;
    let named = |name: &str| {
        points
            .libc
            .function(name)
            .ok_or_else(|| format!("has a C library without {name} (before glibc 2.34)"))
    };
    let functions = [
        named("dlopen")?,
        named("dlerror")?,
        named("__errno_location")?,
    ];
    // Reading files takes time, so it comes before a thread stands still.
    let unknown = || {
        format!(
            "cannot have {} loaded: it lacks {}",
            call.library.display(),
            call.entry
        )
    };
    let offset = offset_of(call.library, call.entry).ok_or_else(unknown)?;
    // A mapping is named after the file itself, whatever links lead there.
    let file = call.library.canonicalize().map_err(|_| unknown())?;
    let inode = file.metadata().map_err(|_| unknown())?.ino();
    keep_news();
    let begin = Instant::now();
    let found = search::find(&points, call.limit)?;
    let (searched, since) = (begin.elapsed(), found.since);
    let library = call.library.to_string_lossy();
    let borrowed = Borrowed::begin(&points, found, &[&library, call.request], call)
        .map_err(|why| format!("is as it was: {why}"))?;
    borrowed.load_and_enter(
        functions,
        Entry {
            offset,
            inode,
            name: file.file_name().unwrap_or_default(),
            done: call.done,
        },
    )?;
    Ok(Called {
        searched,
        stalled: since.elapsed(),
    })
}

/// Where the library's function will be: so far behind the beginning of the file of this name and inode. Files on other file systems
/// may have the same inode.
struct Entry<'a> {
    offset: u64,
    inode: u64,
    name: &'a OsStr,
    done: u64,
}

impl Entry<'_> {
    fn place_in(&self, all: &[Mapping]) -> Option<u64> {
        let is_it =
            |one: &&Mapping| one.inode == self.inode && one.path.file_name() == Some(self.name);
        Some(all.iter().find(is_it)?.range.start + self.offset)
    }
}

/// A thread with a frame on its stack.
struct Borrowed<'a> {
    points: &'a SafePoints,
    tracee: Tracee,
    frame: Frame,
    /// As it was.
    registers: user_regs_struct,
    extended: Vec<u8>,
    mask: u64,
    end: Instant,
}

/// Why a call did not answer.
enum Lost {
    /// It may still answer some day; the thread then goes on by itself.
    Late,
    /// The thread or the process is gone.
    Gone,
    /// The function has failed in this way; the thread is as it was before.
    Crashed(libc::c_int),
    Refused(io::Error),
}

impl From<io::Error> for Lost {
    fn from(why: io::Error) -> Lost {
        Lost::Refused(why)
    }
}

impl Lost {
    fn text(&self) -> String {
        match self {
            Lost::Late => "is still loading the library, and goes on by itself when it has; look again with `graphpatch live`"
                .into(),
            Lost::Gone => "has ended meanwhile".into(),
            Lost::Crashed(signal) => {
                format!("got signal {signal} while it loaded the library, and goes on as it was; please report it")
            }
            Lost::Refused(why) => format!("is as it was: the kernel refused a step: {why}"),
        }
    }
}

impl Borrowed<'_> {
    fn begin<'a>(
        points: &'a SafePoints,
        found: Found,
        texts: &[&str],
        call: &Call<'_>,
    ) -> io::Result<Borrowed<'a>> {
        let Found {
            tracee, registers, ..
        } = found;
        let (extended, mask) = (tracee.extended()?, tracee.mask()?);
        let returns = [points.call_and_return, points.restorer];
        let frame = Frame::new(&registers, &extended, mask, returns, texts);
        write(points.pid, frame.at, &frame.bytes)?;
        let caused = CAUSED
            .iter()
            .fold(0_u64, |set, signal| set | 1 << (signal - 1));
        tracee.set_mask(!caused)?;
        Ok(Borrowed {
            points,
            tracee,
            frame,
            registers,
            extended,
            mask,
            end: Instant::now() + call.limit,
        })
    }

    /// Loads the library, and calls its function. In all cases the thread goes on as it was.
    fn load_and_enter(mut self, functions: [u64; 3], entry: Entry<'_>) -> Result<(), String> {
        let done = self.calls(functions, entry);
        match done {
            // A call that is under way ends by itself.
            Err(Lost::Late) => {
                let _ = self.tracee.set_mask(self.mask);
                Err(Lost::Late.text())
            }
            Err(Lost::Gone) => Err(Lost::Gone.text()),
            done => {
                let back = self.give_back();
                let said = done.map_err(|why| why.text())?;
                back.map_err(|why| why.text())?;
                said
            }
        }
    }

    /// The inner result is what the library or the dynamic linker says.
    fn calls(
        &mut self,
        [dlopen, dlerror, errno]: [u64; 3],
        entry: Entry<'_>,
    ) -> Result<Result<(), String>, Lost> {
        let errno = self.call(errno, [0, 0])?;
        let mut before = [0; 4];
        read(self.points.pid, errno, &mut before)?;
        let [library, request] = [self.frame.texts[0], self.frame.texts[1]];
        let said = match self.call(dlopen, [library, libc::RTLD_NOW as u64])? {
            0 => {
                let text = self.call(dlerror, [0, 0])?;
                Err(format!("did not load the library: {}", self.text(text)))
            }
            _ => match self.place_of(&entry) {
                Some(function) => match self.call(function, [request, 0])? {
                    answer if answer == entry.done => Ok(()),
                    _ => Err("has the library, but no thread of it could begin".into()),
                },
                None => Err("has another version of the library loaded: restart it".into()),
            },
        };
        write(self.points.pid, errno, &before)?;
        Ok(said)
    }

    /// Where the library's function is in the process.
    fn place_of(&self, entry: &Entry<'_>) -> Option<u64> {
        entry.place_in(&maps::of(self.points.pid).ok()?)
    }

    fn text(&self, at: u64) -> String {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while bytes.len() < 1000
            && read(self.points.pid, at + bytes.len() as u64, &mut byte).is_ok()
        {
            match byte {
                [0] => break,
                [byte] => bytes.push(byte),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Calls a function and returns its answer. The thread then stands at the beginning of the call that it returned into.
    fn call(&mut self, function: u64, arguments: [u64; 2]) -> Result<u64, Lost> {
        write(
            self.points.pid,
            self.frame.at,
            &self.points.call_and_return.to_le_bytes(),
        )?;
        self.tracee.set_registers(user_regs_struct {
            rip: function,
            rsp: self.frame.at,
            rdi: arguments[0],
            rsi: arguments[1],
            rax: 0,
            // No system call is under way: the kernel makes none anew.
            orig_rax: u64::MAX,
            // Functions begin with the direction of strings forward.
            eflags: self.registers.eflags & !0x400,
            ..self.registers
        })?;
        loop {
            self.tracee.resume(true)?;
            match self.tracee.wait(self.end) {
                None => return Err(Lost::Late),
                Some(Stop::Gone) => return Err(Lost::Gone),
                Some(Stop::Call) => {
                    let now = self.tracee.registers()?;
                    let returned = now.rip == self.points.call_and_return + 2
                        && now.rsp == self.frame.at + 8
                        && now.orig_rax != u64::MAX;
                    if returned {
                        return Ok(now.orig_rax);
                    }
                }
                Some(Stop::Signal(signal)) if CAUSED.contains(&signal) => {
                    return Err(Lost::Crashed(signal));
                }
                Some(_) => (),
            }
        }
    }

    /// Has the thread go on as it was. The kernel makes a system call anew only on its way out of a stop that we ask for.
    fn give_back(&mut self) -> Result<(), Lost> {
        let now = self.tracee.registers()?;
        self.tracee.set_registers(user_regs_struct {
            orig_rax: u64::MAX,
            ..now
        })?;
        if self.tracee.stop() != Some(Stop::Interrupted) {
            self.tracee.interrupt()?;
            loop {
                match self.tracee.stop() {
                    Some(Stop::Interrupted) => break,
                    Some(Stop::Gone) => return Err(Lost::Gone),
                    _ => self.resume_silently()?,
                }
                self.tracee.wait(self.end);
            }
        }
        self.tracee.set_extended(&mut self.extended)?;
        self.tracee.set_registers(self.registers)?;
        self.tracee.set_mask(self.mask)?;
        Ok(())
    }

    /// Resumes without delivering the signal that a fault of ours has caused.
    fn resume_silently(&mut self) -> io::Result<()> {
        self.tracee.forget_signal();
        self.tracee.resume(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two file systems number their files on their own.
    #[test]
    fn a_file_of_the_same_inode_is_not_the_library() {
        let mapping = |start: u64, inode: u64, path: &str| Mapping {
            range: start..start + 0x1000,
            executable: true,
            writable: false,
            offset: 0,
            inode,
            path: path.into(),
        };
        let all = [
            mapping(0x1000, 57, "/usr/lib/libc.so.6"),
            mapping(0x5000, 57, "/opt/libgraphpatch.so"),
            mapping(0x6000, 57, "/opt/libgraphpatch.so"),
        ];
        let entry = |inode| Entry {
            offset: 0x10,
            inode,
            name: OsStr::new("libgraphpatch.so"),
            done: 1,
        };
        assert_eq!(entry(57).place_in(&all), Some(0x5010));
        assert_eq!(entry(58).place_in(&all), None);
    }
}

//! What is known of a process before anything of it is touched, and each reason why it cannot be used.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::maps::{self, Mapping};

pub(super) const FOREIGN: &str = "cannot be used: attaching is known for x86-64 Linux with glibc alone; start the program \
                                  with `graphpatch run --live`";

/// A process that may be used, as far as `/proc` says.
#[derive(Debug)]
pub struct Process {
    pub(super) pid: u32,
    mappings: Vec<Mapping>,
}

impl Process {
    /// Looks at the process without touching it. A refusal ends a sentence that begins with the process.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub fn look(pid: u32) -> Result<Process, String> {
        check_numbers()?;
        let status =
            Status::of(&format!("/proc/{pid}/status")).ok_or_else(|| "is not there".to_owned())?;
        status.check(pid)?;
        check_architecture(pid)?;
        check_rights(pid, &status)?;
        let own = Status::of("/proc/self/status").unwrap_or_default();
        check_filters(&status, &own)?;
        let mappings = maps::of(pid).map_err(|why| format!("cannot be looked into: {why}"))?;
        let process = Process { pid, mappings };
        process.check_libc()?;
        Ok(process)
    }

    /// The files that it has loaded and that `which` accepts, each once.
    pub fn files(&self, which: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = Vec::new();
        for mapping in self.mappings.iter().filter(|one| one.inode != 0) {
            if which(&mapping.path) && !found.contains(&mapping.path) {
                found.push(mapping.path.clone());
            }
        }
        found
    }

    /// Whether the process sees the same file or folder under this path as we do. A container may have files of its own.
    pub fn sees(&self, path: &Path) -> bool {
        let below = path.strip_prefix("/").unwrap_or(path);
        let theirs = PathBuf::from(format!("/proc/{}/root", self.pid)).join(below);
        match (path.metadata(), theirs.metadata()) {
            (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
            _ => false,
        }
    }

    /// The value of a variable in the environment that the process was started with.
    pub fn variable(&self, name: &str) -> Option<Vec<u8>> {
        let all = std::fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        all.split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
            .map(<[u8]>::to_vec)
    }

    /// The C library and the dynamic linker, each by the mapping of its beginning.
    pub(super) fn named(&self, is: impl Fn(&str) -> bool) -> Option<&Mapping> {
        self.mappings.iter().find(|one| {
            let name = one.path.file_name().and_then(|name| name.to_str());
            one.inode != 0 && name.is_some_and(&is)
        })
    }

    pub(super) fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn check_libc(&self) -> Result<(), String> {
        if self.named(|name| name.starts_with("ld-musl-")).is_some() {
            return Err("uses the C library musl, for which libgraphpatch is not built".into());
        }
        match self.named(is_libc) {
            Some(_) => Ok(()),
            None => Err(
                "has no C library that is known (it is linked statically): nothing can be loaded into it"
                    .into(),
            ),
        }
    }
}

/// Whether this is the name of glibc's main library.
pub(super) fn is_libc(name: &str) -> bool {
    name == "libc.so.6"
        || name.starts_with("libc.so.6 ")
        || (name.starts_with("libc-2.") && name.contains(".so"))
}

/// Some lines of a `status` file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    state: char,
    group: u32,
    tracer: u32,
    /// The user whose rights it has.
    user: u32,
    seccomp: u32,
    filters: u32,
    capabilities: u64,
    shadow_stack: bool,
    /// Its number in a PID namespace of its own.
    inner: Option<u32>,
}

impl Status {
    fn of(file: &str) -> Option<Status> {
        std::fs::read(file)
            .ok()
            .map(|text| Status::read(&String::from_utf8_lossy(&text)))
    }

    fn read(text: &str) -> Status {
        let mut found = Status::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let words: Vec<&str> = value.split_whitespace().collect();
            let number = |at: usize| -> u32 {
                words
                    .get(at)
                    .and_then(|word| word.parse().ok())
                    .unwrap_or_default()
            };
            match name {
                "State" => found.state = value.trim().chars().next().unwrap_or_default(),
                "Tgid" => found.group = number(0),
                "TracerPid" => found.tracer = number(0),
                "Uid" => found.user = number(1),
                "Seccomp" => found.seccomp = number(0),
                "Seccomp_filters" => found.filters = number(0),
                "CapEff" => {
                    let word = words.first().copied().unwrap_or_default();
                    found.capabilities = u64::from_str_radix(word, 16).unwrap_or_default();
                }
                "NSpid" => found.inner = (words.len() > 1).then(|| number(words.len() - 1)),
                "x86_Thread_features" => found.shadow_stack = words.contains(&"shstk"),
                _ => (),
            }
        }
        found
    }

    fn check(&self, pid: u32) -> Result<(), String> {
        if self.group != pid {
            return Err(format!(
                "is a thread of process {}: give that number",
                self.group
            ));
        }
        // An ended process may keep its tracer for a while.
        if matches!(self.state, 'Z' | 'X') {
            return Err("has ended; its parent has not asked for its exit code yet".into());
        }
        if self.tracer != 0 {
            return Err(format!(
                "is being traced by process {}{}: only one can trace it; end that first",
                self.tracer,
                name_of(self.tracer)
            ));
        }
        match self.state {
            'T' => Err(format!("is stopped; let it go on first: kill -CONT {pid}")),
            _ if self.shadow_stack => Err(
                "keeps a shadow stack (CET): no function can be called in it from outside; start it with `graphpatch run \
                 --live`, or without the tunable glibc.cpu.x86_shstk"
                    .into(),
            ),
            _ => self.inner.map_or(Ok(()), |inner| {
                // Its socket would have that number.
                Err(format!(
                    "has another number, {inner}, in its own PID namespace (a container): run `graphpatch attach {inner}` \
                     inside that container"
                ))
            }),
        }
    }
}

/// Whether `/proc` numbers processes as the kernel does for this command. Else it tells of another process than the one that would be
/// stopped.
fn check_numbers() -> Result<(), String> {
    let own = std::fs::read_link("/proc/self").unwrap_or_default();
    match own.as_os_str().as_encoded_bytes() == std::process::id().to_string().as_bytes() {
        true => Ok(()),
        false => Err(
            "cannot be looked for: /proc is not there, or is that of another PID namespace; mount it anew (unshare \
             --mount-proc)"
                .into(),
        ),
    }
}

fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .map(|name| format!(" ({})", name.trim()))
        .unwrap_or_default()
}

/// A filter of system calls may end the process at what attaching needs. A container's filter, which holds for us too, lets
/// programs load libraries.
fn check_filters(status: &Status, own: &Status) -> Result<(), String> {
    if status.seccomp == 1 || status.filters > own.filters || status.seccomp > own.seccomp {
        return Err(
            "limits its own system calls (seccomp): loading a library might end it; start it with `graphpatch run --live`"
                .into(),
        );
    }
    Ok(())
}

fn check_architecture(pid: u32) -> Result<(), String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(FOREIGN.into());
    }
    let exe = format!("/proc/{pid}/exe");
    let header = match std::fs::File::open(&exe) {
        Ok(mut file) => {
            let mut header = [0_u8; 20];
            std::io::Read::read_exact(&mut file, &mut header)
                .map_err(|why| format!("runs a program that cannot be read: {why}"))?;
            header
        }
        Err(why) if why.kind() == ErrorKind::NotFound => {
            return Err("is a thread of the kernel, or has ended".into());
        }
        // Whoever may not read it may not trace it: the next check says why.
        Err(_) => return Ok(()),
    };
    // ELF for 64 bits (2), in the machine's byte order; the machine is x86-64 (62).
    let fits = header.starts_with(b"\x7fELF\x02\x01") && header[18..20] == [62, 0];
    match fits {
        true => Ok(()),
        false => Err(FOREIGN.into()),
    }
}

/// Whether this process may trace that one. The kernel asks the same for this file as for tracing.
fn check_rights(pid: u32, status: &Status) -> Result<(), String> {
    let own = Status::of("/proc/self/status").unwrap_or_default();
    if status.user != own.user {
        return Err(format!(
            "runs as user {}, and this command as user {}: run it as that user (sudo -u '#{}' graphpatch attach {pid}), since \
             the two meet in a folder of that user alone",
            status.user, own.user, status.user
        ));
    }
    match std::fs::read(format!("/proc/{pid}/syscall")) {
        Err(why) if why.kind() == ErrorKind::PermissionDenied => Err(refused(&own)),
        Err(why) if why.raw_os_error() == Some(libc::ESRCH) => Err("has ended".into()),
        _ => Ok(()),
    }
}

/// What stands in the way of tracing a process of the same user, and the setting that changes it.
fn refused(own: &Status) -> String {
    const SYS_PTRACE: u64 = 1 << 19;
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let capable = own.capabilities & SYS_PTRACE != 0;
    let why = match (scope.trim(), capable) {
        ("3", _) => {
            "this kernel lets nobody trace a process (kernel.yama.ptrace_scope is 3, until the next start)"
        }
        (scope @ ("1" | "2"), false) => {
            return format!(
                "may not be traced: kernel.yama.ptrace_scope is {scope}. Until the next start of the machine: sudo sysctl \
                 kernel.yama.ptrace_scope=0; or give this command the right CAP_SYS_PTRACE (in a container: --cap-add \
                 SYS_PTRACE)"
            );
        }
        _ => {
            "the kernel refuses it: the process has more rights than this command or forbids it (prctl PR_SET_DUMPABLE), or a \
             container lacks the right CAP_SYS_PTRACE (--cap-add SYS_PTRACE)"
        }
    };
    format!("may not be traced: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Name:\ta b\nState:\tS (sleeping)\nTgid:\t7\nTracerPid:\t0\nUid:\t1\t2\t3\t4\nCapEff:\t0000000000080000\n\
                        NSpid:\t7\nSeccomp:\t2\nSeccomp_filters:\t1\nx86_Thread_features:\tshstk wrss\n";

    #[test]
    fn status_is_read() {
        let found = Status::read(TEXT);
        assert_eq!((found.state, found.group, found.user), ('S', 7, 2));
        assert_eq!(
            (found.seccomp, found.filters, found.capabilities),
            (2, 1, 1 << 19)
        );
        assert!(found.shadow_stack);
        assert!(
            found
                .check(7)
                .expect_err("shadow stack")
                .contains("x86_shstk")
        );
        assert!(found.check(8).expect_err("a thread").contains("process 7"));
    }

    #[test]
    fn states_are_refused() {
        let read = |line: &str| Status::read(&format!("Tgid:\t7\n{line}"));
        let why = |line: &str| read(line).check(7).expect_err(line);
        assert!(why("State:\tZ (zombie)").contains("has ended"));
        assert!(why("State:\tT (stopped)").contains("kill -CONT 7"));
        assert!(why("TracerPid:\t1").contains("traced by process 1"));
        assert!(why("NSpid:\t7\t3\t1").contains("attach 1` inside"));
        assert_eq!(read("State:\tR (running)").check(7), Ok(()));
        let filtered = |count: u32| Status {
            seccomp: 2,
            filters: count,
            ..Status::default()
        };
        assert_eq!(check_filters(&filtered(1), &filtered(1)), Ok(()));
        assert!(check_filters(&filtered(2), &filtered(1)).is_err());
        assert!(check_filters(&filtered(1), &Status::default()).is_err());
    }

    #[test]
    fn the_setting_is_named() {
        let own = Status::default();
        assert!(refused(&own).contains("CAP_SYS_PTRACE"));
    }

    #[test]
    fn this_process_is_one() {
        if cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
            let own = Process::look(std::process::id()).expect("this process");
            assert!(own.sees(Path::new("/")) && !own.sees(Path::new("/no/such")));
            assert_eq!(own.files(|path| path.ends_with("libc.so.6")).len(), 1);
            assert!(own.variable("PATH").is_some() && own.variable("PAT").is_none());
        }
        assert!(
            Process::look(u32::MAX)
                .expect_err("none")
                .contains("not there")
        );
    }
}

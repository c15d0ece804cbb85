//! The socket: a file that this user alone can open, in a folder that this user alone can enter.

use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use graphpatch_core::error::{Error, Result};
use graphpatch_loader::trust;

/// The lowest numbers of descriptors that a socket is moved to, the first one that the process's limit allows. Programs count on
/// low numbers: where one has closed its standard streams, what it prints would go into a socket that took their place.
const PLACES: [libc::c_int; 3] = [500, 100, 3];

/// A descriptor of ours, as it was when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketId {
    pub descriptor: RawFd,
    /// By which the kernel tells sockets apart. A program's own filter of system calls may forbid `fstat`, but hardly this question.
    cookie: u64,
}

impl SocketId {
    fn of(descriptor: RawFd) -> Option<SocketId> {
        let mut cookie = 0_u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: both pointers are to locals of the sizes that are told.
        let answer = unsafe {
            libc::getsockopt(
                descriptor,
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        (answer == 0).then_some(SocketId { descriptor, cookie })
    }

    /// Whether the socket is still there. A program may close every descriptor, and open files of its own under their numbers.
    pub fn is_ours(&self) -> bool {
        SocketId::of(self.descriptor) == Some(*self)
    }
}

/// A socket of ours, which is closed only where it is still there.
pub struct Own<T: AsRawFd + IntoRawFd> {
    socket: Option<T>,
    pub id: SocketId,
}

impl<T: AsRawFd + IntoRawFd + From<OwnedFd>> Own<T>
where
    OwnedFd: From<T>,
{
    /// Moves the socket to where it is in nobody's way.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(socket: T) -> std::io::Result<Own<T>> {
        let low = OwnedFd::from(socket);
        // SAFETY: plain numbers.
        let moved = |to: &libc::c_int| unsafe {
            checked(libc::fcntl(low.as_raw_fd(), libc::F_DUPFD_CLOEXEC, *to))
        };
        let high = PLACES
            .iter()
            .find_map(|to| moved(to).ok())
            .ok_or_else(std::io::Error::last_os_error)?;
        // SAFETY: just opened, by nobody else known.
        let socket = T::from(unsafe { OwnedFd::from_raw_fd(high) });
        let id = SocketId::of(high).ok_or_else(std::io::Error::last_os_error)?;
        Ok(Own {
            socket: Some(socket),
            id,
        })
    }
}

impl<T: AsRawFd + IntoRawFd> Own<T> {
    /// The socket; none where the program has closed it.
    pub fn get(&mut self) -> Option<&mut T> {
        self.socket.as_mut().filter(|_| self.id.is_ours())
    }
}

impl<T: AsRawFd + IntoRawFd> Drop for Own<T> {
    fn drop(&mut self) {
        if !self.id.is_ours()
            && let Some(socket) = self.socket.take()
        {
            // The number is the program's now.
            let _ = socket.into_raw_fd();
        }
    }
}

/// Opens this process's socket in `folder`. Its file is named after the process; one that an earlier process of this number
/// left is replaced. The file gets this name when the socket listens: a command that finds it can connect, and does not take it
/// for one that a killed process has left.
///
/// # Errors
///
/// [`Error::File`] naming what stands in the way.
pub fn listen(folder: &Path) -> Result<(Own<UnixListener>, PathBuf)> {
    let file = folder.join(format!("{}.sock", std::process::id()));
    let fail = |why: std::io::Error| Error::File {
        file: file.clone(),
        why: format!("no socket for live control: {why}"),
    };
    let unready = file.with_extension("new");
    let address = address(&file)
        .and(address(&unready))
        .ok_or_else(|| Error::File {
            file: file.clone(),
            why: "the path is too long for a socket; name a shorter folder in XDG_RUNTIME_DIR"
                .into(),
        })?;
    let _ = std::fs::remove_file(&unready);
    let flags = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain numbers.
    let raw = checked(unsafe { libc::socket(libc::AF_UNIX, flags, 0) }).map_err(fail)?;
    // SAFETY: just opened, by nobody else known.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // The file gets the mode that the socket has: no umask of the program's has to change for it.
    // SAFETY: the socket is open; the address is a local that lives for the call.
    let bound = unsafe {
        checked(libc::fchmod(raw, 0o600))
            .and_then(|_| checked(libc::bind(raw, (&raw const address).cast(), length)))
            .and_then(|_| checked(libc::listen(raw, 16)))
    };
    let listener = bound
        .and_then(|_| Own::new(UnixListener::from(socket)))
        .and_then(|listener| std::fs::rename(&unready, &file).map(|()| listener));
    if listener.is_err() {
        let _ = std::fs::remove_file(&unready);
    }
    Ok((listener.map_err(fail)?, file))
}

fn checked(answer: libc::c_int) -> std::io::Result<RawFd> {
    match answer {
        0.. => Ok(answer),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn address(file: &Path) -> Option<libc::sockaddr_un> {
    // SAFETY: a plain C struct that is valid when zero.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let name = file.as_os_str().as_bytes();
    // One byte is needed for the zero at the end.
    if name.len() >= address.sun_path.len() {
        return None;
    }
    for (place, byte) in address.sun_path.iter_mut().zip(name) {
        *place = *byte as libc::c_char;
    }
    Some(address)
}

/// Whether the process at the other end runs as this user, or as root.
pub fn is_users(stream: &UnixStream) -> bool {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the socket is open; both pointers are to locals of the sizes that are told.
    let answer = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    answer == 0 && (peer.uid == trust::user() || peer.uid == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_path_that_is_too_long_is_no_address() {
        assert!(address(Path::new("/run/x.sock")).is_some());
        assert!(address(Path::new(&format!("/{}", "x".repeat(200)))).is_none());
    }

    #[test]
    fn whoever_finds_the_file_can_connect() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join(format!("{}.sock", std::process::id()));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut seen = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let inode = file.symlink_metadata().map_or(seen, |found| found.ino());
                    if inode != seen {
                        UnixStream::connect(&file).expect("a socket that listens");
                        seen = inode;
                    }
                }
                seen
            });
            // All stay open: a client may be late.
            let _listening: Vec<_> = (0..200)
                .map(|_| listen(dir.path()).expect("a socket"))
                .collect();
            is_over.store(true, Ordering::Relaxed);
            assert_ne!(client.join().expect("it could always connect"), 0);
        });
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 1);
    }

    #[test]
    fn a_peer_of_this_user_is_ours() {
        let (one, _other) = UnixStream::pair().expect("sockets");
        assert!(is_users(&one));
    }

    #[test]
    fn a_number_that_the_program_has_taken_is_not_closed() {
        let (one, _other) = UnixStream::pair().expect("sockets");
        let mut own = Own::new(one).expect("moved");
        let number = own.id.descriptor;
        assert!(number >= 3 && own.get().is_some());
        let file = std::fs::File::open("/dev/null").expect("a file");
        // SAFETY: the program's part in this test: the number is replaced by a copy of another file.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), number) }, number);
        assert!(own.get().is_none());
        drop(own);
        // SAFETY: asks for a number; then the test's own copy is closed.
        unsafe {
            assert!(libc::fcntl(number, libc::F_GETFD) >= 0);
            libc::close(number);
        }
    }
}

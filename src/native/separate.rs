//! Debug information that is kept apart from its program: where distributions put it, and where a program says that
//! it is (`objcopy --add-gnu-debuglink`).

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::read::elf::ElfFile64;
use object::{Object, ReadCache};

const SYSTEM: &str = "/usr/lib/debug";

/// The file that has the debug information of this one, if there is one and it was made from the same program.
pub(super) fn separate(file: &Path) -> Option<PathBuf> {
    let own = Marks::of(file)?;
    own.by_id().or_else(|| own.by_link(file))
}

/// What a program says of its debug information.
struct Marks {
    build_id: Option<Vec<u8>>,
    /// The other file's name and checksum.
    link: Option<(PathBuf, u32)>,
}

impl Marks {
    fn of(file: &Path) -> Option<Marks> {
        let data = ReadCache::new(File::open(file).ok()?);
        let elf = ElfFile64::<object::Endianness, _>::parse(&data).ok()?;
        let link = elf.gnu_debuglink().ok().flatten();
        Some(Marks {
            build_id: elf.build_id().ok().flatten().map(<[u8]>::to_vec),
            link: link.map(|(name, sum)| (OsStr::from_bytes(name).into(), sum)),
        })
    }

    fn by_id(&self) -> Option<PathBuf> {
        let id = self.build_id.as_ref()?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let (folder, name) = id.split_at_checked(2)?;
        let file = PathBuf::from(format!("{SYSTEM}/.build-id/{folder}/{name}.debug"));
        file.is_file().then_some(file)
    }

    /// Looks where debuggers look, in their order: beside the program, in `.debug` there, and in the system's folder.
    fn by_link(&self, program: &Path) -> Option<PathBuf> {
        let (name, sum) = self.link.as_ref()?;
        // `program` may be a symbolic link in another folder, so the folder of the real file is used.
        let program = program.canonicalize().ok()?;
        let folder = program.parent()?;
        let system = Path::new(SYSTEM).join(folder.strip_prefix("/").ok()?);
        [
            folder.join(name),
            folder.join(".debug").join(name),
            system.join(name),
        ]
        .into_iter()
        .find(|file| *file != program && self.fits(file, *sum))
    }

    /// Whether the file belongs to this very build of the program. Equal build ids prove that without reading the whole file.
    fn fits(&self, file: &Path, sum: u32) -> bool {
        if !file.is_file() {
            return false;
        }
        let other = Marks::of(file).and_then(|marks| marks.build_id);
        match (&self.build_id, other) {
            (Some(own), Some(other)) => *own == other,
            _ => checksum(file) == Some(sum),
        }
    }
}

fn checksum(file: &Path) -> Option<u32> {
    let mut file = File::open(file).ok()?;
    let mut hasher = crc32fast::Hasher::new();
    let mut part = vec![0; 1 << 16];
    loop {
        match file.read(&mut part).ok()? {
            0 => return Some(hasher.finalize()),
            size => hasher.update(&part[..size]),
        }
    }
}

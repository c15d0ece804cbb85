//! The adapter's C++ source, embedded. `adapter.cpp` is the one translation unit; it includes the others.

use std::hash::Hasher;

use fnv::FnvHasher;

/// The file that is compiled.
pub const MAIN: &str = "adapter/adapter.cpp";

/// Every file of the adapter: its path below `src/torch`, and its text. A new file is one new line here.
pub const ADAPTER_SOURCES: &[(&str, &str)] = &[
    ("seam.h", include_str!("../torch/seam.h")),
    (
        "adapter/adapter.cpp",
        include_str!("../torch/adapter/adapter.cpp"),
    ),
    (
        "adapter/adapter.h",
        include_str!("../torch/adapter/adapter.h"),
    ),
    (
        "adapter/args.cpp",
        include_str!("../torch/adapter/args.cpp"),
    ),
    (
        "adapter/cell.cpp",
        include_str!("../torch/adapter/cell.cpp"),
    ),
    ("adapter/cell.h", include_str!("../torch/adapter/cell.h")),
    (
        "adapter/device.cpp",
        include_str!("../torch/adapter/device.cpp"),
    ),
    (
        "adapter/device.h",
        include_str!("../torch/adapter/device.h"),
    ),
    (
        "adapter/dlpack_abi.h",
        include_str!("../torch/adapter/dlpack_abi.h"),
    ),
    (
        "adapter/executor.cpp",
        include_str!("../torch/adapter/executor.cpp"),
    ),
    (
        "adapter/executor.h",
        include_str!("../torch/adapter/executor.h"),
    ),
    (
        "adapter/fallback.cpp",
        include_str!("../torch/adapter/fallback.cpp"),
    ),
    (
        "adapter/flat.cpp",
        include_str!("../torch/adapter/flat.cpp"),
    ),
    (
        "adapter/gradients.cpp",
        include_str!("../torch/adapter/gradients.cpp"),
    ),
    (
        "adapter/gradients.h",
        include_str!("../torch/adapter/gradients.h"),
    ),
    (
        "adapter/instrument.cpp",
        include_str!("../torch/adapter/instrument.cpp"),
    ),
    (
        "adapter/instrument.h",
        include_str!("../torch/adapter/instrument.h"),
    ),
    (
        "adapter/geometry.h",
        include_str!("../torch/adapter/geometry.h"),
    ),
    (
        "adapter/mirror.cpp",
        include_str!("../torch/adapter/mirror.cpp"),
    ),
    (
        "adapter/mirror.h",
        include_str!("../torch/adapter/mirror.h"),
    ),
    (
        "adapter/operands.cpp",
        include_str!("../torch/adapter/operands.cpp"),
    ),
    (
        "adapter/patch.cpp",
        include_str!("../torch/adapter/patch.cpp"),
    ),
    (
        "adapter/package.cpp",
        include_str!("../torch/adapter/package.cpp"),
    ),
    (
        "adapter/registry.cpp",
        include_str!("../torch/adapter/registry.cpp"),
    ),
    (
        "adapter/registry.h",
        include_str!("../torch/adapter/registry.h"),
    ),
    (
        "adapter/script.cpp",
        include_str!("../torch/adapter/script.cpp"),
    ),
    (
        "adapter/host_values.cpp",
        include_str!("../torch/adapter/host_values.cpp"),
    ),
    (
        "adapter/source.cpp",
        include_str!("../torch/adapter/source.cpp"),
    ),
    (
        "adapter/source.h",
        include_str!("../torch/adapter/source.h"),
    ),
    ("adapter/tap.cpp", include_str!("../torch/adapter/tap.cpp")),
    (
        "adapter/thread.cpp",
        include_str!("../torch/adapter/thread.cpp"),
    ),
    (
        "adapter/value.cpp",
        include_str!("../torch/adapter/value.cpp"),
    ),
    (
        "adapter/write.cpp",
        include_str!("../torch/adapter/write.cpp"),
    ),
    ("adapter/write.h", include_str!("../torch/adapter/write.h")),
];

/// The seam's version, as `seam.h` has it.
pub fn seam_version() -> u32 {
    let header = ADAPTER_SOURCES
        .iter()
        .find(|(name, _)| *name == "seam.h")
        .map_or("", |(_, text)| text);
    header
        .lines()
        .find_map(|line| {
            line.strip_prefix("#define GP_SEAM_VERSION")?
                .trim()
                .trim_end_matches(['u', 'U'])
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// A hash over all files, so that a changed source makes another adapter. FNV-1a gives the same number on every machine and in
/// every version of this library, which the standard library's hashers do not promise.
pub fn hash() -> u64 {
    let mut hash = FnvHasher::default();
    for (name, text) in ADAPTER_SOURCES {
        for part in [name, text] {
            hash.write(&(part.len() as u64).to_le_bytes());
            hash.write(part.as_bytes());
        }
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names and seals of adapters in users' caches contain hashes of this kind, so the algorithm must not change.
    #[test]
    fn the_hash_is_the_published_one() {
        let mut hash = FnvHasher::default();
        hash.write(b"foobar");
        assert_eq!(hash.finish(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn sources_are_complete() {
        assert!(seam_version() > 0, "seam.h defines GP_SEAM_VERSION");
        assert!(ADAPTER_SOURCES.iter().any(|(name, _)| *name == MAIN));
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../torch/adapter");
        for entry in std::fs::read_dir(here)
            .expect("adapter directory")
            .flatten()
        {
            let name = format!("adapter/{}", entry.file_name().to_string_lossy());
            assert!(
                ADAPTER_SOURCES.iter().any(|(listed, _)| *listed == name),
                "{name} is missing in ADAPTER_SOURCES"
            );
        }
    }
}

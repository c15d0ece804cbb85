//! Files of other kinds, where one of ours is expected.

/// The kind of a file, recognized by its first eight bytes.
pub(crate) fn known(bytes: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 7] = [
        (b"\x89PNG", "a PNG image"),
        (
            b"PK\x03\x04",
            "a zip archive, as torch.save and torch.jit.save write them",
        ),
        (b"\x7fELF", "a program or library"),
        (b"\x93NUMPY", "an npy array"),
        (b"GGUF", "a GGUF file"),
        (b"\x1f\x8b", "compressed with gzip"),
        (b"%PDF", "a PDF"),
    ];
    let kind = KINDS.iter().find(|(magic, _)| bytes.starts_with(magic));
    kind.map(|(_, what)| *what)
}

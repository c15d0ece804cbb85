//! Tests of npy files.

use super::*;
use proptest::prelude::*;

fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn header(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}   \n")
}

fn parsed(bytes: &[u8]) -> Result<HostTensor, Fault> {
    parse(&mut &*bytes, bytes.len() as u64)
}

fn read(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> HostTensor {
    parsed(&file(1, &header(descr, fortran, shape), data)).unwrap()
}

#[test]
fn every_dtype_and_byte_order() {
    for (descr, dtype) in [
        ("|b1", Dtype::Bool),
        ("|u1", Dtype::U8),
        ("|i1", Dtype::I8),
        ("i2", Dtype::I16),
        ("i4", Dtype::I32),
        ("i8", Dtype::I64),
        ("u2", Dtype::U16),
        ("u4", Dtype::U32),
        ("u8", Dtype::U64),
        ("f2", Dtype::F16),
        ("f4", Dtype::F32),
        ("f8", Dtype::F64),
        ("c8", Dtype::C64),
        ("c16", Dtype::C128),
    ] {
        let bytes: Vec<u8> = (0..2 * dtype.size() as u8).collect();
        if descr.starts_with('|') {
            let tensor = read(descr, "False", "(2,)", &bytes);
            assert_eq!((tensor.dtype(), tensor.bytes()), (dtype, &[0, 1][..]));
            continue;
        }
        let little = read(&format!("<{descr}"), "False", "(2,)", &bytes);
        assert_eq!((little.dtype(), little.shape()), (dtype, &[2][..]));
        assert_eq!(little.bytes(), bytes, "{descr}");
        let part = dtype.size() / if descr.starts_with('c') { 2 } else { 1 };
        let turned: Vec<u8> = bytes
            .chunks(part)
            .flat_map(|part| part.iter().rev())
            .copied()
            .collect();
        assert_eq!(read(&format!(">{descr}"), "False", "(2,)", &turned), little);
    }
    let odd = read("|b1", "False", "(3,)", &[0, 7, 255]);
    assert_eq!(odd.bytes(), [0, 1, 1]);
}

#[test]
fn fortran_order_becomes_row_major() {
    let tensor = read("|u1", "True", "(2, 3)", &[0, 3, 1, 4, 2, 5]);
    assert_eq!(tensor.bytes(), [0, 1, 2, 3, 4, 5]);
    // 2 × 3 × 2 of two bytes: element [i, j, k] is 6 i + 2 j + k, and lies at i + 2 j + 6 k.
    let mut data = [0u8; 24];
    for (i, j, k) in (0..12u8).map(|n| (n / 6, n / 2 % 3, n % 2)) {
        data[2 * usize::from(i + 2 * j + 6 * k)] = 6 * i + 2 * j + k;
    }
    let tensor = read("<i2", "True", "(2, 3, 2)", &data);
    let expected: Vec<u8> = (0..12).flat_map(|n| [n, 0]).collect();
    assert_eq!(
        (tensor.bytes(), tensor.shape()),
        (&*expected, &[2, 3, 2][..])
    );
    assert_eq!(read("|u1", "True", "(0, 3)", &[]).shape(), [0, 3]);
}

#[test]
fn shapes_and_versions() {
    assert_eq!(read("<f8", "False", "()", &[0; 8]).shape(), [0i64; 0]);
    assert_eq!(read("<f8", "False", "(0, 7)", &[]).shape(), [0, 7]);
    assert_eq!(read("|u1", "False", "(2L, 3L)", &[9; 6]).shape(), [2, 3]);
    for version in [1, 2, 3] {
        let text = "{\"shape\":(1,),\"fortran_order\":False,\"descr\":\"|i1\"}";
        assert_eq!(parsed(&file(version, text, &[5])).unwrap().bytes(), [5]);
    }
}

#[test]
fn refusals_name_the_place() {
    let simple = header("<f4", "False", "(2,)");
    for (bytes, place, why) in [
        (b"".to_vec(), "the beginning", "not an npy"),
        (
            b"\x80\x04\x95 a pickle".to_vec(),
            "the beginning",
            "not an npy",
        ),
        (file(4, &simple, &[0; 8]), "the beginning", "format 4"),
        (file(1, &simple, &[])[..40].to_vec(), "the header", "fill"),
        (file(2, "", &[])[..9].to_vec(), "the header's size", "fill"),
        (
            [MAGIC, &[2, 0, 255, 255, 255, 255]].concat(),
            "the header's size",
            "too many",
        ),
        (
            file(1, &simple, &[0; 7]),
            "the elements",
            "7 bytes do not make",
        ),
        (
            file(1, &simple, &[0; 9]),
            "the elements",
            "shape [2] and dtype float32",
        ),
        (
            file(1, &header("<f4", "False", "(9999999999, 9999999999)"), &[]),
            "the elements",
            "0 bytes",
        ),
        (
            file(1, &header("|O", "False", "(2,)"), &[]),
            "at byte 10",
            "Python objects",
        ),
        (
            file(1, &header("<U3", "False", "(2,)"), &[]),
            "at byte 10",
            "\"<U3\"",
        ),
        (
            file(1, &header("<V2", "False", "(2,)"), &[]),
            "at byte 10",
            "bfloat16",
        ),
        (
            file(1, &header("<M8[ns]", "False", "(2,)"), &[]),
            "at byte 10",
            "cannot be",
        ),
        (
            file(1, &header("<f16", "False", "(1,)"), &[0; 16]),
            "at byte 10",
            "cannot be",
        ),
        (
            file(1, &header("<f4", "maybe", "(2,)"), &[]),
            "the header, at byte 34",
            "True or False",
        ),
        (
            file(1, &header("<f4", "False", "(-2,)"), &[]),
            "the header",
            "expected a size",
        ),
        (
            file(1, &header("<f4", "False", "(2 3)"), &[]),
            "the header",
            "expected `,`",
        ),
        (
            file(1, "{'descr': [('a', '<f4')]}", &[]),
            "the header",
            "records",
        ),
        (
            file(1, "{'descr': '<f4', 'shape': (2,)}", &[]),
            "the header",
            "missing",
        ),
        (file(1, "{'other': 1}", &[]), "at byte 1", "\"other\""),
        (file(1, "{'descr': '<f4'} x", &[]), "the header", "follow"),
        (file(1, "{'descr", &[]), "the header", "never ends"),
        (file(1, "3", &[]), "at byte 0", "expected `{`"),
    ] {
        let fault = parsed(&bytes).expect_err(why);
        assert!(
            fault.place.contains(place) && fault.why.contains(why),
            "{place} {why}: {fault:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(
        text in "[{}()\\[\\],:'\" 0-9a-zL<>|]{0,60}",
        near in "\\{'descr': '[<>|][biufc][0-9]{1,2}', 'fortran_order': (True|False), 'shape': \\([0-9, ]{0,6}\\)\\}",
        data in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let _ = parsed(&data);
        let _ = parsed(&file(1, &text, &data));
        let _ = parsed(&file(3, &near, &data));
    }

    #[test]
    fn no_damage_panics(at in 0..90usize, byte in any::<u8>(), end in 0..100usize) {
        let mut bytes = file(1, &header("<f4", "True", "(2, 2)"), &[1; 16]);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let _ = parsed(&bytes);
        bytes.truncate(end);
        let _ = parsed(&bytes);
    }
}

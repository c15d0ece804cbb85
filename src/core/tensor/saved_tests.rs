use std::io::{Cursor, Write};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

const FLOATS: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

/// An archive as torch.save writes one, with this pickle.
fn archive(pickle: &[u8], order: &str) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let elements: Vec<u8> = FLOATS.iter().flat_map(|x| x.to_le_bytes()).collect();
    for (name, bytes) in [
        ("v/data.pkl", pickle),
        ("v/byteorder", order.as_bytes()),
        ("v/data/0", &elements),
    ] {
        zip.start_file(name, stored).expect("entry");
        zip.write_all(bytes).expect("write");
    }
    zip.finish().expect("zip").into_inner()
}

/// The instructions of one tensor of six floats at storage 0.
fn tensor(first: u8, shape: [u8; 2], strides: [u8; 2]) -> Vec<u8> {
    let pair = |[a, b]: [u8; 2]| [b'K', a, b'K', b, 0x86];
    let mut code = b"ctorch._utils\n_rebuild_tensor_v2\n((\x8c\x07storagectorch\nFloatStorage\n\
        \x8c\x010\x8c\x03cpuK\x06tQ"
        .to_vec();
    code.extend([b'K', first]);
    code.extend(pair(shape));
    code.extend(pair(strides));
    code.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    code
}

fn pickle(code: &[u8]) -> Vec<u8> {
    [b"\x80\x02", code, b"."].concat()
}

fn parsed(bytes: &[u8], key: Option<&str>) -> Result<HostTensor> {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("v.pt");
    std::fs::write(&file, bytes).expect("write");
    read(&file, key)
}

fn of(code: &[u8], key: Option<&str>) -> Result<HostTensor> {
    parsed(&archive(&pickle(code), "little"), key)
}

fn dict(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut code = b"}(".to_vec();
    for (key, value) in entries {
        code.extend([0x8c, key.len() as u8]);
        code.extend(key.as_bytes());
        code.extend(*value);
    }
    code.push(b'u');
    code
}

#[test]
fn tensors_views_and_dicts() {
    let dense = of(&tensor(0, [2, 3], [3, 1]), None).expect("read");
    assert_eq!((dense.dtype(), dense.shape()), (Dtype::F32, &[2, 3][..]));
    assert_eq!(dense.numbers(), FLOATS.map(f64::from));
    let turned = of(&tensor(0, [3, 2], [1, 3]), None).expect("read");
    assert_eq!(turned.numbers(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let part = tensor(4, [2, 2], [1, 0]);
    let state = dict(&[
        ("w.0", &part),
        ("step", b"K\x07"),
        ("odd", b"cos\nsystem\n(\x8c\x02lst\x85R"),
    ]);
    assert_eq!(
        of(&state, Some("w.0")).expect("read").numbers(),
        [4.0, 4.0, 5.0, 5.0]
    );
}

#[test]
fn refusals_say_what_and_where() {
    let whole = tensor(0, [2, 3], [3, 1]);
    let state = dict(&[("w", &whole), ("step", b"K\x07")]);
    let foreign = b"cos\nsystem\n\x8c\x02ls\x85R".to_vec();
    for (code, key, why) in [
        (foreign, None, "what os.system makes is no plain tensor"),
        (whole.clone(), Some("w"), "one tensor and no keys"),
        (state.clone(), None, "Write @file.pt#key; there are: w"),
        (state.clone(), Some("x"), "there are: w"),
        (state, Some("step"), "a number is no tensor"),
        (b"]".to_vec(), Some("x"), "no dict at its top"),
        (tensor(1, [2, 3], [3, 1]), None, "outside of its storage"),
        (
            tensor(0, [255, 255], [255, 255]),
            None,
            "outside of its storage",
        ),
        (b"i".to_vec(), None, "0x69 is none that torch.save writes"),
        (b"h\x07".to_vec(), None, "never made"),
        (b"t".to_vec(), None, "a mark is missing"),
        (Vec::new(), None, "nothing is left"),
    ] {
        let error = of(&code, key).expect_err(why).to_string();
        assert!(error.contains("v.pt: ") && error.contains(why), "{error}");
    }
    let big = archive(&pickle(&whole), "big");
    let error = parsed(&big, None).expect_err("big-endian").to_string();
    assert!(error.contains("little-endian"), "{error}");
    let error = parsed(b"\x80\x02legacy", None)
        .expect_err("no zip")
        .to_string();
    assert!(error.contains("torch.save"), "{error}");
}

#[test]
fn an_expanded_tensor_has_an_end() {
    let mut code = tensor(0, [1, 1], [0, 0]);
    // Both sizes become 2^30.
    let at = code
        .windows(5)
        .position(|part| part == b"K\x01K\x01\x86")
        .expect("shape");
    code.splice(at..at + 5, *b"J\0\0\0\x40J\0\0\0\x40\x86");
    let error = of(&code, None).expect_err("too large").to_string();
    assert!(error.contains("contiguous()"), "{error}");
}

#[test]
fn no_part_of_a_file_panics() {
    let whole = archive(
        &pickle(&dict(&[("w", &tensor(0, [2, 3], [3, 1]))])),
        "little",
    );
    for end in 0..whole.len() {
        let _ = parsed(&whole[..end], Some("w"));
    }
    for at in 0..whole.len() {
        for change in [0x01, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= change;
            let _ = parsed(&damaged, Some("w"));
        }
    }
}

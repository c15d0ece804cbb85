use super::*;

/// A file as the format's description has it: one number and one list of strings as metadata, and these tensors.
fn bytes(tensors: &[(&str, &[u64], u32, &[u8])]) -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut all = b"GGUF\x03\0\0\0".to_vec();
    all.extend((tensors.len() as u64).to_le_bytes());
    all.extend(2u64.to_le_bytes());
    all.extend(string("general.alignment"));
    all.extend([4u32.to_le_bytes(), 64u32.to_le_bytes()].concat());
    all.extend(string("tokens"));
    all.extend([9u32.to_le_bytes(), 8u32.to_le_bytes()].concat());
    all.extend(2u64.to_le_bytes());
    all.extend([string("a"), string("bc")].concat());
    let mut data = Vec::new();
    for (name, shape, kind, elements) in tensors {
        all.extend(string(name));
        all.extend((shape.len() as u32).to_le_bytes());
        all.extend(shape.iter().flat_map(|n| n.to_le_bytes()));
        all.extend(kind.to_le_bytes());
        all.extend((data.len() as u64).to_le_bytes());
        data.extend(*elements);
        data.resize(data.len().next_multiple_of(64), 0);
    }
    all.resize(all.len().next_multiple_of(64), 0);
    all.extend(data);
    all
}

fn parsed(bytes: &[u8], name: &str) -> Result<HostTensor> {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("v.gguf");
    std::fs::write(&file, bytes).expect("write");
    read(&file, name)
}

fn sample() -> Vec<u8> {
    let floats: Vec<u8> = (0..6).flat_map(|n| (n as f32).to_le_bytes()).collect();
    bytes(&[
        ("blk.0.w", &[3, 2], 0, &floats),
        ("ids", &[2], 24, &[1, 255]),
        ("packed", &[32], 2, &[0; 18]),
    ])
}

#[test]
fn tensors_have_the_shapes_of_pytorch() {
    let weight = parsed(&sample(), "blk.0.w").expect("read");
    assert_eq!((weight.dtype(), weight.shape()), (Dtype::F32, &[2, 3][..]));
    assert_eq!(weight.numbers(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(
        parsed(&sample(), "ids").expect("read").numbers(),
        [1.0, -1.0]
    );
}

#[test]
fn refusals_say_what_and_where() {
    for (bytes, name, why) in [
        (sample(), "packed", "quantized (GGML type 2)"),
        (sample(), "blk", "there are: blk.0.w, "),
        (b"PK\x03\x04".to_vec(), "x", "not a GGUF file"),
        (b"GGUF\0\0\0\x03".to_vec(), "x", "big-endian"),
        (b"GGUF\x01\0\0\0".to_vec(), "x", "version 1"),
        (
            bytes(&[("w", &[1 << 62, 8], 0, &[])]),
            "w",
            "the file ends before",
        ),
        (
            bytes(&[("w", &[100], 0, &[0; 4])]),
            "w",
            "the file ends before",
        ),
    ] {
        let error = parsed(&bytes, name).expect_err(why).to_string();
        assert!(error.contains("v.gguf: ") && error.contains(why), "{error}");
    }
}

#[test]
fn no_part_of_a_file_panics() {
    let whole = sample();
    for end in 0..whole.len() {
        let _ = parsed(&whole[..end], "blk.0.w");
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        let _ = parsed(&damaged, "blk.0.w");
    }
}

//! Tests of safetensors files.

use super::*;
use proptest::prelude::*;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;

fn parsed(bytes: &[u8], key: &str) -> Result<HostTensor, Fault> {
    one(&mut Cursor::new(bytes), bytes.len() as u64, key)
}

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn counting(dtype: Dtype, shape: &[i64]) -> HostTensor {
    let mut tensor = HostTensor::zeros(dtype, shape).unwrap();
    for (n, byte) in tensor.bytes_mut().iter_mut().enumerate() {
        *byte = if dtype == Dtype::Bool {
            (n % 2) as u8
        } else {
            n as u8
        };
    }
    tensor
}

#[test]
fn every_dtype_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("a.safetensors");
    let held = Dtype::ALL.into_iter().filter(|dtype| holds(*dtype));
    let mut tensors: Vec<(String, HostTensor)> = held
        .map(|dtype| (format!("x.{}#0", dtype.name()), counting(dtype, &[2, 3])))
        .collect();
    assert_eq!(tensors.len(), Dtype::ALL.len() - 2);
    tensors.push(("scalar|é\"".into(), counting(Dtype::F64, &[])));
    tensors.push(("".into(), counting(Dtype::Bf16, &[0, 7])));
    std::fs::write(&name, "old").unwrap();
    save(&name, &tensors).unwrap();
    for (key, tensor) in &tensors {
        assert_eq!(read(&name, key).unwrap(), *tensor, "{key}");
    }
    let mut all = read_all(&name).unwrap();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(all, tensors);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let mode = |file: &Path| file.metadata().unwrap().permissions().mode();
    assert_eq!(mode(&name), mode(&plain));
    save::<HostTensor>(&name, &[]).unwrap();
    assert!(read_all(&name).unwrap().is_empty());
}

#[test]
fn what_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("a.safetensors");
    for dtype in [Dtype::C32, Dtype::C128] {
        assert!(!holds(dtype));
        let error = save(&name, &[("k.x".to_owned(), counting(dtype, &[1]))]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("a.safetensors")
                && text.contains("\"k.x\"")
                && text.contains(dtype.name()),
            "{text}"
        );
    }
    let twice = [(); 2].map(|()| ("k".to_owned(), counting(Dtype::U8, &[1])));
    assert!(save(&name, &twice).is_err());
    assert!(save(&name, &[(RESERVED.to_owned(), counting(Dtype::U8, &[1]))]).is_err());
    assert!(!name.exists());
    assert!(save(Path::new("/nonexistent/a.safetensors"), &twice[..1]).is_err());
}

#[test]
fn a_missing_key_names_the_nearest_first() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("a.safetensors");
    let keys = ["alpha", "layers.0.clean", "layers.0.corrupt", "layer"];
    let tensors = keys.map(|key| (key.to_owned(), counting(Dtype::U8, &[1])));
    save(&name, &tensors).unwrap();
    let said = |key: &str| read(&name, key).unwrap_err().to_string();
    assert!(
        said("layers.0.claen")
            .contains("\"layers.0.claen\": not in the file; there are: layers.0.clean, ")
    );
    assert!(
        said("layers").contains("there are: layers.0.clean, layers.0.corrupt, layer, alpha"),
        "{}",
        said("layers")
    );
    let many: Vec<_> = (0..30)
        .map(|n| (format!("k{n}"), counting(Dtype::U8, &[1])))
        .collect();
    save(&name, &many).unwrap();
    assert!(said("k").ends_with(", ...") && said("k").matches(", k").count() == 19);
    save::<HostTensor>(&name, &[]).unwrap();
    assert!(said("k").contains("holds no tensors"));
}

#[test]
fn refusals_name_the_place() {
    let tensor = |dtype: &str, shape: &str, end: usize| {
        format!("{{\"k\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}}}")
    };
    for (bytes, place, why) in [
        (vec![], "size", "not a safetensors file: it has less"),
        (
            b"PK\x03\x04 a checkpoint of torch".to_vec(),
            "the beginning",
            "not a safetensors file: it is a zip archive, as torch.save",
        ),
        (
            b"{\"format\": 1}".to_vec(),
            "the beginning",
            "not a safetensors file: it is a text",
        ),
        (
            file("{}", &[])[..9].to_vec(),
            "size",
            "2 bytes of header in 1",
        ),
        (file("{\"k\": ", &[]), "the header, line 1, column", "EOF"),
        (file("[]", &[]), "the header", ""),
        (
            file(&tensor("F32", "[2]", 8), &[0; 7]),
            "the tensors",
            "7 bytes",
        ),
        (
            file(&tensor("F32", "[2]", 8), &[0; 9]),
            "the tensors",
            "9 bytes",
        ),
        (
            file(&tensor("F32", "[3]", 8), &[0; 8]),
            "the header",
            "shape",
        ),
        (
            file(&tensor("F32", "[9223372036854775807,9]", 8), &[0; 8]),
            "the header",
            "overflow",
        ),
        (file(&tensor("F99", "[2]", 8), &[0; 8]), "the header", "F99"),
        (
            file(&tensor("F8_E8M0", "[2]", 2), &[0; 2]),
            "key \"k\"",
            "no dtype F8_E8M0",
        ),
        (
            file(&tensor("F4", "[4]", 2), &[0; 2]),
            "key \"k\"",
            "no dtype F4",
        ),
    ] {
        let fault = parsed(&bytes, "k").expect_err(why);
        assert!(
            fault.place.contains(place) && fault.why.contains(why),
            "{place} {why}: {fault:?}"
        );
    }
    let odd = file(&tensor("BOOL", "[3]", 3), &[0, 2, 255]);
    assert_eq!(parsed(&odd, "k").unwrap().bytes(), [0, 1, 1]);
}

proptest! {
    #[test]
    fn no_bytes_panic(header in "[{}\\[\\]\":,a-zA-Z0-9_]{0,60}", data in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = parsed(&data, "k");
        let _ = parsed(&file(&header, &data), "k");
    }

    #[test]
    fn no_damage_panics(at in 0..80usize, byte in any::<u8>(), end in 0..80usize) {
        let mut bytes = file("{\"k\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", &[1; 8]);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let _ = parsed(&bytes, "k");
        bytes.truncate(end);
        let _ = parsed(&bytes, "k");
    }
}

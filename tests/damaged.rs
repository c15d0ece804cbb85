//! Damaged files for the readers that tests/fuzz fuzzes: here a bounded number of them, in every run of the tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

#[path = "fuzz/src/loaders.rs"]
mod loaders;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use loaders::{NAMES, READERS};

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/seeds");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let file = path.file_name().unwrap().to_string_lossy();
            file.split('-').next() == Some(name)
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no seed for {name}");
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// One change of a file: its position, how many bytes are cut out there, and the bytes that are put in their place.
type Damage = (Index, usize, Vec<u8>);

fn damaged(mut bytes: Vec<u8>, changes: &[Damage]) -> Vec<u8> {
    for (at, cut, new) in changes {
        let at = at.index(bytes.len() + 1);
        let end = bytes.len().min(at + cut);
        bytes.splice(at..end, new.iter().copied());
    }
    bytes
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let inserted = prop_oneof![
        vec(any::<u8>(), 0..4),
        vec(prop::sample::select(&b"{}[]\",:.|\\#=-019en"[..]), 0..6),
        prop::sample::select(vec![
            "-1",
            "18446744073709551616",
            "1e999",
            "null",
            "[[[[[[[["
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    vec((any::<Index>(), 0usize..8, inserted), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn is_refused_or_read(which in 0..READERS.len(), seed in any::<Index>(), changes in damage()) {
        let seeds = seeds(NAMES[which]);
        READERS[which](&damaged(seeds[seed.index(seeds.len())].clone(), &changes));
    }
}

/// The seeds must be valid: damage of a file that is refused at once would never reach the inner parts of a reader.
#[test]
fn what_is_not_damaged_is_read() {
    for (name, read) in NAMES.iter().zip(READERS) {
        for (at, seed) in seeds(name).iter().enumerate() {
            assert!(read(seed), "seed {at} for {name}");
        }
    }
}

#[test]
fn cut_off_anywhere() {
    for (name, read) in NAMES.iter().zip(READERS) {
        for seed in seeds(name) {
            for end in 0..=seed.len() {
                read(&seed[..end]);
            }
        }
    }
}

#[test]
fn nested_without_end() {
    for (open, which) in [
        ("[", 0),
        ("{\"a\":", 0),
        ("x = [", 1),
        ("a.", 4),
        ("\\", 4),
        ("(", 7),
        ("{ f(", 7),
        ("[", 8),
    ] {
        READERS[which](open.repeat(100_000).as_bytes());
    }
    for (open, close) in [("{", "}"), ("[", "]"), ("(", ")")] {
        let nested = format!("{}a{}=zero", open.repeat(100_000), close.repeat(100_000));
        READERS[4](nested.as_bytes());
        READERS[7](format!("A::run_impl() {{ {nested}; }}").as_bytes());
    }
    let value = |open: &str, close: &str| {
        format!(
            "{{\"format\":1,\"graphs\":[{{\"name\":\"g\",\"runs\":1,\"root\":{{\"name\":\"r\",\"kind\":\"scope\",\
             \"value\":{}\"int\"{}}}}}]}}",
            open.repeat(60),
            close.repeat(60)
        )
    };
    READERS[0](value("{\"list\":[", "]}").as_bytes());
    READERS[0](value("{\"mixed\":[", "]}").as_bytes());
    READERS[1](format!("[[patch]]\nvalue = {}", "{a=".repeat(100_000)).as_bytes());
}

/// Numbers at which sums and products overflow, in the place of every number of a file in binary.
#[test]
fn extreme_numbers_anywhere() {
    for (name, read) in NAMES.iter().zip(READERS) {
        if !["npy", "safetensors", "program"].contains(name) {
            continue;
        }
        for mut seed in seeds(name) {
            for at in (0..seed.len() - 8).step_by(8) {
                let own: [u8; 8] = seed[at..at + 8].try_into().unwrap();
                for extreme in [u64::MAX, u64::MAX - 0x3ff, i64::MAX as u64, 1 << 63] {
                    seed[at..at + 8].copy_from_slice(&extreme.to_le_bytes());
                    read(&seed);
                }
                seed[at..at + 8].copy_from_slice(&own);
            }
        }
    }
}

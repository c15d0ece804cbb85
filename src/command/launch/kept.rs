//! What probes and records have kept, of all processes: put together and saved.

use std::collections::HashSet;
use std::path::Path;

use graphpatch_core::error::Result;
use graphpatch_core::tensor::{HostTensor, safetensors};
use graphpatch_protocol::Report;

/// Saves the values of these processes in one file. Returns a text for each value that could not be read or kept.
pub fn save<'a>(reports: impl Iterator<Item = &'a Report>, file: &Path) -> Result<Vec<String>> {
    let (tensors, lost) = collect(reports);
    safetensors::save(file, &tensors)?;
    Ok(lost)
}

/// The values of these processes under unique keys, and a text for each that could not be read or kept.
pub fn collect<'a>(
    reports: impl Iterator<Item = &'a Report>,
) -> (Vec<(String, HostTensor)>, Vec<String>) {
    let (mut all, mut lost) = (Keys::default(), Vec::new());
    for report in reports {
        lost.extend(report.unsaved.iter().cloned());
        let Some(values) = &report.values else {
            continue;
        };
        match safetensors::read_all(values) {
            Ok(tensors) => all.take(tensors, report.pid),
            Err(why) => lost.push(format!("the values of process {}: {why}", report.pid)),
        }
    }
    (all.tensors, lost)
}

/// Tensors under unique keys.
#[derive(Default)]
struct Keys {
    taken: HashSet<String>,
    tensors: Vec<(String, HostTensor)>,
}

impl Keys {
    /// Adds tensors. A key that another process has used already gets `@PID` appended.
    fn take(&mut self, tensors: Vec<(String, HostTensor)>, pid: u32) {
        for (mut key, tensor) in tensors {
            if self.taken.contains(&key) {
                key = format!("{key}@{pid}");
            }
            // A process that became another program by exec has the same id again.
            while !self.taken.insert(key.clone()) {
                key.push('~');
            }
            self.tensors.push((key, tensor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphpatch_core::tensor::Dtype;

    fn tensor(byte: u8) -> HostTensor {
        let mut tensor = HostTensor::zeros(Dtype::U8, &[1]).expect("tensor");
        tensor.bytes_mut()[0] = byte;
        tensor
    }

    #[test]
    fn processes_are_put_together() {
        let dir = tempfile::tempdir().expect("dir");
        let report = |pid: u32, start: u8, keys: &[&str]| {
            let file = dir.path().join(format!("values-{pid}-{start}.safetensors"));
            let tensors: Vec<_> = keys
                .iter()
                .map(|key| (key.to_string(), tensor(start)))
                .collect();
            safetensors::save(&file, &tensors).expect("save");
            let values = Some(file);
            Report {
                pid,
                values,
                ..Report::default()
            }
        };
        let mut reports = [
            report(3, 0, &["a", "r#0", "r#1"]),
            report(7, 1, &["a", "b", "r#0"]),
            report(7, 2, &["a"]),
            Report::default(),
        ];
        let file = dir.path().join("out.safetensors");
        assert!(save(reports.iter(), &file).expect("save").is_empty());
        let mut all: Vec<(String, u8)> = safetensors::read_all(&file)
            .expect("read")
            .into_iter()
            .map(|(key, tensor)| (key, tensor.bytes()[0]))
            .collect();
        all.sort();
        let expected = [
            ("a", 0),
            ("a@7", 1),
            ("a@7~", 2),
            ("b", 1),
            ("r#0", 0),
            ("r#0@7", 1),
            ("r#1", 0),
        ];
        assert_eq!(all, expected.map(|(key, byte)| (key.to_owned(), byte)));
        std::fs::write(dir.path().join("values-7-2.safetensors"), "half").expect("write");
        reports[0].unsaved.push("c: no".into());
        let lost = save(reports.iter(), &file).expect("save");
        assert!(
            lost.len() == 2 && lost[0] == "c: no" && lost[1].contains("process 7"),
            "{lost:?}"
        );
        assert_eq!(safetensors::read_all(&file).expect("read").len(), 6);
        assert!(save(reports.iter(), &dir.path().join("absent/out")).is_err());
    }
}

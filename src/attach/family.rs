//! The processes that a process has started, and what each is called: `/proc`.

use std::collections::HashMap;

/// A process below another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relative {
    pub pid: u32,
    /// See [`title`].
    pub title: String,
}

/// What a process calls itself: the first word of its command line, which many set to a text of their own, without control
/// characters; empty where there is none.
pub fn title(pid: u32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = words.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(first);
    text.trim()
        .chars()
        .filter(|char| !char.is_control())
        .collect()
}

/// The process that has started this one.
pub fn parent(pid: u32) -> Option<u32> {
    let text = std::fs::read(format!("/proc/{pid}/status")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|parent| *parent != 0)
}

/// All processes below this one, near ones first.
pub fn below(pid: u32) -> Vec<Relative> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let number: Option<u32> = entry.file_name().to_str().and_then(|it| it.parse().ok());
        if let Some(number) = number
            && let Some(parent) = parent(number)
        {
            children.entry(parent).or_default().push(number);
        }
    }
    let mut found = children.remove(&pid).unwrap_or_default();
    let mut at = 0;
    while let Some(next) = found.get(at).copied() {
        found.extend(children.remove(&next).unwrap_or_default());
        at += 1;
    }
    let relative = |pid| Relative {
        pid,
        title: title(pid),
    };
    found.into_iter().map(relative).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_below_its_parent_under_its_own_title() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .expect("sleep");
        let own = std::process::id();
        assert_eq!(parent(child.id()), Some(own));
        let found = below(own);
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(found.iter().any(|one| one.pid == child.id()), "{found:?}");
        assert!(below(u32::MAX).is_empty() && title(u32::MAX).is_empty());
    }
}

//! What is said of a failure, in few words: why a patch could not be applied, and what a program said that failed.

use graphpatch_core::patch::PatchSpec;

/// The end of the sentence that a patch failed, which has just named the patch.
pub fn why_failed(spec: &PatchSpec, error: &str) -> String {
    match node_and_reason(spec, error) {
        (None, why) => format!(": {why}"),
        (Some(node), why) => format!(", last at {node}: {why}"),
    }
}

/// The same for the cell of a table whose row has named the patch.
pub fn last_error(spec: &PatchSpec, error: &str) -> String {
    match node_and_reason(spec, error) {
        (None, why) => why.to_owned(),
        (Some(node), why) => format!("at {node}: {why}"),
    }
}

/// What an error says beside the patch. It was made for the program's own streams, so it begins with the patch and its node, which
/// is of interest only where the patch stands at a pattern.
fn node_and_reason<'a>(spec: &PatchSpec, error: &'a str) -> (Option<&'a str>, &'a str) {
    let known = error.split_once(" cannot be applied at ");
    match known.and_then(|(_, rest)| rest.split_once(": ")) {
        Some((node, why)) => ((spec.path.to_string() != node).then_some(node), why),
        None => (None, error),
    }
}

/// How libtorch begins TorchScript's traceback, which it puts in front of the error of an operation: the source of every module on the
/// way. There may be two, of the archive's code and of the Python code that it was made from.
const BEGINS: &str = "Traceback of TorchScript";

/// The text with a line in place of each traceback of TorchScript.
pub fn folded(text: &str) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with(BEGINS) {
            kept.push(line.to_owned());
            continue;
        }
        let mut left_out = 1;
        while lines.next_if(|line| !is_error(line)).is_some() {
            left_out += 1;
        }
        kept.push(format!("(TorchScript's traceback: {left_out} lines)"));
    }
    kept.join("\n")
}

/// Whether a line is the error behind a traceback: `RuntimeError: …`, or another class's name. Lines of source stand between, some of
/// which are not indented.
fn is_error(line: &str) -> bool {
    let Some((class, _)) = line.split_once(": ") else {
        return line.ends_with("Error:");
    };
    let name = class.rsplit('.').next().unwrap_or_default();
    let is_class = |name: &str| {
        name.starts_with(char::is_uppercase)
            && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    is_class(name)
        && class
            .chars()
            .all(|c| c.is_alphanumeric() || "._".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
terminate called after throwing an instance of 'std::runtime_error'
  what():  The following operation failed in the TorchScript interpreter.
Traceback of TorchScript, serialized code (most recent call last):
  File \"code/__torch__.py\", line 7, in forward
  def forward(self: __torch__.M,
    x: Tensor) -> Tensor:
    return torch.add(x, x)
           ~~~~~~~~~ <--- HERE

Traceback of TorchScript, original code (most recent call last):
  File \"m.py\", line 3, in forward
def forward(self, x):
    return x + x
           ~~~~~ <--- HERE
RuntimeError: graphpatch: patch \"add[9]=zero\" cannot be applied at add: index 9 is out of bounds: (3)

goodbye";

    #[test]
    fn why_a_patch_failed_is_short() {
        let error = "graphpatch: patch \"a.*[9]=zero\" cannot be applied at a.b: index 9 is out of bounds: (3)";
        let why =
            |path: &str| why_failed(&format!("{path}[9]=zero").parse().expect("patch"), error);
        assert_eq!(why("a.b"), ": index 9 is out of bounds: (3)");
        assert_eq!(why("a.*"), ", last at a.b: index 9 is out of bounds: (3)");
        let spec: PatchSpec = "a=zero".parse().expect("patch");
        assert_eq!(why_failed(&spec, "no room"), ": no room");
        assert_eq!(last_error(&spec, "no room"), "no room");
        let pattern = "a.*[9]=zero".parse().expect("patch");
        assert!(last_error(&pattern, error).starts_with("at a.b: index 9"));
    }

    #[test]
    fn the_error_itself_stays() {
        let folded = folded(SAID);
        let lines: Vec<&str> = folded.lines().collect();
        assert_eq!(lines[2], "(TorchScript's traceback: 12 lines)");
        assert!(lines[3].starts_with("RuntimeError: graphpatch: patch"));
        assert_eq!((lines.len(), lines[5]), (6, "goodbye"));
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in [
            "",
            "a\n\nb",
            "Traceback (most recent call last):\n  File \"m.py\"",
        ] {
            assert_eq!(folded(text), text);
        }
        let cut = "Traceback of TorchScript (most recent call last):\n  File \"m.py\"";
        assert_eq!(folded(cut), "(TorchScript's traceback: 2 lines)");
    }
}

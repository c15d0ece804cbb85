//! Adds to a graph what has to be read from files on this machine: the lines of native code, and the text of source lines.

use rustc_hash::FxHashMap;

use graphpatch_core::graph::{CodeAddress, Graph, Node, SourceLine};

use super::Symbols;

/// Files larger than this are not read as source.
const LARGEST: u64 = 16 << 20;

/// Reads programs and sources; each once.
#[derive(Default)]
pub struct SourceReader {
    symbols: Symbols,
    /// The lines of source files; empty where there is no such file.
    files: FxHashMap<String, Vec<String>>,
}

impl SourceReader {
    /// Makes frames of the graph's calls in native code, and looks up the text of lines that have none.
    pub fn read(&mut self, graph: &mut Graph) {
        self.node(&mut graph.root);
    }

    fn node(&mut self, node: &mut Node) {
        self.frames(&mut node.addresses, &mut node.frames);
        for call in &mut node.other_calls {
            self.frames(&mut call.addresses, &mut call.frames);
        }
        for child in &mut node.children {
            self.node(child);
        }
    }

    fn frames(&mut self, addresses: &mut Vec<CodeAddress>, known: &mut Vec<SourceLine>) {
        if !addresses.is_empty() {
            let mut frames = Vec::new();
            for address in std::mem::take(addresses) {
                frames.extend(self.symbols.lines(&address).iter().map(|line| SourceLine {
                    file: line.file.clone(),
                    line: line.line,
                    function: line.function.clone(),
                    text: String::new(),
                }));
            }
            frames.append(known);
            *known = frames;
        }
        for frame in known {
            if frame.text.is_empty() && frame.line != 0 {
                frame.text = self.text(&frame.file, frame.line);
            }
        }
    }

    fn text(&mut self, file: &str, line: u32) -> String {
        if !self.files.contains_key(file) {
            self.files
                .insert(file.to_owned(), read(file).unwrap_or_default());
        }
        let lines = self.files.get(file);
        lines
            .and_then(|lines| lines.get(line as usize - 1).cloned())
            .unwrap_or_default()
    }
}

fn read(file: &str) -> Option<Vec<String>> {
    let about = std::fs::metadata(file).ok()?;
    if !about.is_file() || about.len() > LARGEST {
        return None;
    }
    let text = std::fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&text);
    Some(text.lines().map(|line| line.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphpatch_core::graph::{CodeAddress, Kind};

    #[test]
    fn texts_are_looked_up_once_and_addresses_become_frames() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("net.cpp");
        std::fs::write(&file, "int main() {\n  forward();\n}\n").unwrap();
        let frame = |line, text: &str| SourceLine {
            file: file.display().to_string(),
            line,
            function: "main".into(),
            text: text.into(),
        };
        let mut graph = Graph::new("Net.forward");
        graph.root.children = ["linear", "relu", "add"]
            .map(|name| Node::new(Kind::Op, name))
            .into();
        let add = &mut graph.root.children[2];
        add.frames = vec![frame(2, ""), frame(9, ""), frame(0, ""), frame(1, "known")];
        add.addresses = vec![CodeAddress {
            file: folder.path().join("absent").as_path().into(),
            address: 16,
        }];
        let mut reader = SourceReader::default();
        reader.read(&mut graph);
        let add = &graph.root.children[2];
        let texts: Vec<&str> = add.frames.iter().map(|frame| &*frame.text).collect();
        assert_eq!(texts, ["", "forward();", "", "", "known"]);
        assert!(add.addresses.is_empty() && add.frames[0].function == "0x10");
        std::fs::remove_file(&file).unwrap();
        graph.root.children[0].frames = vec![frame(2, "")];
        reader.read(&mut graph);
        assert_eq!(graph.root.children[0].frames[0].text, "forward();");
    }
}

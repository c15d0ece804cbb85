//! The files that a command is asked to write. They are checked before anything starts, so that a mistyped name does not
//! cost the user a file or the result of a long run.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::voice::Stop;
use graphpatch_core::output::{Destination, folder_of};

/// What a file holds that a command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// `run --graph`
    Graph,
    /// `run --trace`
    Trace,
    /// `run --save`
    Values,
    /// `sweep -o`: CSV, JSON or Parquet, by its ending.
    Table,
    /// What a sweep keeps beside its table while it lasts.
    Journal,
    /// `sweep --heat-map`
    Picture,
    /// `view --statistics`
    Parquet,
    /// `view -o`
    Page,
    /// `view --dot -o`
    Graphviz,
}

/// A file that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// The option that names it, as its user writes it.
    pub option: &'a str,
    pub file: &'a Path,
    pub content: Content,
}

/// A file that is read, and by whom: `--against`, PROGRAM.
#[derive(Clone, Debug)]
pub struct Input {
    pub reader: String,
    pub file: PathBuf,
}

impl Input {
    pub fn new(reader: impl Into<String>, file: &Path) -> Input {
        Input {
            reader: reader.into(),
            file: file.to_owned(),
        }
    }
}

/// For each ending of a file name, the contents that may be written to such a file. There may be none.
const ENDINGS: &[(&str, &[Content])] = &[
    ("json", &[Content::Graph, Content::Table, Content::Trace]),
    ("csv", &[Content::Table]),
    ("safetensors", &[Content::Values]),
    ("journal", &[Content::Journal]),
    ("svg", &[Content::Picture]),
    ("html", &[Content::Page]),
    ("htm", &[Content::Page]),
    ("dot", &[Content::Graphviz]),
    ("gv", &[Content::Graphviz]),
    ("npy", &[]),
    ("npz", &[]),
    ("pt", &[]),
    ("pth", &[]),
    ("pt2", &[]),
    ("bin", &[]),
    ("ckpt", &[]),
    ("onnx", &[]),
    ("gguf", &[]),
    ("pkl", &[]),
    ("parquet", &[Content::Table, Content::Parquet]),
    ("toml", &[]),
    ("py", &[]),
    ("so", &[]),
];

impl Content {
    /// The content's name in a message, and the usual ending of its files.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Content::Graph => ("a graph", ".json"),
            Content::Trace => ("a trace", ".json"),
            Content::Values => ("safetensors", ".safetensors"),
            Content::Table => ("a table", ".csv, .json or .parquet"),
            Content::Journal => ("the journal of a sweep", ".journal"),
            Content::Picture => ("a picture (SVG)", ".svg"),
            Content::Parquet => ("a table (Parquet)", ".parquet"),
            Content::Page => ("a page (HTML)", ".html"),
            Content::Graphviz => ("Graphviz text", ".dot"),
        }
    }

    /// Whether a file that begins so may hold this content. An empty file may hold any.
    fn fits(self, begin: &[u8]) -> bool {
        let text = begin.trim_ascii_start();
        let begins = |words: &[&str]| {
            words.iter().any(|word| {
                text.get(..word.len())
                    .is_some_and(|head| head.eq_ignore_ascii_case(word.as_bytes()))
            })
        };
        if begin.is_empty() {
            return true;
        }
        match self {
            Content::Graph => begins(&["{"]) && contains(text, b"\"graphs\""),
            Content::Trace => begins(&["{"]) && contains(text, b"\"traceEvents\""),
            Content::Values => {
                let length = begin.first_chunk().map(|head| u64::from_le_bytes(*head));
                length.is_some_and(|length| length < 1 << 32) && begin.get(8) == Some(&b'{')
            }
            Content::Table => {
                let ours = contains(text, b"\"rows\"") || contains(text, b"\"settings\"");
                let binary = |byte: &u8| *byte < b' ' && !byte.is_ascii_whitespace();
                begin.starts_with(b"PAR1") || !begin.iter().any(binary) && (ours || !begins(&["{"]))
            }
            Content::Journal => begins(&["{"]) && contains(text, b"\"command\""),
            Content::Picture => begins(&["<svg", "<?xml"]),
            Content::Parquet => begin.starts_with(b"PAR1"),
            Content::Page => begins(&["<!doctype html", "<html"]),
            Content::Graphviz => begins(&["digraph", "strict digraph", "graph", "/*", "//", "#"]),
        }
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

/// Refuses outputs that would destroy a file: two outputs of the same name, an output that is also an input, and one that
/// would replace a file of another kind. Of a device or a pipe (`/dev/stdout`), only the permission to write is checked.
///
/// # Errors
///
/// A message that names the option, the file and the reason.
pub fn check(outputs: &[Output<'_>], inputs: &[Input]) -> Result<(), Stop> {
    for (at, output) in outputs.iter().enumerate() {
        check_writable(output.file)?;
        let refuse = |why: String| {
            let Output { option, file, .. } = output;
            Err(Stop::usage(format!("{option} {}: {why}", file.display())))
        };
        if matches!(Destination::of(output.file), Destination::Stream(_)) {
            continue;
        }
        let own = identity(output.file);
        if let Some(other) = outputs[..at]
            .iter()
            .find(|other| identity(other.file) == own)
        {
            return refuse(format!(
                "is the file of {}, too; give each its own",
                other.option
            ));
        }
        if let Some(input) = inputs.iter().find(|input| identity(&input.file) == own) {
            return refuse(format!(
                "would be overwritten, but {} reads it; name another file",
                input.reader
            ));
        }
        let (content, ending) = output.content.words();
        if let Some(promised) = ending_of(output.file)
            && !promised.contains(&output.content)
        {
            return refuse(format!(
                "would hold {content}, which its name does not say; end it in {ending}"
            ));
        }
        if !output.content.fits(&begin_of(output.file)) {
            return refuse(format!(
                "is there already and does not hold {content}; name another file, or remove it"
            ));
        }
    }
    Ok(())
}

/// The files among a program's name and arguments.
pub fn inputs_of(argv: &[std::ffi::OsString]) -> impl Iterator<Item = Input> + '_ {
    argv.iter().filter_map(|argument| {
        let file = Path::new(argument);
        file.is_file().then(|| Input::new("PROGRAM", file))
    })
}

fn ending_of(file: &Path) -> Option<&'static [Content]> {
    let ending = file.extension()?.to_str()?.to_ascii_lowercase();
    ENDINGS
        .iter()
        .find(|(known, _)| *known == ending)
        .map(|(_, contents)| *contents)
}

/// A path that is the same for all names of a file, also if the file does not exist yet.
fn identity(file: &Path) -> PathBuf {
    let (Destination::File(file) | Destination::Stream(file)) = Destination::of(file);
    if let Ok(whole) = file.canonicalize() {
        return whole;
    }
    match (folder_of(&file).canonicalize(), file.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => file,
    }
}

/// The first bytes of a file; none where there is no such file.
fn begin_of(file: &Path) -> Vec<u8> {
    let mut begin = Vec::new();
    if let Ok(file) = File::open(file) {
        // An error of reading is ignored here; writing the file will report it.
        let _ = file.take(4096).read_to_end(&mut begin);
    }
    begin
}

/// Checks that a file can be made there, by making a temporary one in the same folder. Of a pipe or a device, it checks the
/// permission to write.
fn check_writable(file: &Path) -> Result<(), Stop> {
    let refuse = |why: String| Err(Stop::usage(format!("{}: {why}", file.display())));
    if file.is_dir() {
        return refuse("is a directory".into());
    }
    let writable = match Destination::of(file) {
        Destination::Stream(stream) => may_write(&stream),
        Destination::File(file) if file.is_symlink() => {
            return refuse("its symbolic links lead nowhere".into());
        }
        Destination::File(file) => tempfile::Builder::new()
            .prefix(".graphpatch-")
            .tempfile_in(folder_of(&file))
            .map(drop),
    };
    let folder = folder_of(file);
    match writable {
        Ok(()) => Ok(()),
        Err(_) if !folder.exists() => refuse(format!(
            "cannot be written: the folder {} is not there",
            folder.display()
        )),
        Err(why) => refuse(format!("cannot be written: {}", why.kind())),
    }
}

/// Checks the permission by `access`, since opening a pipe would wait for its reader.
fn may_write(stream: &Path) -> std::io::Result<()> {
    let path = CString::new(stream.as_os_str().as_bytes())?;
    // SAFETY: a C string, which the call only reads.
    match unsafe { libc::access(path.as_ptr(), libc::W_OK) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(outputs: &[(&str, &Path, Content)], inputs: &[&Path]) -> Option<String> {
        let outputs: Vec<Output<'_>> = outputs
            .iter()
            .map(|(option, file, content)| Output {
                option,
                file,
                content: *content,
            })
            .collect();
        let inputs: Vec<Input> = inputs
            .iter()
            .map(|file| Input::new("--against", file))
            .collect();
        check(&outputs, &inputs).err().map(|stop| stop.message)
    }

    #[test]
    fn two_outputs_of_one_name_are_refused_whatever_they_are_called() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("out"), dir.path().join("link"));
        let round = dir.path().join(".").join("out");
        let pair = |other: &Path| {
            refused(
                &[
                    ("--graph", &file, Content::Graph),
                    ("--save", other, Content::Values),
                ],
                &[],
            )
        };
        assert!(pair(&dir.path().join("other")).is_none());
        assert!(pair(&round).unwrap().contains("the file of --graph, too"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(pair(&link).unwrap().contains("--save"));
        let null = Path::new("/dev/null");
        let both = [
            ("--graph", null, Content::Graph),
            ("--save", null, Content::Values),
        ];
        assert!(refused(&both, &[null]).is_none());
    }

    #[test]
    fn an_output_that_is_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("g.json");
        let graph = [("--graph", &*file, Content::Graph)];
        let why = refused(&graph, &[&file]).unwrap();
        assert!(why.contains("--against reads it"), "{why}");
        assert!(refused(&graph, &[&dir.path().join("h.json")]).is_none());
        std::fs::write(&file, "{\"format\":1,\"graphs\":[]}").unwrap();
        let argv = ["prog".into(), file.clone().into(), "absent".into()];
        let inputs: Vec<Input> = inputs_of(&argv).collect();
        assert!(inputs.len() == 1 && inputs[0].file == file);
    }

    #[test]
    fn names_and_files_of_another_kind_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, content) in [
            ("model.pt", Content::Graph),
            ("v.npy", Content::Values),
            ("v.NPY", Content::Values),
            ("g.safetensors", Content::Graph),
            ("v.json", Content::Values),
            ("page.json", Content::Page),
            ("p.csv", Content::Picture),
        ] {
            let why = refused(&[("-o", &at(name), content)], &[]).expect(name);
            assert!(why.contains("its name does not say"), "{why}");
        }
        let zip = b"PK\x03\x04model";
        let npy = b"\x93NUMPY\x01\x00v\x00{'descr'";
        let graph = b"{\"format\":1,\"graphs\":[]}";
        let tensors = b"\x02\x00\x00\x00\x00\x00\x00\x00{}";
        for (file, bytes, good) in [
            ("a", &zip[..], None),
            ("b", npy, None),
            ("c", graph, Some(Content::Graph)),
            ("d", tensors, Some(Content::Values)),
            ("e", b"<svg ", Some(Content::Picture)),
            ("f", b"<!DOCTYPE html>", Some(Content::Page)),
            ("g", b"node,a\nx,1\n", Some(Content::Table)),
        ] {
            std::fs::write(at(file), bytes).unwrap();
            for content in [
                Content::Graph,
                Content::Values,
                Content::Picture,
                Content::Page,
            ] {
                let refused = refused(&[("-o", &at(file), content)], &[]);
                assert_eq!(
                    refused.is_none(),
                    good == Some(content),
                    "{file} {content:?}"
                );
            }
        }
        std::fs::write(at("empty"), "").unwrap();
        assert!(refused(&[("-o", &at("empty"), Content::Values)], &[]).is_none());
        assert!(refused(&[("-o", &at("g"), Content::Table)], &[]).is_none());
        for other in ["a", "b", "c", "d"] {
            assert!(refused(&[("-o", &at(other), Content::Table)], &[]).is_some());
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_writable(&dir.path().join("g.json")).is_ok());
        assert!(check_writable(dir.path()).is_err());
        assert!(check_writable(&dir.path().join("absent/g.json")).is_err());
    }
}

//! The table: what each parameter of each tool is called, what a client is told of it, and which part of the command line it
//! becomes.

use super::{Destination, Kind, Parameter, Tool};

const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter {
        name,
        about,
        kind,
        to: Destination::Operand,
        is_required: true,
    }
}

const fn operand(name: &'static str, about: &'static str) -> Parameter {
    Parameter {
        is_required: false,
        ..needed(name, Kind::Text, about)
    }
}

const fn option(
    name: &'static str,
    kind: Kind,
    option: &'static str,
    about: &'static str,
) -> Parameter {
    at(name, kind, Destination::Option(option), about)
}

const fn at(name: &'static str, kind: Kind, to: Destination, about: &'static str) -> Parameter {
    Parameter {
        name,
        about,
        kind,
        to,
        is_required: false,
    }
}

const GRAPH: Parameter = needed("graph", Kind::Text, "a graph file that `run` has saved");
const PATH: Parameter = operand(
    "path",
    "the node to begin at, such as encoder.layer_0.attention; left out: the whole graph",
);
const PATCHES: &str = "patches, such as 'encoder.layer_0.output[..., 0]=zero', 'fc.output=add:0.5', \
                       'fc.output=replace:@value.npy'; a path may be a pattern: 'layer_*.mlp.output=zero'";

pub const ALL: [Tool; 6] = [
    Tool {
        name: "tree",
        about: "The tree of a saved graph, or of the part below a node: every input, parameter, operation and output with its shape. \
                Neighbors that look the same are drawn once.",
        command: &["show", "--fold", "--counts"],
        parameters: &[
            GRAPH,
            PATH,
            option(
                "depth",
                Kind::Count,
                "--depth",
                "not more than so many levels; 2 is a good beginning",
            ),
        ],
        reads: true,
        silence: "the graph is empty",
        highest: 0,
    },
    Tool {
        name: "find",
        about: "The nodes of a saved graph by text or by shape, one a line with its path, shape and operation.",
        command: &["show"],
        parameters: &[
            GRAPH,
            PATH,
            option(
                "text",
                Kind::Text,
                "--find",
                "what the path, operation, module class or source file has in it, or a pattern of a path (with * or ?)",
            ),
            option(
                "shape",
                Kind::Text,
                "--shape",
                "a shape such as '*,768', '1,5..128,...' or '()': * is any size, ... any number of them",
            ),
            option(
                "source",
                Kind::Flag,
                "--source",
                "also where each was called",
            ),
        ],
        reads: true,
        silence: "nothing was found",
        highest: 1,
    },
    Tool {
        name: "code",
        about: "A module's call as a readable function of its operations; for an operation, the lines of source that called it.",
        command: &["show", "--code"],
        parameters: &[GRAPH, PATH],
        reads: true,
        silence: "the node has no code",
        highest: 0,
    },
    Tool {
        name: "check",
        about: "Whether patches, probes and records fit a saved graph, without running anything: paths, slices and shapes. A wrong \
                path is answered with the nearest ones.",
        command: &["check"],
        parameters: &[
            GRAPH,
            option("patches", Kind::Texts, "--patch", PATCHES),
            option(
                "probes",
                Kind::Texts,
                "--probe",
                "paths whose last value is to be kept",
            ),
            option(
                "records",
                Kind::Texts,
                "--record",
                "paths whose every value is to be kept",
            ),
        ],
        reads: true,
        silence: "everything fits",
        highest: 0,
    },
    Tool {
        name: "diff",
        about: "What differs between two saved graphs, and between the values that were saved with them.",
        command: &["diff"],
        parameters: &[
            needed("a", Kind::Text, "a saved graph"),
            needed("b", Kind::Text, "another saved graph"),
            option(
                "code",
                Kind::Flag,
                "--code",
                "also what nodes are computed from",
            ),
            option(
                "values",
                Kind::Pair,
                "--values",
                "two safetensors files that `run` has saved, one with each graph",
            ),
            option(
                "tolerance",
                Kind::Number,
                "--tolerance",
                "with values: elements are equal if they are not further apart",
            ),
        ],
        reads: true,
        silence: "nothing differs",
        highest: 1,
    },
    Tool {
        name: "run",
        about: "Runs a program that uses libtorch, records its graph, patches values on the way and keeps some. Says what the program \
                printed, and how often each patch was applied. Exit code 3: a patch never matched or failed.",
        command: &["run", "--summary"],
        parameters: &[
            needed(
                "command",
                Kind::Texts,
                "the program and its arguments, such as [\"python\", \"script.py\"]; no shell reads it",
            ),
            option("patches", Kind::Texts, "--patch", PATCHES),
            option(
                "probes",
                Kind::Texts,
                "--probe",
                "paths whose last value is kept; needs save",
            ),
            option(
                "records",
                Kind::Texts,
                "--record",
                "paths whose every value is kept; needs save",
            ),
            option(
                "save",
                Kind::Text,
                "--save",
                "the safetensors file for what probes and records keep",
            ),
            option(
                "graph",
                Kind::Text,
                "--graph",
                "the file that the recorded graph is saved to",
            ),
            option(
                "against",
                Kind::Text,
                "--against",
                "a saved graph that the patches are checked against before the program starts",
            ),
            at(
                "folder",
                Kind::Text,
                Destination::Folder,
                "the folder that the program runs in",
            ),
            at(
                "timeout_seconds",
                Kind::Number,
                Destination::Limit,
                "after so many seconds the program is ended; 300 if nothing is said",
            ),
        ],
        reads: false,
        silence: "the program printed nothing",
        highest: 0,
    },
];

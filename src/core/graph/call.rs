//! The calls that led to a node: what was called, with which arguments, and from where. A node that was called differently in
//! different runs has several.

use serde::{Deserialize, Serialize};

use super::{Arg, CodeAddress, Kind, Node, SourceLine};

/// How many other calls of a node are kept: arguments that differ in every run must not fill the graph.
pub(super) const MOST_CALLS: usize = 8;

/// What is written for an argument that was not recorded.
const UNKNOWN: &str = "...";

/// One way in which runs called a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub kind: Kind,
    /// As [`Node::target`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub module_path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
    /// The keyword arguments of an operation; for a scope, its inputs by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kwargs: Vec<(String, Arg)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<SourceLine>,
    #[serde(skip)]
    pub addresses: Vec<CodeAddress>,
}

impl Call {
    /// The call of the first run that had the node.
    pub fn first(node: &Node) -> Call {
        let kwargs = match node.is_scope() && node.other_calls.is_empty() {
            true => inputs(node),
            false => node.kwargs.clone(),
        };
        Call {
            kind: node.kind,
            target: node.target.clone(),
            module_path: node.module_path.clone(),
            args: node.args.clone(),
            kwargs,
            frames: node.frames.clone(),
            addresses: node.addresses.clone(),
        }
    }

    /// Whether arguments or frames are known. They are recorded only for a call that differs from all earlier ones.
    fn has_details(&self) -> bool {
        let known = |arg: &Arg| *arg != Arg::Const(UNKNOWN.to_owned());
        self.args.iter().any(known)
            || self.kwargs.iter().any(|(_, arg)| known(arg))
            || !self.frames.is_empty()
            || !self.addresses.is_empty()
    }

    fn same_callee(&self, other: &Call) -> bool {
        self.kind == other.kind
            && self.target == other.target
            && self.module_path == other.module_path
    }

    /// Whether a reader would see no difference between the two calls. Of the frames only the innermost counts: a model may be
    /// called from anywhere.
    fn same(&self, other: &Call) -> bool {
        let place = |call: &Call| {
            let frame = call.frames.last()?;
            Some((frame.file.clone(), frame.line))
        };
        let same_place = match (place(self), place(other)) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        self.same_callee(other)
            && self.args == other.args
            && self.kwargs == other.kwargs
            && same_place
    }
}

/// The arguments that a module was called with, by input. If some inputs have a recorded argument, those without one are shown
/// as unknown.
fn inputs(scope: &Node) -> Vec<(String, Arg)> {
    let inputs = || {
        let children = scope.children.iter();
        children.filter(|child| child.kind == Kind::Input)
    };
    if inputs().all(|input| input.args.is_empty()) {
        return Vec::new();
    }
    let unknown = || Arg::Const(UNKNOWN.to_owned());
    let given = |input: &Node| input.args.first().cloned().unwrap_or_else(unknown);
    inputs()
        .map(|input| (input.name.clone(), given(input)))
        .collect()
}

impl Node {
    /// Every way in which runs called the node, that of the first run first.
    pub fn calls(&self) -> impl Iterator<Item = Call> {
        std::iter::once(Call::first(self)).chain(self.other_calls.iter().cloned())
    }

    /// Adds the calls of another graph's runs, before anything else of that graph is merged into this node.
    pub(super) fn merge_calls(&mut self, other: &Node) {
        let first = Call::first(self);
        for mut call in other.calls() {
            if !call.has_details() {
                if call.same_callee(&first) || self.other_calls.iter().any(|c| c.same_callee(&call))
                {
                    continue;
                }
                call.args = vec![Arg::Const(UNKNOWN.to_owned())];
                call.kwargs.clear();
            }
            let known = call.same(&first) || self.other_calls.iter().any(|c| c.same(&call));
            if !known && self.other_calls.len() < MOST_CALLS {
                self.other_calls.push(call);
            }
        }
        // Inputs that only later runs have were not in the first run's call, so they must not be added to it.
        if self.is_scope() && !self.other_calls.is_empty() {
            self.kwargs = first.kwargs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{leaf, tensor};
    use super::super::{Graph, diff};
    use super::*;
    use crate::path::NodePath;

    fn node(name: &str) -> Arg {
        Arg::Node(name.into())
    }

    fn op(name: &str, args: &[&str]) -> Node {
        let mut op = leaf(Kind::Op, name, tensor(&[2]));
        op.target = format!("aten::{name}");
        op.args = args.iter().map(|name| node(name)).collect();
        op
    }

    fn output(from: &str) -> Node {
        let mut output = leaf(Kind::Output, "output", tensor(&[2]));
        output.args = vec![node(from)];
        output
    }

    /// One run of a root with the input `x`.
    fn run(nodes: Vec<Node>) -> Graph {
        let mut graph = Graph::new("g");
        graph.runs = 1;
        graph.root.children = vec![leaf(Kind::Input, "x", tensor(&[2]))];
        graph.root.children.extend(nodes);
        graph
    }

    fn merged(runs: Vec<Graph>) -> Graph {
        let mut graph = Graph::new("g");
        runs.into_iter().for_each(|run| graph.merge(run));
        graph
    }

    fn code(graph: &Graph, path: &str) -> String {
        let path = match path.is_empty() {
            true => NodePath::root(),
            false => path.parse().unwrap(),
        };
        graph.code(&path).unwrap()
    }

    fn branches() -> Graph {
        merged(vec![
            run(vec![
                op("relu", &["x"]),
                op("add", &["relu", "x"]),
                output("add"),
            ]),
            run(vec![
                op("gelu", &["x"]),
                op("add", &["gelu", "x"]),
                output("add"),
            ]),
            run(vec![output("x")]),
        ])
    }

    #[test]
    fn each_run_keeps_its_own_arguments() {
        let expected = "\
def forward(self, x):
    gelu = aten.gelu(x)  # in some runs
    relu = aten.relu(x)  # in some runs
    add = aten.add(relu, x)  # in some runs
    # or, in other runs: add = aten.add(gelu, x)
    return add
    # or, in other runs: return x
";
        assert_eq!(code(&branches(), ""), expected);
        let expected = "add = aten.add(relu, x)\n# or, in other runs: add = aten.add(gelu, x)\n";
        assert_eq!(code(&branches(), "add"), expected);
    }

    #[test]
    fn a_saved_graph_says_the_same() {
        let graph = branches();
        let saved = serde_json::to_string(&graph).unwrap();
        let loaded: Graph = serde_json::from_str(&saved).unwrap();
        assert_eq!(loaded, graph);
        assert_eq!(code(&loaded, ""), code(&graph, ""));
    }

    #[test]
    fn merging_again_adds_nothing() {
        let mut graph = branches();
        let once = code(&graph, "");
        graph.merge(branches());
        assert_eq!(code(&graph, ""), once);
    }

    #[test]
    fn a_difference_names_all_that_runs_did() {
        let other = merged(vec![run(vec![
            op("relu", &["x"]),
            op("add", &["relu", "x"]),
            output("add"),
        ])]);
        let found = diff(&branches(), &other, true);
        let text = format!("{found:?}");
        assert!(
            text.contains("aten.add(relu, x) or, in other runs: add = aten.add(gelu, x)"),
            "{text}"
        );
    }

    fn called(name: &str, inputs: &[(&str, &str)]) -> Node {
        let mut scope = Node::new(Kind::Scope, name);
        scope.module_path = name.into();
        for (input, from) in inputs {
            let mut input = leaf(Kind::Input, input, tensor(&[2]));
            input.args = vec![node(from)];
            scope.children.push(input);
        }
        scope.children.push(output("h"));
        scope
    }

    #[test]
    fn a_call_of_a_module_is_told_as_one_run_made_it() {
        let graph = merged(vec![
            run(vec![called("block", &[("h", "x")])]),
            run(vec![
                op("relu", &["x"]),
                called("block", &[("h", "relu"), ("mask", "x")]),
            ]),
            run(vec![
                op("gelu", &["x"]),
                called("block", &[("h", "x"), ("mask", "gelu")]),
            ]),
        ]);
        let lines: Vec<String> = code(&graph, "")
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();
        let calls = [
            "block = self.block(x)",
            "# or, in other runs: block = self.block(relu, x)",
            "# or, in other runs: block = self.block(x, gelu)",
        ];
        assert_eq!(lines[3..6], calls);
        let inputs = "mask = x\n# or, in other runs: mask = gelu\n";
        assert_eq!(code(&graph, "block.mask"), inputs);
    }

    #[test]
    fn what_was_not_recorded_is_no_other_way() {
        let mut known = op("add", &[]);
        known.target = "aten::add".into();
        let first = || run(vec![op("relu", &["x"]), op("add", &["relu"])]);
        let graph = merged(vec![first(), run(vec![op("relu", &[]), known.clone()])]);
        assert!(
            !code(&graph, "").contains("other runs"),
            "{}",
            code(&graph, "")
        );
        known.target = "aten::add.Scalar".into();
        let graph = merged(vec![first(), run(vec![op("relu", &[]), known])]);
        let other = "# or, in other runs: add = aten.add.Scalar(...)";
        assert!(code(&graph, "").contains(other), "{}", code(&graph, ""));
    }

    #[test]
    fn arguments_that_always_differ_do_not_fill_the_graph() {
        let constant = |n: usize| {
            let mut op = op("add", &["x"]);
            op.args.push(Arg::Const(n.to_string()));
            run(vec![op, output("add")])
        };
        let graph = merged((0..100).map(constant).collect());
        assert_eq!(graph.root.children[1].other_calls.len(), MOST_CALLS);
        assert!(code(&graph, "").contains("# there may be more"));
    }

    #[test]
    fn a_part_of_a_run_misses_nothing() {
        let part = Graph {
            runs: 0,
            ..run(vec![op("add", &["x"])])
        };
        let graph = merged(vec![
            part.clone(),
            run(vec![op("relu", &["x"]), op("add", &["x"])]),
            part,
        ]);
        assert!(
            !code(&graph, "").contains("some runs"),
            "{}",
            code(&graph, "")
        );
    }
}

//! Code: a scope as a readable function, a leaf as the place in the user's source that called it.

use std::fmt::Write;

use super::call::MOST_CALLS;
use super::{Arg, Call, Graph, Kind, Node, SourceLine};
use crate::error::Result;
use crate::path::NodePath;

impl Graph {
    /// The code of the node at `path`. A scope is shown as a function with one line for each node, after the stack of frames
    /// that called it, if that was recorded. A leaf is shown as the stack of the user's frames that led to it, innermost last,
    /// or, where no frames were recorded, as its line in the function.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Path`] for a path that is not there.
    pub fn code(&self, path: &NodePath) -> Result<String> {
        let node = self.node(path).ok_or_else(|| self.unknown(path))?;
        if node.is_scope() {
            let mut text = String::new();
            let stacks = stacks(node);
            if !stacks.is_empty() {
                let _ = write!(text, "Calling context:\n{stacks}\nCompiled code:\n");
            }
            function(node, &mut text);
            return Ok(text);
        }
        let stacks = stacks(node);
        if !stacks.is_empty() {
            return Ok(stacks);
        }
        Ok(node.lines().join(&format!("\n# {OTHER_RUNS}")) + "\n")
    }
}

/// Stands between the line of the first run and the lines of other runs.
const OTHER_RUNS: &str = "or, in other runs: ";

impl Node {
    /// The node in one line, in the words of the scope that computes it. Where runs differed, the lines of all.
    pub fn line(&self) -> String {
        self.lines().join(&format!(" {OTHER_RUNS}"))
    }

    /// The line of each way in which runs called the node, that of the first run first.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for call in self.calls() {
            let line = match call.kind {
                Kind::Output => format!("return {}", returned(&self.name, &call)),
                Kind::Input => match call.args.first() {
                    Some(arg) => format!("{} = {}", self.name, argument(arg)),
                    None => format!("{}: an input of the run", self.name),
                },
                _ => line(&self.name, &call),
            };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }
}

/// The stacks of frames that led to the node, each different one once.
fn stacks(node: &Node) -> String {
    let mut stacks: Vec<String> = Vec::new();
    for frames in node.calls().map(|call| stack(&call.frames)) {
        if !frames.is_empty() && !stacks.contains(&frames) {
            stacks.push(frames);
        }
    }
    stacks.join("\nIn other runs:\n")
}

/// Frames as Python's tracebacks show them.
fn stack(frames: &[SourceLine]) -> String {
    let mut text = String::new();
    for frame in frames {
        let file = if frame.file.is_empty() {
            "?"
        } else {
            &frame.file
        };
        let _ = write!(text, "File \"{file}\"");
        if frame.line != 0 {
            let _ = write!(text, ", line {}", frame.line);
        }
        if !frame.function.is_empty() {
            let _ = write!(text, ", in {}", frame.function);
        }
        text.push('\n');
        if !frame.text.is_empty() {
            let _ = writeln!(text, "    {}", frame.text);
        }
    }
    text
}

fn function(scope: &Node, text: &mut String) {
    let inputs = scope
        .children
        .iter()
        .filter(|child| child.kind == Kind::Input);
    let names: Vec<&str> = std::iter::once("self")
        .chain(inputs.map(|input| input.name.as_str()))
        .collect();
    let _ = writeln!(text, "def forward({}):", names.join(", "));
    let (outputs, others): (Vec<&Node>, Vec<&Node>) = scope
        .children
        .iter()
        .filter(|child| child.kind != Kind::Input)
        .partition(|child| child.kind == Kind::Output);
    for child in others {
        statement(child, text);
    }
    match outputs.last() {
        Some(output) => statement(output, text),
        None => text.push_str("    return None\n"),
    }
}

/// The line of the first run, and the lines of other runs as comments.
fn statement(node: &Node, text: &mut String) {
    let lines = node.lines();
    let when = match node.in_some_runs {
        true => "  # in some runs",
        false => "",
    };
    let Some((first, others)) = lines.split_first() else {
        return;
    };
    let _ = writeln!(text, "    {first}{when}");
    for other in others {
        let _ = writeln!(text, "    # {OTHER_RUNS}{other}");
    }
    if node.other_calls.len() == MOST_CALLS {
        let _ = writeln!(text, "    # there may be more, which are not kept");
    }
}

/// The node as one line of its scope.
fn line(name: &str, call: &Call) -> String {
    match call.kind {
        Kind::Parameter => format!("{name} = {}", attribute(name, &call.target)),
        Kind::Scope => format!("{name} = {}({})", callee(call), call_arguments(call)),
        _ => {
            let mut arguments: Vec<String> = call.args.iter().map(argument).collect();
            arguments.extend(
                call.kwargs
                    .iter()
                    .map(|(key, arg)| format!("{key}={}", argument(arg))),
            );
            let target = call.target.replacen("::", ".", 1);
            format!("{name} = {target}({})", arguments.join(", "))
        }
    }
}

/// A parameter in the words of its scope: the part of its path that its name was made from.
fn attribute(name: &str, path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    let own = (0..parts.len())
        .map(|from| parts[from..].join("."))
        .find(|part| crate::path::Name::candidate(part).to_string() == name);
    own.map_or_else(|| format!("self.{path}"), |part| member(&part))
}

/// `layers.8` as Python reads it.
fn member(path: &str) -> String {
    let mut text = "self".to_owned();
    for part in path.split('.') {
        let _ = match part.bytes().all(|b| b.is_ascii_digit()) {
            true => write!(text, "[{part}]"),
            false => write!(text, ".{part}"),
        };
    }
    text
}

fn callee(scope: &Call) -> String {
    match scope.module_path.is_empty() {
        true if scope.target.contains("::") => scope.target.replacen("::", ".", 1),
        true => scope
            .target
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_owned(),
        false => member(&scope.module_path),
    }
}

/// The arguments that a module was called with. An argument that is None is left out, since its caller mostly did not give it;
/// the arguments after it are written with their names.
fn call_arguments(scope: &Call) -> String {
    let mut skipped = false;
    let mut texts: Vec<String> = scope.args.iter().map(argument).collect();
    for (name, arg) in &scope.kwargs {
        match argument(arg) {
            text if text == "None" => skipped = true,
            text if skipped => texts.push(format!("{name}={text}")),
            text => texts.push(text),
        }
    }
    texts.join(", ")
}

fn returned(name: &str, output: &Call) -> String {
    output
        .args
        .first()
        .map_or_else(|| name.to_owned(), argument)
}

fn argument(arg: &Arg) -> String {
    let all = |list: &[Arg]| list.iter().map(argument).collect::<Vec<_>>().join(", ");
    match arg {
        Arg::Node(name) => node_name(name),
        Arg::Outer(path) => format!("root.{}", node_name(path)),
        Arg::Const(text) => text.clone(),
        Arg::List(list) => format!("[{}]", all(list)),
        Arg::Tuple(list) if list.len() == 1 => format!("({},)", all(list)),
        Arg::Tuple(list) => format!("({})", all(list)),
        Arg::Dict(entries) => {
            let entry = |(key, arg): &(String, Arg)| format!("'{key}': {}", argument(arg));
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// `split|sub_0.key` as Python reads it.
fn node_name(name: &str) -> String {
    let Some((node, dig)) = name.split_once('|') else {
        return name.to_owned();
    };
    let mut text = node.to_owned();
    for step in dig.split('.') {
        let index = step
            .strip_prefix("sub_")
            .and_then(|n| n.parse::<usize>().ok());
        let _ = match index {
            Some(index) => write!(text, "[{index}]"),
            None => write!(text, "['{step}']"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples::tuple_output;
    use super::*;

    fn node(name: &str) -> Arg {
        Arg::Node(name.into())
    }

    fn sample() -> Graph {
        let mut graph = tuple_output();
        let frame = |line, function: &str, text: &str| SourceLine {
            file: "model.py".into(),
            line,
            function: function.into(),
            text: text.into(),
        };
        let children = &mut graph.root.children;
        for (scope, from) in [(1, "x"), (3, "add")] {
            children[scope].frames = vec![frame(7, "forward", "y = self.linear(x)")];
            let inside = &mut children[scope].children;
            inside[0].args = vec![node(from)];
            (inside[1].target, inside[2].target) = ("linear.weight".into(), "linear.bias".into());
            inside[3].target = "aten::linear".into();
            inside[3].args = vec![node("input"), node("weight"), node("bias")];
            inside[4].args = vec![node("linear")];
        }
        children[2].target = "aten::add.Tensor".into();
        children[2].args = vec![node("x"), Arg::Const("1".into())];
        children[2].kwargs = vec![("alpha".into(), Arg::Const("2".into()))];
        children[2].frames = vec![frame(3, "<module>", ""), frame(8, "forward", "x + 1")];
        children[4].args = vec![Arg::Tuple(vec![node("linear"), node("linear_1")])];
        graph
    }

    fn code(path: &str) -> String {
        let path = if path.is_empty() {
            NodePath::root()
        } else {
            path.parse().unwrap()
        };
        sample().code(&path).unwrap()
    }

    #[test]
    fn a_scope_is_a_function() {
        let expected = "\
def forward(self, x):
    linear = self.linear(x)
    add = aten.add.Tensor(x, 1, alpha=2)
    linear_1 = self.linear(add)
    return (linear, linear_1)
";
        assert_eq!(code(""), expected);
        let expected = "\
Calling context:
File \"model.py\", line 7, in forward
    y = self.linear(x)

Compiled code:
def forward(self, input):
    weight = self.weight
    bias = self.bias
    linear = aten.linear(input, weight, bias)
    return linear
";
        assert_eq!(code("linear_1"), expected);
    }

    #[test]
    fn a_leaf_is_where_it_was_called() {
        let expected = "\
File \"model.py\", line 3, in <module>
File \"model.py\", line 8, in forward
    x + 1
";
        assert_eq!(code("add"), expected);
        assert_eq!(code("linear_1.input"), "input = add\n");
        assert_eq!(code("linear.output"), "return linear\n");
        assert_eq!(code("x"), "x: an input of the run\n");
        assert_eq!(code("linear.weight"), "weight = self.weight\n");
    }

    #[test]
    fn arguments_read_as_python() {
        let dict = Arg::Dict(vec![("k".into(), node("split|sub_1.key"))]);
        let list = Arg::List(vec![dict, Arg::Tuple(vec![Arg::Outer("a.b".into())])]);
        assert_eq!(argument(&list), "[{'k': split[1]['key']}, (root.a.b,)]");
        assert_eq!(member("layers.8.mlp"), "self.layers[8].mlp");
    }
}

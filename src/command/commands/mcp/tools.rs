//! The tools: what a client is told of each, and the command line that a call of it becomes.

pub mod table;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// How long a call may take that asks for nothing else, in seconds.
const LIMIT: f64 = 300.0;

pub struct Tool {
    pub name: &'static str,
    about: &'static str,
    /// The subcommand, with the options that always hold.
    command: &'static [&'static str],
    parameters: &'static [Parameter],
    /// Whether it only reads files.
    pub reads: bool,
    /// What is said where the command says nothing.
    silence: &'static str,
    /// The highest exit code that means no error.
    highest: i32,
}

struct Parameter {
    name: &'static str,
    about: &'static str,
    kind: Kind,
    to: Destination,
    is_required: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Texts,
    /// Two texts.
    Pair,
    Count,
    Number,
    Flag,
}

#[derive(Clone, Copy, PartialEq)]
enum Destination {
    /// `--name=value`, again for each of several.
    Option(&'static str),
    /// After the options.
    Operand,
    /// The folder that the command runs in.
    Folder,
    /// The seconds that it may take.
    Limit,
}

/// A call that is ready to be made.
#[derive(Debug, PartialEq)]
pub struct Call {
    pub arguments: Vec<String>,
    pub folder: Option<PathBuf>,
    pub limit: Duration,
    pub silence: &'static str,
    pub highest: i32,
}

impl Tool {
    /// What `tools/list` says of it.
    pub fn description(&self) -> Value {
        let of = |parameter: &Parameter| (parameter.name.to_owned(), parameter.schema());
        let properties: Map<String, Value> = self.parameters.iter().map(of).collect();
        let required = self
            .parameters
            .iter()
            .filter(|parameter| parameter.is_required);
        json!({
            "name": self.name,
            "description": self.about,
            "inputSchema": {
                "type": "object",
                "properties": properties,
                "required": required.map(|parameter| parameter.name).collect::<Vec<_>>(),
                "additionalProperties": false,
            },
            "annotations": {"readOnlyHint": self.reads, "openWorldHint": !self.reads},
        })
    }

    /// The call with these arguments, or what is wrong with them.
    pub fn call(&self, arguments: &Value) -> Result<Call, String> {
        let none = Map::new();
        let given = match arguments {
            Value::Object(given) => given,
            Value::Null => &none,
            _ => return Err(format!("{}: the arguments are to be an object", self.name)),
        };
        self.knows(given)?;
        let mut call = Call {
            arguments: self.command.iter().map(|word| (*word).to_owned()).collect(),
            folder: None,
            limit: Duration::from_secs_f64(LIMIT),
            silence: self.silence,
            highest: self.highest,
        };
        let mut operands = vec!["--".to_owned()];
        for parameter in self.parameters {
            let Some(words) = self.words(parameter, given)? else {
                continue;
            };
            match parameter.to {
                Destination::Operand => operands.extend(words),
                Destination::Folder => call.folder = words.first().map(PathBuf::from),
                Destination::Limit => {
                    let seconds = words.first().and_then(|word| word.parse().ok());
                    let limit =
                        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                    call.limit = limit.unwrap_or(Duration::MAX);
                }
                Destination::Option(option) if parameter.kind == Kind::Pair => {
                    call.arguments.push(option.to_owned());
                    call.arguments.extend(words);
                }
                Destination::Option(option) if parameter.kind == Kind::Flag => {
                    call.arguments
                        .extend(words.iter().map(|_| option.to_owned()));
                }
                Destination::Option(option) => {
                    call.arguments
                        .extend(words.iter().map(|word| format!("{option}={word}")));
                }
            }
        }
        call.arguments.extend(operands);
        Ok(call)
    }

    /// Refuses arguments that the tool does not have.
    fn knows(&self, given: &Map<String, Value>) -> Result<(), String> {
        let names: Vec<&str> = self.parameters.iter().map(|each| each.name).collect();
        match given.keys().find(|name| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(format!(
                "{}: no argument {name:?}; there is {}",
                self.name,
                names.join(", ")
            )),
        }
    }

    /// What the command gets for a parameter; none if an optional one was not given.
    fn words(
        &self,
        parameter: &Parameter,
        given: &Map<String, Value>,
    ) -> Result<Option<Vec<String>>, String> {
        let name = parameter.name;
        match given.get(name).filter(|value| !value.is_null()) {
            Some(value) => parameter.words(value).map(Some).ok_or_else(|| {
                let kind = parameter.kind.name();
                format!("{}: {name} is to be {kind}", self.name)
            }),
            None if parameter.is_required => Err(format!(
                "{}: {name} is missing: {}",
                self.name, parameter.about
            )),
            None => Ok(None),
        }
    }
}

impl Parameter {
    fn schema(&self) -> Value {
        let mut schema = match self.kind {
            Kind::Text => json!({"type": "string"}),
            Kind::Texts => json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            Kind::Pair => {
                json!({"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2})
            }
            Kind::Count => json!({"type": "integer", "minimum": 0}),
            Kind::Number => json!({"type": "number", "minimum": 0}),
            Kind::Flag => json!({"type": "boolean"}),
        };
        schema["description"] = self.about.into();
        schema
    }

    /// The words that the value becomes; `None` if it is of another kind.
    fn words(&self, value: &Value) -> Option<Vec<String>> {
        let texts = || -> Option<Vec<String>> {
            let items = value.as_array()?.iter();
            items.map(|item| item.as_str().map(str::to_owned)).collect()
        };
        match self.kind {
            Kind::Text => Some(vec![value.as_str()?.to_owned()]),
            Kind::Texts => texts().filter(|texts| !texts.is_empty()),
            Kind::Pair => texts().filter(|texts| texts.len() == 2),
            Kind::Count => Some(vec![value.as_u64()?.to_string()]),
            Kind::Number => Some(vec![
                value.as_f64().filter(|number| *number >= 0.0)?.to_string(),
            ]),
            // A flag that is off is no word.
            Kind::Flag => Some(vec![String::new(); usize::from(value.as_bool()?)]),
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Text => "a text",
            Kind::Texts => "a list of texts, at least one",
            Kind::Pair => "a list of two texts",
            Kind::Count => "a whole number, at least 0",
            Kind::Number => "a number, at least 0",
            Kind::Flag => "true or false",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::table::ALL;
    use super::*;

    fn tool(name: &str) -> &'static Tool {
        ALL.iter().find(|tool| tool.name == name).expect("a tool")
    }

    #[test]
    fn arguments_become_a_command_line() {
        let arguments = json!({
            "command": ["./infer", "-x"], "patches": ["a=zero", "b[0]=zero"], "graph": "-g.json", "folder": "/tmp",
            "timeout_seconds": 2.5, "save": null,
        });
        let call = tool("run").call(&arguments).expect("a call");
        let line = call.arguments.join(" ");
        let expected =
            "run --summary --patch=a=zero --patch=b[0]=zero --graph=-g.json -- ./infer -x";
        assert_eq!(line, expected);
        assert_eq!(call.folder, Some("/tmp".into()));
        assert_eq!(call.limit, Duration::from_millis(2500));
        let call = tool("find")
            .call(&json!({"graph": "g", "text": "x", "source": false}))
            .expect("a call");
        assert_eq!(call.arguments.join(" "), "show --find=x -- g");
        let call = tool("diff")
            .call(&json!({"a": "a", "b": "b", "values": ["v", "w"], "code": true}))
            .expect("a call");
        assert_eq!(call.arguments.join(" "), "diff --code --values v w -- a b");
    }

    #[test]
    fn wrong_arguments_are_told() {
        let why = |name: &str, arguments: Value| tool(name).call(&arguments).expect_err("refused");
        assert!(why("tree", json!({})).starts_with("tree: graph is missing"));
        assert!(
            why("tree", json!({"graph": "g", "depht": 2})).contains("there is graph, path, depth")
        );
        assert_eq!(
            why("tree", json!({"graph": 1})),
            "tree: graph is to be a text"
        );
        assert_eq!(
            why("tree", json!({"graph": "g", "depth": -1})),
            "tree: depth is to be a whole number, at least 0"
        );
        assert!(why("run", json!({"command": []})).contains("at least one"));
        assert!(why("diff", json!({"a": "a", "b": "b", "values": ["v"]})).contains("two texts"));
        assert!(why("tree", json!([])).contains("an object"));
    }

    #[test]
    fn every_option_of_the_table_is_one_of_the_command() {
        use clap::CommandFactory;
        let command = crate::Cli::command();
        for tool in &ALL {
            let sub = command
                .find_subcommand(tool.command[0])
                .expect("a subcommand");
            let is_known = |option: &str| {
                sub.get_arguments()
                    .any(|known| known.get_long() == option.strip_prefix("--"))
            };
            let options = tool
                .parameters
                .iter()
                .filter_map(|parameter| match parameter.to {
                    Destination::Option(option) => Some(option),
                    _ => None,
                });
            for option in options.chain(tool.command[1..].iter().copied()) {
                assert!(is_known(option), "{}: {option}", tool.name);
            }
        }
    }
}

//! What `run` and `check` are asked to do at the nodes: `--patch`, `--patches`, `--probe` and `--record` in the order
//! given, since patches at one node act in that order.

use std::fmt::Display;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, value_parser};
use graphpatch_core::error::{Error, Result as GpResult};
use graphpatch_core::patch::{Kind, PatchSpec, Value, toml};
use graphpatch_core::path::NodePath;

use crate::launch::outputs::Input;
use crate::voice::Stop;

/// The options, by their names.
pub const OPTIONS: [&str; 4] = ["patch", "patches", "probe", "record"];

/// The options in the order given.
#[derive(Clone, Debug, Default)]
pub struct PatchArguments(Vec<Given>);

#[derive(Clone, Debug)]
enum Given {
    Patch(String),
    Patches(PathBuf),
    Probe(String),
    Record(String),
}

impl PatchArguments {
    /// All patches, or one message with everything that is wrong. Files with values are read to check them.
    pub fn specs(&self) -> Result<Vec<PatchSpec>, Stop> {
        let (mut specs, mut bad) = (Vec::new(), Vec::new());
        for given in &self.0 {
            match given.specs() {
                Ok(some) => specs.extend(some),
                Err(error) => bad.push(error.to_string()),
            }
        }
        for spec in &specs {
            if let Some(Value::File(value)) = spec.kind.value()
                && let Err(error) = value.load()
            {
                bad.push(format!("{}: {error}", spec.path));
            }
        }
        if bad.is_empty() {
            Ok(specs)
        } else {
            Err(Stop::usage(bad.join("\ngraphpatch: ")))
        }
    }
}

impl PatchArguments {
    /// The files that are read: those of `--patches`, and of the values of `specs`.
    pub fn inputs(&self, specs: &[PatchSpec]) -> Vec<Input> {
        let patches = self.0.iter().filter_map(|given| match given {
            Given::Patches(file) => Some(Input::new("--patches", file)),
            _ => None,
        });
        patches.chain(values_of(specs)).collect()
    }
}

/// The files of the patches' values.
pub fn values_of(specs: &[PatchSpec]) -> impl Iterator<Item = Input> + '_ {
    specs.iter().filter_map(|spec| match spec.kind.value() {
        Some(Value::File(value)) => {
            let reader = format!("the patch at {}", spec.path);
            Some(Input::new(reader, &value.file))
        }
        _ => None,
    })
}

impl Given {
    fn specs(&self) -> GpResult<Vec<PatchSpec>> {
        match self {
            Given::Patch(text) => Ok(vec![text.parse()?]),
            Given::Patches(file) => toml::load(file),
            Given::Probe(path) => Ok(vec![keeping(path, Kind::Probe)?]),
            Given::Record(path) => Ok(vec![keeping(path, Kind::Record { limit: None })?]),
        }
    }
}

fn keeping(text: &str, kind: Kind) -> GpResult<PatchSpec> {
    let path: NodePath = text.parse()?;
    if path.is_root() {
        return Err(Error::Parse {
            what: "path",
            text: text.to_owned(),
            at: 0,
            why: "the path is missing".to_owned(),
        });
    }
    Ok(PatchSpec::whole(path, kind))
}

/// The same patches with absolute file names, since the processes may run in other directories.
pub fn absolute(specs: &[PatchSpec]) -> Result<Vec<PatchSpec>, Stop> {
    let mut specs = specs.to_vec();
    for value in specs.iter_mut().filter_map(|spec| spec.kind.value_mut()) {
        if let Value::File(value) = value {
            let fail = |why: &dyn Display| Stop::usage(format!("{}: {why}", value.file.display()));
            let file = std::path::absolute(&value.file).map_err(|why| fail(&why))?;
            if file.to_str().is_none() {
                return Err(fail(&"the path of a value must be UTF-8"));
            }
            value.file = file;
        }
    }
    Ok(specs)
}

impl FromArgMatches for PatchArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<PatchArguments, clap::Error> {
        let mut given: Vec<(usize, Given)> = Vec::new();
        for (name, make) in [
            ("patch", Given::Patch as fn(String) -> Given),
            ("probe", Given::Probe),
            ("record", Given::Record),
        ] {
            let places = matches.indices_of(name).into_iter().flatten();
            let texts = matches.get_many::<String>(name).into_iter().flatten();
            given.extend(places.zip(texts.cloned().map(make)));
        }
        let places = matches.indices_of("patches").into_iter().flatten();
        let files = matches.get_many::<PathBuf>("patches").into_iter().flatten();
        given.extend(places.zip(files.cloned().map(Given::Patches)));
        given.sort_by_key(|(place, _)| *place);
        Ok(PatchArguments(
            given.into_iter().map(|(_, given)| given).collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = PatchArguments::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for PatchArguments {
    fn augment_args(command: Command) -> Command {
        let option = |name: &'static str, value: &'static str, help: &'static str| {
            Arg::new(name)
                .long(name)
                .value_name(value)
                .action(ArgAction::Append)
                .help_heading("What to patch and keep")
                .help(help)
        };
        command
            .arg(option(
                "patch",
                "PATCH",
                "PATH[SLICE]=zero, =add:VALUE or =replace:VALUE; VALUE is a number, or a tensor in a file: \
                 @file.npy, @file.safetensors#key, @file.gguf#name, @file.pt, @file.pt#key; \
                 may be repeated, as may the next three: they act in the order given",
            ))
            .arg(
                option("patches", "FILE", "A TOML file of patches: [[patch]] path, slice, kind, value, runs, limit")
                    .value_parser(value_parser!(PathBuf)),
            )
            .arg(option("probe", "PATH", "Keep the last value"))
            .arg(option("record", "PATH", "Keep every value"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        PatchArguments::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str]) -> PatchArguments {
        let command = <PatchArguments as clap::Args>::augment_args(Command::new("graphpatch"));
        let arguments = ["graphpatch"].iter().chain(arguments);
        let matches = command.try_get_matches_from(arguments).expect("arguments");
        PatchArguments::from_arg_matches(&matches).expect("asked")
    }

    fn texts(specs: &[PatchSpec]) -> Vec<String> {
        specs.iter().map(PatchSpec::to_string).collect()
    }

    #[test]
    fn the_order_is_kept() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("p.toml");
        std::fs::write(
            &file,
            "[[patch]]\npath = 'a'\nkind = 'add'\nvalue = 1\nruns = 2",
        )
        .expect("write");
        let file = file.display().to_string();
        let asked = asked(&[
            "--record",
            "b",
            "--patch",
            "a=zero",
            "--probe",
            "a",
            "--patches",
            &file,
            "--patch=a=add:2",
            "--probe=a",
        ]);
        let Ok(specs) = asked.specs() else {
            panic!("refused")
        };
        let expected = [
            "b=record", "a=zero", "a=probe", "a=add:1", "a=add:2", "a=probe",
        ];
        assert_eq!(texts(&specs), expected);
        assert_eq!(specs[3].runs.to_string(), "2");
    }

    #[test]
    fn all_that_is_bad_is_named() {
        let asked = asked(&[
            "--patch",
            "a=zero",
            "--patch",
            "a=double",
            "--probe",
            "b[0]",
            "--probe",
            "",
            "--record",
            "c..d",
            "--patches",
            "/nonexistent/p.toml",
            "--patch",
            "e=add:@/nonexistent/d.npy",
        ]);
        let Err(stop) = asked.specs() else {
            panic!("accepted")
        };
        assert_eq!(stop.code, 2);
        let text = stop.message;
        assert_eq!(text.matches("graphpatch: ").count(), 5, "{text}");
        for part in [
            "a=double",
            "\"b[0]\"",
            "path is missing",
            "\"c..d\"",
            "/nonexistent/p.toml: the folder /nonexistent is not there",
            "e: /nonexistent/d.npy: the folder /nonexistent is not there",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn files_become_absolute() {
        let specs = ["a=add:@d.npy", "a=zero", "a=add:1"].map(|text| text.parse().expect("patch"));
        let Ok(specs) = absolute(&specs) else {
            panic!("refused")
        };
        let here = std::env::current_dir().expect("here").join("d.npy");
        assert_eq!(
            texts(&specs),
            [&format!("a=add:@{}", here.display()), "a=zero", "a=add:1"]
        );
    }
}

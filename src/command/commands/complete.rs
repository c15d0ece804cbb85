//! `graphpatch complete`: prints the paths that complete what was typed, one a line; and the scripts by which shells
//! complete the command's options.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use graphpatch_core::graph::GraphFile;
use graphpatch_core::path::NodePath;

use crate::voice::{Stop, print};

/// The paths that complete PREFIX, one a line
#[derive(Args)]
pub struct Complete {
    /// A graph saved by `graphpatch run --graph`
    #[arg(required_unless_present_any = ["shell", "man"])]
    graph: Option<PathBuf>,
    /// The beginning of a path
    #[arg(default_value = "")]
    prefix: String,
    /// Instead: the script with which this shell completes the options of graphpatch
    #[arg(long, value_enum, conflicts_with_all = ["graph", "prefix"])]
    shell: Option<Shell>,
    /// Instead: write the manual's pages into this folder
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["graph", "prefix", "shell"])]
    man: Option<PathBuf>,
}

/// A part of the script for bash: it completes words that follow a saved graph by that graph's paths. If several paths match,
/// bash adds no space, so that the user can go on typing.
const BASH_PATHS: &str = r#"
_graphpatch_or_path() {
    local word graph="" current="${COMP_WORDS[COMP_CWORD]}"
    case "${COMP_WORDS[1]}" in
        show | view | serve | complete | check)
            for word in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
                word=${word//[\'\"\\]/} # as it was typed, with its quotes
                if [[ $word == *.json && -f $word ]]; then graph=$word; break; fi
            done
            ;;
    esac
    if [[ -n $graph && $current != -* ]]; then
        # To bash a colon, which ends a root's name, is a word of its own: it asks for what follows, and gets only that.
        local before="" i=$COMP_CWORD
        [[ $current == : ]] && current=""
        if [[ $COMP_WORDBREAKS == *:* ]]; then
            [[ ${COMP_WORDS[i]} == : ]] && i=$((i + 1))
            if ((i > 1)) && [[ ${COMP_WORDS[i-1]} == : ]]; then before=${COMP_WORDS[i-2]}:; fi
        fi
        mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" complete "$graph" "$before$current" 2>/dev/null)
        COMPREPLY=("${COMPREPLY[@]#"$before"}")
        compopt -o nospace 2>/dev/null
        return 0
    fi
    _graphpatch "$@"
}
complete -F _graphpatch_or_path -o bashdefault -o default graphpatch
"#;

/// The same for zsh: a function around the generated one, which has to be defined before the end of the script calls it.
const ZSH_PATHS: &str = r#"
functions[_graphpatch_options]=$functions[_graphpatch]
_graphpatch() {
    local word graph
    local -a paths
    if [[ $words[2] == (show|view|serve|complete|check) && $words[CURRENT] != -* ]]; then
        for word in "${(@Q)words[3,CURRENT-1]}"; do
            if [[ $word == *.json && -f $word ]]; then graph=$word; break; fi
        done
    fi
    if [[ -n $graph ]]; then
        paths=("${(@f)$("${(Q)words[1]}" complete "$graph" "${(Q)PREFIX}" 2>/dev/null)}")
        compadd -S '' -- "${(@)paths:#}"
        return
    fi
    _graphpatch_options "$@"
}

"#;
/// The line of the generated script that its end begins with.
const ZSH_END: &str = "if [ \"$funcstack[1]\" = \"_graphpatch\" ]; then";

/// The same for fish.
const FISH_PATHS: &str = r#"
function __graphpatch_graph
    for word in (commandline -opc)
        if string match -q -- '*.json' $word; and test -f $word
            echo $word
            return 0
        end
    end
    return 1
end
function __graphpatch_paths
    set -l words (commandline -opc)
    set -l graph (__graphpatch_graph)
    $words[1] complete $graph (commandline -ct) 2>/dev/null
end
set -l after_a_graph "__fish_graphpatch_using_subcommand show view serve complete check; and __graphpatch_graph >/dev/null"
complete -c graphpatch -n $after_a_graph -f -a "(__graphpatch_paths)"
complete -c graphpatch -n $after_a_graph -l probe -l record -x -a "(__graphpatch_paths)"
# fish puts a space behind what is complete, but none behind an equals sign.
complete -c graphpatch -n $after_a_graph -l patch -x -a "(__graphpatch_paths)="
"#;

/// The script for a shell.
fn script(shell: Shell, all: &mut Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, all, "graphpatch", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script + BASH_PATHS,
        Shell::Fish => script + FISH_PATHS,
        Shell::Zsh => script.replace(ZSH_END, &format!("{ZSH_PATHS}{ZSH_END}")),
        _ => script,
    }
}

impl Complete {
    /// `all` describes the whole command line.
    pub fn run(self, mut all: Command) -> Result<u8, Stop> {
        if let Some(shell) = self.shell {
            return print(&script(shell, &mut all)).map(|()| 0);
        }
        if let Some(folder) = &self.man {
            return clap_mangen::generate_to(all, folder)
                .map(|()| 0)
                .map_err(|why| Stop::not_written(folder, &why));
        }
        let mut seen = HashSet::new();
        let mut text = String::new();
        let file = self.graph.map(|file| GraphFile::load(&file)).transpose()?;
        let graphs = file.map(|file| file.graphs).unwrap_or_default();
        for graph in &graphs {
            let root = NodePath::root().in_root(Some(graph.name.clone()));
            let begun = !self.prefix.is_empty() && graph.name.starts_with(&self.prefix);
            let root = (graphs.len() > 1 && begun).then(|| root.to_string());
            for path in root.into_iter().chain(graph.completions(&self.prefix)) {
                if seen.insert(path.clone()) {
                    text += &path;
                    text.push('\n');
                }
            }
        }
        print(&text).map(|()| 0)
    }
}

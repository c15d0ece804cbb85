//! Whether results are for a person's eyes: colors and folds on a terminal, plain text in a pipe or a file.

use std::fmt::Write;
use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use graphpatch_core::graph::Part;

/// When to color.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR or TERM=dumb say otherwise
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    pub fn is_on(self) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                // Not `anstream`'s choice, which colors for TERM=dumb where the variable CI is set.
                anstyle_query::clicolor_force()
                    || (is_terminal()
                        && anstyle_query::term_supports_color()
                        && !anstyle_query::no_color()
                        && anstyle_query::clicolor() != Some(false))
            }
        }
    }
}

/// How many characters a line of stderr has, where that is a terminal.
pub fn width_of_stderr() -> Option<u16> {
    terminal_size::terminal_size_of(std::io::stderr()).map(|(width, _)| width.0)
}

/// How many characters a line of stdout has, where that is a terminal.
pub fn width() -> Option<u16> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0)
}

/// Whether stdout is a terminal.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

const fn fore(color: AnsiColor) -> Style {
    Style::new().fg_color(Some(anstyle::Color::Ansi(color)))
}

/// What only the left side of a comparison has.
pub const LEFT: Style = fore(AnsiColor::Red);
/// What only the right side has.
pub const RIGHT: Style = fore(AnsiColor::Green);
/// The path of a difference.
pub const PATH: Style = Style::new().bold();

/// Writes a piece of a tree in its color.
pub fn paint(text: &mut String, part: Part, piece: &str) {
    let style = match part {
        Part::Branch | Part::Remark => Style::new().dimmed(),
        Part::Scope => Style::new().bold(),
        Part::Input | Part::Output => fore(AnsiColor::Green),
        Part::Parameter => fore(AnsiColor::Yellow),
        Part::Op | Part::Element => Style::new(),
        Part::Label => fore(AnsiColor::Cyan),
    };
    // Writing to a String does not fail.
    let _ = write!(text, "{style}{piece}{style:#}");
}

/// The text in a style, if colors are on.
pub fn styled(text: &str, style: Style, on: bool) -> String {
    match on {
        true => format!("{style}{text}{style:#}"),
        false => text.to_owned(),
    }
}

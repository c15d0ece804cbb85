//! How results are printed: with colors and folded on a terminal, as plain text in a pipe or a file.

use std::borrow::Cow;
use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use graphpatch_core::graph::Part;
use graphpatch_core::plain::plain;

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
                // `anstream` is not asked, since it colors for TERM=dumb if the variable CI is set.
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
    let _ = write!(text, "{}", colored(piece, style));
}

/// Whether this process has colored anything. If so, color codes in its output are not escaped.
static COLORED: AtomicBool = AtomicBool::new(false);

/// The text in a style.
pub fn colored(text: &str, style: Style) -> String {
    COLORED.store(true, Ordering::Relaxed);
    format!("{style}{}{style:#}", plain(text))
}

/// The text with its control characters escaped, except for those of colors if this process has made any.
pub fn plain_but_for_colors(text: &str) -> Cow<'_, str> {
    match COLORED.load(Ordering::Relaxed) {
        true => keeping_colors(text),
        false => plain(text),
    }
}

fn keeping_colors(text: &str) -> Cow<'_, str> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("\u{1b}[") {
        let is_setting = |c: char| c.is_ascii_digit() || c == ';';
        let after = behind.trim_start_matches(is_setting);
        let Some(after) = after.strip_prefix('m') else {
            // The sequence is not a color, so it is escaped, and the rest of it is treated as text.
            out += &plain(before);
            out += &plain("\u{1b}[");
            rest = behind;
            continue;
        };
        out += &plain(before);
        out += "\u{1b}[";
        out += &behind[..behind.len() - after.len()];
        rest = after;
    }
    out += &plain(rest);
    Cow::Owned(out)
}

/// The text in a style, if colors are on.
pub fn styled(text: &str, style: Style, on: bool) -> String {
    match on {
        true => colored(text, style),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_stay_and_what_names_bring_does_not() {
        let painted = colored("a\u{1b}[2Jb", PATH);
        assert!(painted.starts_with("\u{1b}[1m") && painted.contains("a\\u001b[2Jb"));
        let whole = format!("{painted}\u{1b}[2J\u{1b}]0;title\u{7}\u{1b}[1;3H\u{9b}x\n");
        let shown = keeping_colors(&whole);
        let rest = shown.strip_prefix(&*painted).expect("the color stays");
        assert_eq!(
            rest,
            "\\u001b[2J\\u001b]0;title\\u0007\\u001b[1;3H\\u009bx\n"
        );
    }
}

//! A sweep as a heat map: what is measured at each node, in rows of nodes that differ in one number (`layer_0.output`,
//! `layer_1.output`); or, where the slice has an axis, a row for each node and a column for each place.

use std::collections::BTreeSet;
use std::fmt::Write;

use anstyle::{Ansi256Color, AnsiColor, Color, Style};
use graphpatch_core::path::NodePath;

use crate::terminal;

use super::table::{Column, Measure, Row, Table};

/// At which row and column of the heat map each of a table's rows stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Grid {
    /// The headings: `–`, the column of paths without a number, then the numbers, ascending; or the places.
    pub columns: Vec<String>,
    /// The paths, with `*` in place of the number, in the table's order; for each column, the index of the table's row.
    pub rows: Vec<(String, Vec<Option<usize>>)>,
}

impl Grid {
    /// Of the nodes and places of rows.
    pub fn of<'a>(rows: impl Iterator<Item = (&'a NodePath, &'a Row)>) -> Grid {
        let rows: Vec<_> = rows.collect();
        if rows.iter().any(|(_, row)| row.place.is_some()) {
            return Grid::of_places(&rows);
        }
        Grid::of_nodes(rows.into_iter().map(|(node, _)| node))
    }

    fn of_places(rows: &[(&NodePath, &Row)]) -> Grid {
        let mut grid = Grid {
            columns: Vec::new(),
            rows: Vec::new(),
        };
        for (_, row) in rows {
            let place = row.place.clone().unwrap_or_default();
            if !grid.columns.contains(&place) {
                grid.columns.push(place);
            }
        }
        for (number, (node, row)) in rows.iter().enumerate() {
            let label = node.to_string();
            let known = grid.rows.iter().position(|(known, _)| *known == label);
            let line = known.unwrap_or_else(|| {
                grid.rows.push((label, vec![None; grid.columns.len()]));
                grid.rows.len() - 1
            });
            let place = row.place.as_deref().unwrap_or_default();
            let column = grid.columns.iter().position(|known| known == place);
            if let Some(cell) = column.and_then(|column| grid.rows[line].1.get_mut(column)) {
                *cell = Some(number);
            }
        }
        grid
    }

    fn of_nodes<'a>(nodes: impl Iterator<Item = &'a NodePath>) -> Grid {
        let nodes: Vec<String> = nodes.map(NodePath::to_string).collect();
        let numbers: Vec<_> = nodes.iter().map(|node| numbers(node)).collect();
        // The place of the first number in which any two paths differ: the second one for `encoder_1.layer_0` and
        // `encoder_1.layer_1`.
        let most = numbers.iter().map(Vec::len).max().unwrap_or(0);
        let varies = |at: &usize| {
            let values: BTreeSet<u64> = numbers
                .iter()
                .filter_map(|all| all.get(*at))
                .map(|n| n.value)
                .collect();
            values.len() > 1
        };
        let at = (0..most).find(varies).unwrap_or(0);
        let mut placed: Vec<(String, Option<u64>)> = Vec::new();
        for (node, numbers) in nodes.iter().zip(&numbers) {
            placed.push(match numbers.get(at) {
                Some(number) => {
                    let (before, after) = (&node[..number.start], &node[number.end..]);
                    (format!("{before}*{after}"), Some(number.value))
                }
                None => (node.clone(), None),
            });
        }
        let columns: Vec<Option<u64>> = placed
            .iter()
            .map(|(_, number)| *number)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut rows: Vec<(String, Vec<Option<usize>>)> = Vec::new();
        for (i, (label, number)) in placed.into_iter().enumerate() {
            let column = columns.binary_search(&number).unwrap_or(0);
            let found = rows
                .iter()
                .position(|(known, cells)| *known == label && cells[column].is_none());
            let row = found.unwrap_or_else(|| {
                rows.push((label, vec![None; columns.len()]));
                rows.len() - 1
            });
            rows[row].1[column] = Some(i);
        }
        let heading =
            |column: Option<u64>| column.map_or("–".into(), |number| number.to_string());
        Grid {
            columns: columns.into_iter().map(heading).collect(),
            rows,
        }
    }
}

/// A number at the end of a name: `_12`.
struct Number {
    start: usize,
    end: usize,
    value: u64,
}

fn numbers(path: &str) -> Vec<Number> {
    let mut found = Vec::new();
    for (start, _) in path.match_indices('_').map(|(at, it)| (at + 1, it)) {
        let rest = &path[start..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let end = start + digits;
        let ends = path[end..].starts_with(['.', '|']) || end == path.len();
        if let Some(value) = path[start..end].parse().ok().filter(|_| ends) {
            found.push(Number { start, end, value });
        }
    }
    found
}

/// How a metric's numbers become colors: by the distance from the bare run's number, relative to the largest distance.
pub struct Scale {
    bare: f64,
    most: f64,
    pub measure: Measure,
}

impl Scale {
    pub fn of(column: &Column, values: impl Iterator<Item = f64>) -> Scale {
        let bare = if column.bare.0.is_finite() {
            column.bare.0
        } else {
            0.0
        };
        let most = values
            .map(|value| (value - bare).abs())
            .filter(|far| far.is_finite())
            .fold(0.0, f64::max);
        Scale {
            bare,
            most,
            measure: column.measure,
        }
    }

    /// How far a number is below (to -1) or above (to 1) the bare run's. `None` for NaN.
    pub fn position(&self, value: f64) -> Option<f64> {
        let far = value - self.bare;
        match far {
            far if far.is_nan() => None,
            far if far.is_infinite() => Some(far.signum()),
            _ if self.most == 0.0 => Some(0.0),
            far => Some(far / self.most),
        }
    }

    /// The smallest and the largest number that have a color of their own.
    pub fn ends(&self) -> (f64, f64) {
        match self.measure {
            Measure::Regex => (self.bare - self.most, self.bare + self.most),
            Measure::Distance => (0.0, self.most),
        }
    }
}

/// The color at a position from -1 (blue) over 0 (white) to 1 (red).
pub fn rgb(position: f64) -> [u8; 3] {
    // The ends of ColorBrewer's RdBu.
    let end: [f64; 3] = if position < 0.0 {
        [33.0, 102.0, 172.0]
    } else {
        [178.0, 24.0, 43.0]
    };
    let far = position.abs().min(1.0);
    end.map(|end| (255.0 + (end - 255.0) * far).round() as u8)
}

/// A color as CSS and SVG write it.
pub fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Whether black text can be read on that color; if not, white text can.
pub fn is_light([red, green, blue]: [u8; 3]) -> bool {
    0.299 * f64::from(red) + 0.587 * f64::from(green) + 0.114 * f64::from(blue) > 140.0
}

/// Three significant digits, as short as they can be.
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string().to_lowercase();
    }
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        _ if !(9.995e-4..9.995e4).contains(&size) => format!("{value:.1e}"),
        _ => {
            let digits = (2.0 - size.log10().floor()).max(0.0) as usize;
            format!("{value:.digits$}")
        }
    }
}

/// The cells of failed rows, and those of columns that have no node.
const FAILED: &str = "failed";
const NONE: &str = "";
/// Without colors, the shades that show how far a number is from the bare run's.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
/// The 256 colors of terminals, from white to red and to blue.
const REDS: [u8; 7] = [231, 224, 217, 210, 203, 160, 124];
const BLUES: [u8; 7] = [231, 195, 153, 117, 75, 32, 25];
/// The width after which the rest of a row goes into the next block. On a terminal, the terminal's width is used instead.
const WIDTH: usize = 120;

/// The heat maps of all metrics, for a terminal or a file.
pub fn text(table: &Table, colors: bool) -> String {
    let grid = Grid::of(table.rows.iter().map(|row| (&row.node, row)));
    let maps = (0..table.metrics.len()).map(|metric| one(table, &grid, metric, colors));
    maps.collect::<Vec<_>>().join("\n")
}

fn one(table: &Table, grid: &Grid, metric: usize, colors: bool) -> String {
    let column = &table.metrics[metric];
    let value = |row: usize| table.rows[row].values.get(metric).map(|value| value.0);
    let scale = Scale::of(column, (0..table.rows.len()).filter_map(value));
    let mut text = format!(
        "{}, {} in the bare run\n",
        column.name,
        short(column.bare.0)
    );
    let cell = |row: Option<usize>| match row {
        None => (NONE.to_owned(), None),
        Some(row) => match value(row) {
            None => (FAILED.to_owned(), None),
            Some(value) => (short(value), scale.position(value)),
        },
    };
    let all = grid.rows.iter().flat_map(|(_, cells)| cells);
    let digits = all.map(|row| cell(*row).0.len()).max().unwrap_or(0);
    let heads = grid.columns.iter().map(|head| head.chars().count());
    // A shade or a colored margin stands in front of the number, a space after it.
    let width = digits.max(heads.max().unwrap_or(0)) + 2;
    let labels = grid.rows.iter().map(|(label, _)| label.chars().count());
    let margin = labels.max().unwrap_or(0);
    let whole = terminal::width().map_or(WIDTH, usize::from);
    let fit = (whole.saturating_sub(margin) / (width + 1)).max(1);
    for start in (0..grid.columns.len()).step_by(fit) {
        let end = (start + fit).min(grid.columns.len());
        let _ = write!(text, "{:margin$}", "");
        for head in &grid.columns[start..end] {
            let _ = write!(text, " {head:>width$}");
        }
        text.push('\n');
        for (label, cells) in &grid.rows {
            let _ = write!(text, "{label:margin$}");
            for row in &cells[start..end] {
                let (number, position) = cell(*row);
                text.push(' ');
                text += &painted(&number, position, width, colors);
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
    }
    text
}

/// A cell: a shade or a color by its position, then the number.
pub fn painted(number: &str, position: Option<f64>, width: usize, colors: bool) -> String {
    let step = |steps: usize| {
        position.map(|position| (position.abs() * (steps - 1) as f64).round() as usize)
    };
    if !colors {
        let shade = step(SHADES.len()).map_or(' ', |step| SHADES[step]);
        return format!("{shade}{number:>0$}", width - 1);
    }
    let text = format!("{number:>0$} ", width - 1);
    let Some(step) = step(REDS.len()) else {
        return text;
    };
    let ramp = if position.is_some_and(|position| position < 0.0) {
        BLUES
    } else {
        REDS
    };
    let ink = if step > 3 {
        AnsiColor::BrightWhite
    } else {
        AnsiColor::Black
    };
    let style = Style::new()
        .bg_color(Some(Color::Ansi256(Ansi256Color(ramp[step]))))
        .fg_color(Some(Color::Ansi(ink)));
    terminal::colored(&text, style)
}

#[cfg(test)]
#[path = "heat_tests.rs"]
mod tests;

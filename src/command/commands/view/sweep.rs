//! A sweep as the page shows it: the cells of its heat map. Their places and colors are computed by the code of
//! `graphpatch sweep` (`sweep/heat.rs`).

use graphpatch_core::graph::Graph;
use graphpatch_core::path::NodePath;
use serde::Serialize;

use crate::commands::sweep::heat::{Grid, Scale, hex, is_light, rgb, short};
use crate::commands::sweep::table::{Column, Measure, Row, Table};

/// How many colors a legend shows.
const STEPS: usize = 24;

/// All heat maps of a table: the same rows and columns for each metric.
#[derive(Serialize)]
pub struct Sweep {
    /// What was done at each node.
    patch: String,
    columns: Vec<String>,
    rows: Vec<Line>,
    nodes: Vec<Swept>,
    metrics: Vec<Map>,
}

/// Nodes that differ in one number.
#[derive(Serialize)]
struct Line {
    label: String,
    /// For each column a place in [`Sweep::nodes`].
    cells: Vec<Option<usize>>,
}

#[derive(Serialize)]
struct Swept {
    /// The path, as the graph writes it.
    path: String,
    /// Why nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// One metric.
#[derive(Serialize)]
struct Map {
    name: String,
    bare: String,
    /// The numbers at the ends of the legend, and its colors.
    ends: [String; 2],
    legend: Vec<String>,
    /// One cell for each of [`Sweep::nodes`]; none where nothing was measured.
    cells: Vec<Option<Cell>>,
}

#[derive(Serialize)]
struct Cell {
    /// The number with three digits; `value` has all digits.
    text: String,
    value: String,
    /// The difference from the bare run's number. A distance has none, as it is a difference itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<String>,
    /// The cell's color; NaN has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    color: Option<String>,
    /// Whether the color is so light that the letters on it have to be dark.
    light: bool,
}

impl Sweep {
    /// The part of a table whose nodes are in one of the graphs, and the nodes that are in none.
    pub fn of(table: &Table, graphs: &[Graph]) -> (Sweep, Vec<NodePath>) {
        let mut lost = Vec::new();
        let mut known: Vec<(NodePath, &Row)> = Vec::new();
        for row in &table.rows {
            let mut graphs = graphs.iter();
            match graphs.find(|graph| graph.value(&row.node).is_some()) {
                Some(graph) => known.push((graph.canonical(&row.node), row)),
                None => lost.push(row.node.clone()),
            }
        }
        let grid = Grid::of(known.iter().map(|(path, row)| (path, *row)));
        let rows: Vec<&Row> = known.iter().map(|(_, row)| *row).collect();
        let maps = table.metrics.iter().enumerate();
        let sweep = Sweep {
            patch: match table.settings.slice.as_str() {
                "" => table.settings.patch.clone(),
                slice => format!("{slice}={}", table.settings.patch),
            },
            columns: grid.columns,
            rows: grid
                .rows
                .into_iter()
                .map(|(label, cells)| Line { label, cells })
                .collect(),
            metrics: maps.map(|(at, metric)| map(metric, at, &rows)).collect(),
            nodes: known
                .iter()
                .map(|(path, row)| Swept {
                    path: path.to_string(),
                    why: row.why.clone(),
                })
                .collect(),
        };
        (sweep, lost)
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

fn map(metric: &Column, at: usize, rows: &[&Row]) -> Map {
    let values = || {
        rows.iter()
            .map(|row| row.values.get(at).map(|value| value.0))
    };
    let scale = Scale::of(metric, values().flatten());
    let (least, most) = scale.ends();
    let signed = metric.measure == Measure::Regex;
    let cell = |value: f64| {
        let color = scale.position(value).map(rgb);
        Cell {
            text: short(value),
            value: value.to_string().to_lowercase(),
            difference: signed.then(|| signed_short(value - metric.bare.0)),
            light: color.is_none_or(is_light),
            color: color.map(hex),
        }
    };
    let place = |step: usize| {
        let share = step as f64 / (STEPS - 1) as f64;
        if signed { 2.0 * share - 1.0 } else { share }
    };
    Map {
        name: metric.name.clone(),
        bare: short(metric.bare.0),
        ends: [short(least), short(most)],
        legend: (0..STEPS).map(|step| hex(rgb(place(step)))).collect(),
        cells: values().map(|value| value.map(cell)).collect(),
    }
}

fn signed_short(value: f64) -> String {
    let plus = if value > 0.0 { "+" } else { "" };
    format!("{plus}{}", short(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sweep::table::tests::sample;
    use crate::commands::view::samples;

    #[test]
    fn cells_stand_where_the_heat_map_has_them() {
        let mut table = sample();
        table.rows[0].node = "linear.output".parse().expect("path");
        table.rows[1].node = "split|sub_1".parse().expect("path");
        table.rows[2].node = "x".parse().expect("path");
        let (sweep, lost) = Sweep::of(&table, &[samples::graph()]);
        assert_eq!(lost, ["head".parse().expect("path")]);
        assert_eq!(sweep.columns, ["–", "1"]);
        let labels: Vec<&str> = sweep.rows.iter().map(|row| &*row.label).collect();
        assert_eq!(labels, ["linear.output", "split|sub_*", "x"]);
        assert_eq!(sweep.rows[1].cells, [None, Some(1)]);
        assert_eq!(
            sweep.nodes[2].why.as_deref(),
            Some("it ended, with \"code\" 1")
        );
        // The bare run's number is 1. So 0.5 is slightly blue, and 3 is fully red.
        let loss = &sweep.metrics[0];
        assert_eq!(loss.ends, ["-1.00", "3.00"]);
        let first = loss.cells[0].as_ref().expect("cell");
        assert_eq!(
            (&*first.text, first.difference.as_deref(), first.light),
            ("0.500", Some("-0.500"), true)
        );
        assert_eq!(first.color, Some(hex(rgb(-0.25))));
        assert!(loss.cells[2].is_none());
        assert_eq!(
            (loss.legend.len(), &*loss.legend[STEPS - 1]),
            (STEPS, "#b2182b")
        );
        let far = sweep.metrics[1].cells[1].as_ref().expect("cell");
        assert_eq!((&*far.text, &far.difference), ("inf", &None));
        assert_eq!(sweep.metrics[1].legend[0], "#ffffff");
        assert!(Sweep::of(&table, &[]).0.is_empty());
    }
}

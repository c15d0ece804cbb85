//! Tests of heat maps.

use super::*;
use crate::commands::sweep::table::tests::sample;

fn grid(paths: &[&str]) -> Grid {
    let paths: Vec<NodePath> = paths
        .iter()
        .map(|path| path.parse().expect("path"))
        .collect();
    Grid::of_nodes(paths.iter())
}

#[test]
fn nodes_stand_in_rows() {
    let found = grid(&[
        "m_1.a_0.x",
        "m_1.a_0.y_2",
        "m_1.a_10.x",
        "m_1.a_9.x",
        "head",
    ]);
    assert_eq!(found.columns, ["–", "0", "9", "10"]);
    let rows = [
        ("m_1.a_*.x", vec![None, Some(0), Some(3), Some(2)]),
        ("m_1.a_*.y_2", vec![None, Some(1), None, None]),
        ("head", vec![Some(4), None, None, None]),
    ];
    assert_eq!(
        found.rows,
        rows.map(|(label, cells)| (label.to_owned(), cells))
    );
    // `01` and `1` are different nodes, so they cannot share a cell.
    assert_eq!(grid(&["a_1", "a_01", "a_2"]).rows.len(), 2);
    assert_eq!(grid(&["t|sub_0", "t|sub_1", "a_1b"]).rows[0].0, "t|sub_*");
    assert_eq!(grid(&["a_3.x"]).rows, [("a_*.x".to_owned(), vec![Some(0)])]);
    assert!(grid(&[]).rows.is_empty());
}

#[test]
fn places_are_columns() {
    let mut table = sample();
    table.rows.truncate(3);
    for (row, (node, place)) in
        table
            .rows
            .iter_mut()
            .zip([("a_0", "3"), ("a_1", "10"), ("a_0", "10")])
    {
        row.node = node.parse().expect("path");
        row.place = Some(place.into());
    }
    let found = Grid::of(table.rows.iter().map(|row| (&row.node, row)));
    assert_eq!(found.columns, ["3", "10"]);
    let rows = [
        ("a_0", vec![Some(0), Some(2)]),
        ("a_1", vec![None, Some(1)]),
    ];
    assert_eq!(
        found.rows,
        rows.map(|(label, cells)| (label.to_owned(), cells))
    );
}

#[test]
fn numbers_are_short() {
    for (value, text) in [
        (0.0, "0"),
        (1.0, "1.00"),
        (-0.12345, "-0.123"),
        (12.345, "12.3"),
        (99_999.0, "1.0e5"),
        (1234.5, "1234"),
        (1e-7, "1.0e-7"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "nan"),
    ] {
        assert_eq!(short(value), text);
    }
}

#[test]
fn text_maps() {
    let plain = text(&sample(), false);
    let expected = "\
loss, 1.00 in the bare run
                  –        0        1
a_*.output          ░  0.500 █   3.00
a_*.mlp                        failed
head            nan

distance:output, 0 in the bare run
                  –        0        1
a_*.output          █   2.00 █    inf
a_*.mlp                        failed
head              0
";
    assert_eq!(plain, expected, "{plain}");
    let colored = text(&sample(), true);
    assert!(colored.contains("48;5;153"), "{colored:?}");
    assert!(colored.contains("48;5;124"));
}

#[test]
fn colors_say_how_far() {
    assert_eq!(rgb(0.0), [255, 255, 255]);
    assert_eq!(rgb(1.0), [178, 24, 43]);
    assert_eq!(rgb(-2.0), [33, 102, 172]);
    assert!(is_light(rgb(0.2)) && !is_light(rgb(-1.0)));
    let table = sample();
    let loss = Scale::of(&table.metrics[0], [0.5, 3.0, f64::NAN].into_iter());
    assert_eq!(loss.position(0.5), Some(-0.25));
    assert_eq!(
        (loss.position(3.0), loss.position(f64::NAN)),
        (Some(1.0), None)
    );
    assert_eq!(loss.ends(), (-1.0, 3.0));
    let same = Scale::of(&table.metrics[1], [0.0, 0.0].into_iter());
    assert_eq!((same.position(0.0), same.ends()), (Some(0.0), (0.0, 0.0)));
}

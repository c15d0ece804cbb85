//! Compares the adapter's table of dtypes with the core's.

use super::*;

#[test]
fn the_adapter_knows_the_same_dtypes() {
    let source = include_str!("../adapter/dlpack_abi.h");
    let (_, behind) = source.split_once("#define GP_FOR_EACH_DTYPE(X)").unwrap();
    let rows = behind
        .lines()
        .skip(1)
        .map_while(|line| line.trim().strip_prefix("X("));
    let mut adapter: Vec<(Dtype, String, (u8, u8))> = rows
        .map(|row| {
            let (row, _) = row.split_once(')').unwrap();
            let cells: Vec<&str> = row.split(',').map(str::trim).collect();
            let [_, seam, name, code, bits] = cells[..] else {
                panic!("{row}")
            };
            let known = SEAM_NAMES.iter().find(|(known, _)| *known == seam);
            let (_, dtype) = known.unwrap_or_else(|| panic!("{seam} is no dtype of the seam"));
            let dlpack = (code.parse().unwrap(), bits.parse().unwrap());
            (*dtype, name.trim_matches('"').to_owned(), dlpack)
        })
        .collect();
    adapter.sort_by_key(|row| row.0 as u8);
    let ours: Vec<(Dtype, String, (u8, u8))> = Dtype::ALL
        .iter()
        .map(|dtype| (*dtype, dtype.name().to_owned(), dtype.dlpack()))
        .collect();
    assert_eq!(adapter, ours);
}

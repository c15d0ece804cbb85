//! A slice with an axis: `[:, {0..11}]` stands for the slices `[:, 0]` to `[:, 11]`.

use graphpatch_core::path::Slice;

use crate::voice::Stop;

/// At most this many places; more are taken for a slip.
const MOST: usize = 100_000;

/// The slices that a text with an axis stands for.
pub struct Axis {
    /// The items as the table shows them, and the slices with the item in the axis's place.
    pub places: Vec<(String, Slice)>,
}

impl Axis {
    /// Reads the axis of a slice, with its brackets or without. `None` if the text has no axis.
    ///
    /// # Errors
    ///
    /// Two axes, an empty one, or a slice that is none with an item in the axis's place.
    pub fn read(text: &str) -> Result<Option<Axis>, Stop> {
        let Some((before, rest)) = text.split_once('{') else {
            return Ok(None);
        };
        let fail = |why: &str| Stop::usage(format!("--slice {text:?}: {why}"));
        let (inside, behind) = rest
            .split_once('}')
            .ok_or_else(|| fail("the `{` of its axis is not closed"))?;
        if behind.contains(['{', '}']) {
            return Err(fail("a slice has one axis at most"));
        }
        let items = items(inside).ok_or_else(|| {
            fail("an axis is a range with its last number, {0..11}, or a list, {0,4,1:3}")
        })?;
        let mut places = Vec::new();
        for item in items {
            let slice = slice(&format!("{before}{item}{behind}"))?;
            if !places.iter().any(|(known, _)| *known == item) {
                places.push((item, slice));
            }
        }
        Ok(Some(Axis { places }))
    }
}

/// A slice with its brackets or without; an empty text is the whole value.
pub fn slice(text: &str) -> Result<Slice, Stop> {
    match text.trim() {
        "" => Ok(Slice::whole()),
        slice if slice.starts_with('[') => Ok(slice.parse()?),
        inner => Ok(format!("[{inner}]").parse()?),
    }
}

/// `0..11`, with both ends, or items between commas.
fn items(inside: &str) -> Option<Vec<String>> {
    if let Some((first, last)) = inside.split_once("..") {
        let (first, last): (i64, i64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let count = usize::try_from(last.checked_sub(first)?).ok()?;
        return (count < MOST).then(|| (first..=last).map(|item| item.to_string()).collect());
    }
    let items: Vec<String> = inside
        .split(',')
        .map(|item| item.trim().to_owned())
        .collect();
    items.iter().all(|item| !item.is_empty()).then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let axis = Axis::read(text).map_err(|stop| stop.message)?;
        let places = axis.map(|axis| axis.places).unwrap_or_default();
        Ok(places
            .iter()
            .map(|(item, slice)| format!("{item} {slice}"))
            .collect())
    }

    #[test]
    fn an_axis_stands_for_slices() {
        let all = |text: &str| read(text).expect("axis");
        assert_eq!(all("[:, {0..2}]"), ["0 [:, 0]", "1 [:, 1]", "2 [:, 2]"]);
        assert_eq!(
            all("..., {0, 4,1:3,0}"),
            ["0 [..., 0]", "4 [..., 4]", "1:3 [..., 1:3]"]
        );
        assert_eq!(all("[{-2..-1}, 0]"), ["-2 [-2, 0]", "-1 [-1, 0]"]);
        assert!(all("[:, 3]").is_empty() && all("").is_empty());
    }

    #[test]
    fn what_is_no_axis_is_refused() {
        let why = |text: &str| read(text).expect_err("read");
        assert!(why("[{0..2}, {0..2}]").contains("one axis"));
        assert!(why("[{0..2]").contains("not closed"));
        for bad in ["[{}]", "[{3..1}]", "[{0..}]", "[{0,,1}]", "[{0..99999999}]"] {
            assert!(why(bad).contains("{0..11}"), "{bad}: {}", why(bad));
        }
        assert!(why("[{a,b}]").contains('a'));
    }
}

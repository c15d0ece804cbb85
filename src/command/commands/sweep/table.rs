//! What a sweep found: a row for each node, saved as CSV, JSON or Parquet.

use std::path::Path;

use graphpatch_core::error::Error;
use graphpatch_core::file_error::not_written;
use graphpatch_core::output::replace;
use graphpatch_core::path::NodePath;
use serde::{Deserialize, Serialize};

use crate::columns::{Cells, Columns};

/// The name and the version of the format, as the JSON files have them.
const FORMAT: &str = "graphpatch-sweep";
const VERSION: u32 = 1;

/// All of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    format: String,
    version: u32,
    pub settings: Settings,
    pub metrics: Vec<Column>,
    pub rows: Vec<Row>,
}

/// The settings of a sweep, without its nodes. An interrupted sweep goes on only if they are equal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub command: Vec<String>,
    pub directory: String,
    /// `zero`, `add:VALUE` or `replace:VALUE`, as it was given.
    pub patch: String,
    pub slice: String,
    pub runs: String,
    /// Patches of every run.
    pub always: Vec<String>,
    /// `--on-error`, `--operations` and `--run-at`.
    pub options: String,
    pub metrics: Vec<String>,
}

/// A metric, and what the bare run showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub measure: Measure,
    pub bare: Reading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// A number that the program prints.
    Regex,
    /// How far a value is from the bare run's: 0 or more.
    Distance,
}

/// What happened at one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub node: NodePath,
    /// Where the slice has an axis: the item in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Why there is no measurement.
    pub why: Option<String>,
    /// One for each metric; none where it failed.
    pub values: Vec<Reading>,
    /// How long the program ran.
    pub seconds: f64,
}

/// By what a row is found: its node and its place.
pub type Key = (NodePath, Option<String>);

impl Row {
    pub fn key(&self) -> Key {
        (self.node.clone(), self.place.clone())
    }

    /// The node and the place, as text.
    pub fn label(&self) -> String {
        let place = self.place.as_ref();
        place.map_or(self.node.to_string(), |place| {
            format!("{} {{{place}}}", self.node)
        })
    }
}

/// A measured number. In JSON it may also be `"nan"`, `"inf"` or `"-inf"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Json", try_from = "Json")]
pub struct Reading(pub f64);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Json {
    Number(f64),
    Text(String),
}

impl From<f64> for Reading {
    fn from(number: f64) -> Reading {
        Reading(number)
    }
}

impl From<Reading> for Json {
    fn from(Reading(number): Reading) -> Json {
        if number.is_finite() {
            Json::Number(number)
        } else {
            // `nan`, `inf`, `-inf`: Python's float() reads them, too.
            Json::Text(number.to_string().to_lowercase())
        }
    }
}

impl TryFrom<Json> for Reading {
    type Error = String;

    fn try_from(json: Json) -> Result<Reading, String> {
        match json {
            Json::Number(number) => Ok(Reading(number)),
            Json::Text(text) => text
                .parse()
                .map(Reading)
                .map_err(|_| format!("{text:?} is no number")),
        }
    }
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Csv,
    Json,
    Parquet,
}

impl Format {
    /// The format that the file's extension names.
    pub fn of(file: &Path) -> Option<Format> {
        let extension = file.extension()?;
        [
            ("csv", Format::Csv),
            ("json", Format::Json),
            ("parquet", Format::Parquet),
        ]
        .into_iter()
        .find(|(name, _)| extension.eq_ignore_ascii_case(name))
        .map(|(_, format)| format)
    }
}

impl Table {
    pub fn new(settings: Settings, metrics: Vec<Column>, rows: Vec<Row>) -> Table {
        Table {
            format: FORMAT.to_owned(),
            version: VERSION,
            settings,
            metrics,
            rows,
        }
    }

    /// Writes the file. On an error, a file that was there stays as it was.
    pub fn save(&self, file: &Path) -> Result<(), Error> {
        let fail = |why: String| Error::File {
            file: file.to_owned(),
            why: format!("cannot be written: {why}"),
        };
        let text = match Format::of(file) {
            Some(Format::Csv) => self.csv().map_err(|why| fail(why.to_string()))?,
            Some(Format::Json) => {
                let mut text =
                    serde_json::to_vec_pretty(self).map_err(|why| fail(why.to_string()))?;
                text.push(b'\n');
                text
            }
            Some(Format::Parquet) => {
                let bytes = self.columns().parquet();
                bytes.map_err(|why| fail(why.to_string()))?
            }
            None => {
                return Err(fail(
                    "its name ends in none of .csv, .json and .parquet".into(),
                ));
            }
        };
        replace(file, &text).map_err(|why| not_written(file, &why))
    }

    /// The same columns as in CSV, with null for what was not measured; and the settings, as JSON in the metadata.
    fn columns(&self) -> Columns {
        let texts =
            |of: fn(&Row) -> Option<String>| Cells::Texts(self.rows.iter().map(of).collect());
        let mut table = Columns::default();
        table.add("node", texts(|row| Some(row.node.to_string())));
        if self.has_places() {
            table.add("place", texts(|row| row.place.clone()));
        }
        table.add("failed", texts(|row| row.why.clone()));
        let seconds = self.rows.iter().map(|row| Some(row.seconds));
        table.add("seconds", Cells::Numbers(seconds.collect()));
        for (i, column) in self.metrics.iter().enumerate() {
            let value = |row: &Row| row.values.get(i).map(|Reading(value)| *value);
            let values: Vec<Option<f64>> = self.rows.iter().map(value).collect();
            let from_bare = |value: &Option<f64>| value.map(|value| value - column.bare.0);
            let differences = values.iter().map(from_bare).collect();
            table.add(column.name.clone(), Cells::Numbers(values));
            if column.measure == Measure::Regex {
                table.add(
                    format!("{} - bare", column.name),
                    Cells::Numbers(differences),
                );
            }
        }
        let settings = serde_json::to_string(&self.settings).unwrap_or_default();
        table.about = vec![(FORMAT.to_owned(), settings)];
        table
    }

    /// Whether the slice had an axis.
    fn has_places(&self) -> bool {
        self.rows.iter().any(|row| row.place.is_some())
    }

    fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let places = self.has_places();
        let mut header = vec!["node".to_owned()];
        header.extend(places.then(|| "place".into()));
        header.extend(["failed".into(), "seconds".into()]);
        for column in &self.metrics {
            header.push(column.name.clone());
            if column.measure == Measure::Regex {
                header.push(format!("{} - bare", column.name));
            }
        }
        writer.write_record(&header)?;
        for row in &self.rows {
            let mut record = vec![row.node.to_string()];
            record.extend(places.then(|| row.place.clone().unwrap_or_default()));
            record.push(row.why.clone().unwrap_or_default());
            record.push(format!("{:.3}", row.seconds));
            for (i, column) in self.metrics.iter().enumerate() {
                let value = row.values.get(i).map(|Reading(value)| *value);
                let text = |value: Option<f64>| value.map_or(String::new(), |x| x.to_string());
                record.push(text(value));
                if column.measure == Measure::Regex {
                    record.push(text(value.map(|value| value - column.bare.0)));
                }
            }
            writer.write_record(&record)?;
        }
        writer
            .into_inner()
            .map_err(|error| error.into_error().into())
    }

    /// Reads a JSON table.
    pub fn load(file: &Path) -> Result<Table, Error> {
        let bytes = graphpatch_core::whole::read(file)?;
        let fail = |place: String, why: String| Error::Format {
            file: file.to_owned(),
            place,
            why,
        };
        let foreign = "not a table that `graphpatch sweep -o FILE.json` has saved";
        let place =
            |why: &serde_json::Error| format!("line {} column {}", why.line(), why.column());
        let any: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|why| fail(place(&why), format!("{foreign}: it is no JSON")))?;
        if any["format"] != FORMAT {
            return Err(fail("`format`".into(), foreign.into()));
        }
        if any["version"].as_u64().is_none_or(|it| it > VERSION.into()) {
            let why = format!(
                "the table has version {}; this graphpatch ({}) reads up to version {VERSION}: use a newer one",
                any["version"],
                env!("CARGO_PKG_VERSION")
            );
            return Err(fail("`version`".into(), why));
        }
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let table: Table = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| fail(error.path().to_string(), error.into_inner().to_string()))?;
        let metrics = table.metrics.len();
        for (i, row) in table.rows.iter().enumerate() {
            let measured = if row.why.is_some() { 0 } else { metrics };
            if row.values.len() != measured {
                let why = format!("{} values, not {measured}", row.values.len());
                return Err(fail(format!("rows[{i}].values"), why));
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn column(name: &str, measure: Measure, bare: f64) -> Column {
        Column {
            name: name.into(),
            measure,
            bare: bare.into(),
        }
    }

    fn row(node: &str, values: &[f64]) -> Row {
        Row {
            node: node.parse().expect("path"),
            place: None,
            why: values
                .is_empty()
                .then(|| "it ended, with \"code\" 1".into()),
            values: values.iter().copied().map(Reading).collect(),
            seconds: 0.5,
        }
    }

    pub fn sample() -> Table {
        let metrics = vec![
            column("loss", Measure::Regex, 1.0),
            column("distance:output", Measure::Distance, 0.0),
        ];
        let rows = vec![
            row("a_0.output", &[0.5, 2.0]),
            row("a_1.output", &[3.0, f64::INFINITY]),
            row("a_1.mlp", &[]),
            row("head", &[f64::NAN, 0.0]),
        ];
        Table::new(Settings::default(), metrics, rows)
    }

    #[test]
    fn csv() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("t.CSV");
        sample().save(&file).expect("save");
        assert_eq!(
            std::fs::read_to_string(&file).expect("read"),
            "node,failed,seconds,loss,loss - bare,distance:output\n\
             a_0.output,,0.500,0.5,-0.5,2\n\
             a_1.output,,0.500,3,2,inf\n\
             a_1.mlp,\"it ended, with \"\"code\"\" 1\",0.500,,,\n\
             head,,0.500,NaN,NaN,0\n"
        );
        assert!(sample().save(&dir.path().join("t.txt")).is_err());
        assert!(sample().save(&dir.path().join("absent/t.csv")).is_err());
    }

    #[test]
    fn json() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("t.json");
        sample().save(&file).expect("save");
        let text = std::fs::read_to_string(&file).expect("read");
        assert!(
            text.contains("\"inf\"")
                && text.contains("\"nan\"")
                && !text.contains("null,\n      null")
        );
        let read = Table::load(&file).expect("load");
        assert_eq!(read.rows[..3], sample().rows[..3]);
        assert!(read.rows[3].values[0].0.is_nan());
        for (from, to, place) in [
            ("graphpatch-sweep", "other", "`format`"),
            ("\"version\": 1", "\"version\": 2", "`version`"),
            ("\"inf\"", "\"infinite\"", "rows[1].values[1]"),
            ("0.5,\n        2.0", "0.5", "rows[0].values"),
            ("\"rows\": [", "\"rows\": [,", "line "),
        ] {
            assert!(text.contains(from), "{from}");
            std::fs::write(&file, text.replacen(from, to, 1)).expect("write");
            let why = Table::load(&file).expect_err("loaded").to_string();
            assert!(why.contains(place), "{why}");
        }
    }
}

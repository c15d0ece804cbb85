//! Tables as Parquet files, which pandas, polars, DuckDB and Arrow read.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

/// The cells of a column; what is missing is null.
pub enum Cells {
    Texts(Vec<Option<String>>),
    Numbers(Vec<Option<f64>>),
    Counts(Vec<i64>),
}

/// A table by columns, all equally long.
#[derive(Default)]
pub struct Columns {
    pub columns: Vec<(String, Cells)>,
    /// The metadata of the file, by key.
    pub about: Vec<(String, String)>,
}

impl Columns {
    pub fn add(&mut self, name: impl Into<String>, cells: Cells) {
        self.columns.push((name.into(), cells));
    }

    /// The bytes of a Parquet file.
    pub fn parquet(&self) -> Result<Vec<u8>> {
        let fields: Result<Vec<_>> = self
            .columns
            .iter()
            .map(|(name, c)| field(name, c))
            .collect();
        let schema = Type::group_type_builder("table").with_fields(fields?);
        let about = self.about.iter().map(|(key, value)| KeyValue {
            key: key.clone(),
            value: Some(value.clone()),
        });
        let properties = WriterProperties::builder()
            .set_created_by(concat!("graphpatch ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(about.collect()));
        let mut bytes = Vec::new();
        let schema = Arc::new(schema.build()?);
        let properties = Arc::new(properties.build());
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties)?;
        let mut rows = writer.next_row_group()?;
        for (_, cells) in &self.columns {
            let column = rows.next_column()?;
            let column =
                column.ok_or_else(|| ParquetError::General("a column is missing".into()))?;
            write(column, cells)?;
        }
        rows.close()?;
        writer.close()?;
        Ok(bytes)
    }
}

fn field(name: &str, cells: &Cells) -> Result<Arc<Type>> {
    let (physical, logical, repetition) = match cells {
        Cells::Texts(_) => (
            Physical::BYTE_ARRAY,
            Some(LogicalType::String),
            Repetition::OPTIONAL,
        ),
        Cells::Numbers(_) => (Physical::DOUBLE, None, Repetition::OPTIONAL),
        Cells::Counts(_) => (Physical::INT64, None, Repetition::REQUIRED),
    };
    let made = Type::primitive_type_builder(name, physical)
        .with_logical_type(logical)
        .with_repetition(repetition);
    Ok(Arc::new(made.build()?))
}

fn write(mut column: SerializedColumnWriter<'_>, cells: &Cells) -> Result<()> {
    fn there<T>(cells: &[Option<T>]) -> Vec<i16> {
        cells.iter().map(|cell| i16::from(cell.is_some())).collect()
    }
    match cells {
        Cells::Texts(cells) => {
            let texts = cells
                .iter()
                .flatten()
                .map(|text| ByteArray::from(text.as_str()));
            let texts: Vec<ByteArray> = texts.collect();
            let column = column.typed::<ByteArrayType>();
            column.write_batch(&texts, Some(&there(cells)), None)?;
        }
        Cells::Numbers(cells) => {
            let numbers: Vec<f64> = cells.iter().flatten().copied().collect();
            let column = column.typed::<DoubleType>();
            column.write_batch(&numbers, Some(&there(cells)), None)?;
        }
        Cells::Counts(cells) => {
            column.typed::<Int64Type>().write_batch(cells, None, None)?;
        }
    }
    column.close()
}

//! A sweep's table as Apache Parquet: the rows of `sweep.csv` in typed columns.
//!
//! The cells are those of the table, so that both say the same: whole numbers become 64-bit integers, other numbers doubles (the table
//! has the shortest text that reads back as the same double), what is empty there is null here. Nothing in the file depends on the
//! clock or the machine: one row group for so many rows, no compression, and the program's version as its author.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use serde_json::Value as Json;
use steptime_scenarios::{SweepPart, sweep_csv};

use crate::failure::Failure;

/// Rows of a row group.
const GROUP: usize = 100_000;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    Real,
    Truth,
    Text,
}

impl Kind {
    /// Of a column that every sweep has.
    fn of_result(name: &str) -> Self {
        match name {
            "verdict" | "reason" => Self::Text,
            "point" | "gpus" => Self::Whole,
            _ if name.ends_with("_bytes") => Self::Whole,
            _ => Self::Real,
        }
    }

    /// Of an axis, by its values: text unless all of them are numbers or truths.
    fn of_axis(part: &SweepPart, name: &str) -> Self {
        let values = || part.rows.iter().filter_map(|row| row.values.get(name));
        if values().all(Json::is_i64) {
            Self::Whole
        } else if values().all(Json::is_number) {
            Self::Real
        } else if values().all(Json::is_boolean) {
            Self::Truth
        } else {
            Self::Text
        }
    }

    fn physical(self) -> Physical {
        match self {
            Self::Whole => Physical::INT64,
            Self::Real => Physical::DOUBLE,
            Self::Truth => Physical::BOOLEAN,
            Self::Text => Physical::BYTE_ARRAY,
        }
    }
}

/// The bytes of `sweep.parquet`.
pub(super) fn bytes(part: &SweepPart) -> Result<Vec<u8>, Failure> {
    let refuse = |error: &dyn std::fmt::Display| Failure::Message(format!("sweep.parquet: {error}"));
    let text = sweep_csv(&part.header.axes, &part.rows);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<String> =
        reader.headers().map_err(|error| refuse(&error))?.iter().map(str::to_owned).collect();
    let axes = 1..=part.header.axes.len();
    let kind = |(index, name): (usize, &String)| {
        if axes.contains(&index) { Kind::of_axis(part, name) } else { Kind::of_result(name) }
    };
    let kinds: Vec<Kind> = names.iter().enumerate().map(kind).collect();
    let records: Vec<csv::StringRecord> =
        reader.records().collect::<Result<_, _>>().map_err(|error| refuse(&error))?;
    write(&names, &kinds, &records).map_err(|error| refuse(&error))
}

fn write(names: &[String], kinds: &[Kind], records: &[csv::StringRecord]) -> Result<Vec<u8>, ParquetError> {
    let field = |(name, kind): (&String, &Kind)| {
        let text = (*kind == Kind::Text).then_some(LogicalType::String);
        let column = Type::primitive_type_builder(name, kind.physical())
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(text);
        column.build().map(Arc::new)
    };
    let fields = names.iter().zip(kinds).map(field).collect::<Result<Vec<_>, _>>()?;
    let schema = Arc::new(Type::group_type_builder("sweep").with_fields(fields).build()?);
    let author = format!("steptime {}", env!("CARGO_PKG_VERSION"));
    let properties = Arc::new(WriterProperties::builder().set_created_by(author).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    for rows in records.chunks(GROUP) {
        let mut group = writer.next_row_group()?;
        let mut index = 0;
        while let Some(mut column) = group.next_column()? {
            let cells: Vec<&str> = rows.iter().map(|row| row.get(index).unwrap_or_default()).collect();
            fill(column.untyped(), &cells)?;
            column.close()?;
            index += 1;
        }
        group.close()?;
    }
    writer.into_inner()
}

/// Writes the cells of a column. A cell without text is null: level 0, where a value has level 1.
fn fill(column: &mut ColumnWriter<'_>, cells: &[&str]) -> Result<(), ParquetError> {
    let levels: Vec<i16> = cells.iter().map(|cell| i16::from(!cell.is_empty())).collect();
    let there = || cells.iter().copied().filter(|cell| !cell.is_empty());
    let wrong = |cell: &str| ParquetError::General(format!("`{cell}` is not a value of its column"));
    match column {
        ColumnWriter::Int64ColumnWriter(writer) => {
            let values = there().map(|cell| cell.parse().map_err(|_| wrong(cell)));
            writer.write_batch(&values.collect::<Result<Vec<i64>, _>>()?, Some(&levels), None)?;
        }
        ColumnWriter::DoubleColumnWriter(writer) => {
            let values = there().map(|cell| cell.parse().map_err(|_| wrong(cell)));
            writer.write_batch(&values.collect::<Result<Vec<f64>, _>>()?, Some(&levels), None)?;
        }
        ColumnWriter::BoolColumnWriter(writer) => {
            let values: Vec<bool> = there().map(|cell| cell == "true").collect();
            writer.write_batch(&values, Some(&levels), None)?;
        }
        ColumnWriter::ByteArrayColumnWriter(writer) => {
            let values: Vec<ByteArray> = there().map(ByteArray::from).collect();
            writer.write_batch(&values, Some(&levels), None)?;
        }
        _ => return Err(ParquetError::General("a column of another type".to_owned())),
    }
    Ok(())
}

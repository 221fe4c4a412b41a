//! Figures of tables as data: what is drawn, from which columns, how wide, with which words.

use serde::Deserialize;

use crate::error::PlotError;
use crate::scale::ScaleKind;
use crate::table::Table;
use crate::{Figure, Width, cdf, heat_map, lines, pareto, ranking, roofline, topology, tornado};

/// The kinds of figures that are drawn from a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// A quantity over a number of GPUs (or any other number), a line a series, beside the ideal: `x`, `y`.
    Scaling,
    /// A quantity over another, a line a series, with whiskers from `low` to `high`: `x`, `y`.
    Lines,
    /// Points of two quantities of which both should be good, and the front of those that no other beats: `x`, `y`.
    Pareto,
    /// A quantity over two axes of a sweep: `x`, `y`, `value`.
    HeatMap,
    /// What single changes do, the largest on top: `label`, `low`, `high`, and `base`.
    Tornado,
    /// How large a share of the rows lies below a value, a line a series: `x`.
    Cdf,
    /// Bars of one or two quantities, a row each: `label`, `x`, and `y`.
    Bars,
    /// Rate of operations over their intensity below the roofs of a device: `flops`, `bytes`, `seconds`.
    Roofline,
    /// A network by the load of its links: `x` and `y` are their ends, `value` the load.
    Topology,
}

impl TableKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Scaling,
        Self::Lines,
        Self::Pareto,
        Self::HeatMap,
        Self::Tornado,
        Self::Cdf,
        Self::Bars,
        Self::Roofline,
        Self::Topology,
    ];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scaling => "scaling",
            Self::Lines => "lines",
            Self::Pareto => "pareto",
            Self::HeatMap => "heat_map",
            Self::Tornado => "tornado",
            Self::Cdf => "cdf",
            Self::Bars => "bars",
            Self::Roofline => "roofline",
            Self::Topology => "topology",
        }
    }
}

/// How a quantity would follow the horizontal axis if nothing were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ideal {
    /// Twice as many, twice as much: throughput.
    Proportional,
    /// Twice as many, half as long: the time of a fixed amount of work (strong scaling).
    Inverse,
    /// The same: the time of work that grows along (weak scaling), throughput of one GPU.
    Constant,
}

impl Ideal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Proportional, Self::Inverse, Self::Constant];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proportional => "proportional",
            Self::Inverse => "inverse",
            Self::Constant => "constant",
        }
    }
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The smaller: time, memory, cost.
    Lower,
    /// The larger: throughput.
    Higher,
}

impl Better {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Lower, Self::Higher];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        }
    }

    /// Whether `a` is better than `b`.
    pub(crate) fn beats(self, a: f64, b: f64) -> bool {
        match self {
            Self::Lower => a < b,
            Self::Higher => a > b,
        }
    }
}

/// One figure of a table. Columns are named; which of them a kind needs is said at [`TableKind`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// Name of the figure, fit for a file name.
    pub name: String,
    /// File of the table, for those who read files: comma-separated values, relative to the manifest.
    #[serde(default)]
    pub data: String,
    /// What is drawn.
    #[serde(deserialize_with = "by_name")]
    pub kind: TableKind,
    /// Width on paper.
    #[serde(deserialize_with = "by_name", default = "one_column")]
    pub width: Width,
    /// Column of the horizontal axis.
    pub x: Option<String>,
    /// Column of the vertical axis.
    pub y: Option<String>,
    /// Column that tells lines apart.
    pub series: Option<String>,
    /// What the series are, where their names do not say it: `GPUs`.
    pub series_label: Option<String>,
    /// Column of a heat map's cells.
    pub value: Option<String>,
    /// Column of names: of bars, of points.
    pub label: Option<String>,
    /// Column of the lower end of whiskers or bars.
    pub low: Option<String>,
    /// Column of their upper end.
    pub high: Option<String>,
    /// Column that says `out_of_memory` where a row ran out of memory; by default `verdict`, if it is there.
    pub verdict: Option<String>,
    /// Column of floating-point operations of a roofline's rows.
    pub flops: Option<String>,
    /// Column of bytes moved.
    pub bytes: Option<String>,
    /// Column of seconds.
    pub seconds: Option<String>,
    /// What a tornado's bars start from, in the unit of `low` and `high`.
    pub base: Option<f64>,
    /// Operations a second that a roofline's device can do at most.
    pub peak_flops_per_s: Option<f64>,
    /// Bytes a second that its memory can move at most.
    pub peak_bytes_per_s: Option<f64>,
    /// What stands along the horizontal axis; by default the column's name.
    pub x_label: Option<String>,
    /// What stands along the vertical axis.
    pub y_label: Option<String>,
    /// How the horizontal axis runs; by default as the kind has it.
    #[serde(deserialize_with = "some_by_name", default)]
    pub x_scale: Option<ScaleKind>,
    /// How the vertical axis runs.
    #[serde(deserialize_with = "some_by_name", default)]
    pub y_scale: Option<ScaleKind>,
    /// What an ideal line of a scaling figure does; by default time falls and all else rises with the number.
    #[serde(deserialize_with = "some_by_name", default)]
    pub ideal: Option<Ideal>,
    /// What is better along the horizontal axis of a Pareto figure; by default lower.
    #[serde(deserialize_with = "some_by_name", default)]
    pub x_better: Option<Better>,
    /// What is better along the vertical axis.
    #[serde(deserialize_with = "some_by_name", default)]
    pub y_better: Option<Better>,
    /// Only the rows that have these texts in these columns.
    #[serde(default)]
    pub only: std::collections::BTreeMap<String, String>,
}

fn one_column() -> Width {
    Width::OneColumn
}

fn by_name<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err = PlotError>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn some_by_name<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err = PlotError>,
{
    by_name(deserializer).map(Some)
}

impl TableSpec {
    /// A figure of a kind that names no column yet.
    pub fn new(name: &str, kind: TableKind, width: Width) -> Self {
        Self {
            name: name.to_owned(),
            data: String::new(),
            kind,
            width,
            x: None,
            y: None,
            series: None,
            series_label: None,
            value: None,
            label: None,
            low: None,
            high: None,
            verdict: None,
            flops: None,
            bytes: None,
            seconds: None,
            base: None,
            peak_flops_per_s: None,
            peak_bytes_per_s: None,
            x_label: None,
            y_label: None,
            x_scale: None,
            y_scale: None,
            ideal: None,
            x_better: None,
            y_better: None,
            only: std::collections::BTreeMap::new(),
        }
    }

    /// Draws the figure from a table.
    ///
    /// # Errors
    /// [`PlotError::NeedsColumn`] for a column that the kind needs and the spec does not name,
    /// [`PlotError::UnknownName`] for one that the table does not have, [`PlotError::Damaged`] for cells that are no
    /// numbers, and [`PlotError::Empty`] where no row is left to draw.
    pub fn draw(&self, table: &Table) -> Result<Figure, PlotError> {
        let table = table.only(self.only.iter().map(|(column, text)| (column.as_str(), text.as_str())))?;
        if table.is_empty() {
            return Err(PlotError::Empty(format!("no row of the table is left for `{}`", self.name)));
        }
        let figure = match self.kind {
            TableKind::Scaling | TableKind::Lines => lines::lines(self, &table),
            TableKind::Pareto => pareto::pareto(self, &table),
            TableKind::HeatMap => heat_map::heat_map(self, &table),
            TableKind::Tornado => tornado::tornado(self, &table),
            TableKind::Cdf => cdf::cdf(self, &table),
            TableKind::Bars => ranking::bars(self, &table),
            TableKind::Roofline => roofline::roofline(self, &table),
            TableKind::Topology => topology::topology(self, &table),
        }?;
        Ok(Figure { name: self.name.clone(), ..figure })
    }

    /// A column that this kind cannot do without.
    pub(crate) fn column<'a>(
        &self,
        key: &'static str,
        value: Option<&'a String>,
    ) -> Result<&'a str, PlotError> {
        value.map(String::as_str).ok_or(PlotError::NeedsColumn { kind: self.kind, key })
    }

    /// For each row, whether it ran out of memory.
    pub(crate) fn out_of_memory(&self, table: &Table) -> Result<Vec<bool>, PlotError> {
        let there = table.columns().iter().any(|column| column == "verdict");
        match self.verdict.as_deref().or(there.then_some("verdict")) {
            None => Ok(vec![false; table.len()]),
            Some(column) => {
                Ok(table.texts(column)?.into_iter().map(|text| text == "out_of_memory").collect())
            }
        }
    }

    /// What stands along the horizontal axis.
    pub(crate) fn x_text(&self, column: &str) -> String {
        self.x_label.clone().unwrap_or_else(|| words(column))
    }

    /// What stands along the vertical axis.
    pub(crate) fn y_text(&self, column: &str) -> String {
        self.y_label.clone().unwrap_or_else(|| words(column))
    }
}

/// A column's name as people read it: `workload.micro_batch_size` is `Micro batch size`; the unit goes to the axis.
pub(crate) fn words(column: &str) -> String {
    let last = column.rsplit('.').next().unwrap_or(column);
    let plain = match last.strip_suffix("_bytes") {
        Some(rest) => rest,
        None if last.ends_with("_per_s") => last,
        None => last.strip_suffix("_s").unwrap_or(last),
    };
    let text = plain.replace("_per_s", "/s").replace("_per_", "/").replace('_', " ");
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_read_as_words() {
        let columns = [
            "workload.micro_batch_size",
            "step_time_s",
            "tokens_per_s",
            "tokens_per_s_per_gpu",
            "reserved_bytes",
        ];
        assert_eq!(
            columns.map(words),
            ["Micro batch size", "Step time", "Tokens/s", "Tokens/s/gpu", "Reserved"]
        );
    }
}

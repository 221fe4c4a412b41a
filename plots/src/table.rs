//! Tables of results, one row a point, as `sweep` and others save them: comma-separated, names in the first line.

use crate::axis::Quantity;
use crate::error::PlotError;

/// A table whose cells are texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// A column of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    /// None where a cell is empty.
    pub(crate) values: Vec<Option<f64>>,
    pub(crate) quantity: Quantity,
}

impl Table {
    /// A table of these rows.
    ///
    /// # Errors
    /// [`PlotError::Damaged`] when a row has another length than the names, or two columns have one name.
    pub fn new(columns: Vec<String>, rows: Vec<Vec<String>>) -> Result<Self, PlotError> {
        for (index, column) in columns.iter().enumerate() {
            if columns[..index].contains(column) {
                return Err(PlotError::Damaged(format!("two columns are named `{column}`")));
            }
        }
        match rows.iter().position(|row| row.len() != columns.len()) {
            // The names are line 1.
            Some(index) => Err(PlotError::Damaged(format!(
                "line {} has {} values for {} columns",
                index + 2,
                rows[index].len(),
                columns.len()
            ))),
            None => Ok(Self { columns, rows }),
        }
    }

    /// Reads comma-separated values (RFC 4180) with the names of the columns in the first line.
    ///
    /// # Errors
    /// [`PlotError::Damaged`] when the text is no such table.
    pub fn from_csv(text: &str) -> Result<Self, PlotError> {
        let damaged = |error: csv::Error| PlotError::Damaged(error.to_string());
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let columns = reader.headers().map_err(damaged)?.iter().map(str::to_owned).collect();
        let rows = reader
            .records()
            .map(|record| record.map(|record| record.iter().map(str::to_owned).collect()))
            .collect::<Result<_, _>>()
            .map_err(damaged)?;
        Self::new(columns, rows)
    }

    /// Names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows whose cell in each of these columns is this text.
    ///
    /// # Errors
    /// [`PlotError::UnknownName`] for a column that is not there.
    pub fn only<'a>(&self, wanted: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, PlotError> {
        let mut rows = self.rows.clone();
        for (column, text) in wanted {
            let index = self.index(column)?;
            rows.retain(|row| row[index] == text);
        }
        Ok(Self { columns: self.columns.clone(), rows })
    }

    fn index(&self, column: &str) -> Result<usize, PlotError> {
        self.columns.iter().position(|name| name == column).ok_or_else(|| PlotError::UnknownName {
            what: "column",
            found: column.to_owned(),
            allowed: self.columns.join(", "),
        })
    }

    /// The texts of a column.
    pub(crate) fn texts(&self, column: &str) -> Result<Vec<&str>, PlotError> {
        let index = self.index(column)?;
        Ok(self.rows.iter().map(|row| row[index].as_str()).collect())
    }

    /// The numbers of a column.
    ///
    /// # Errors
    /// [`PlotError::Damaged`] for a cell that is neither empty nor a finite number.
    pub(crate) fn numbers(&self, column: &str) -> Result<Numbers, PlotError> {
        let number = |(row, text): (usize, &&str)| match text.trim() {
            "" => Ok(None),
            text => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Some(value)),
                _ => Err(PlotError::Damaged(format!(
                    "line {}, column `{column}`: found `{text}`, expected a number",
                    row + 2
                ))),
            },
        };
        let values = self.texts(column)?.iter().enumerate().map(number).collect::<Result<_, _>>()?;
        Ok(Numbers { values, quantity: Quantity::of_column(column) })
    }
}

/// The different texts of a column: by size where all are numbers, else in the order in which they come.
pub(crate) fn distinct<'a>(texts: &[&'a str]) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for text in texts {
        if !found.contains(text) {
            found.push(text);
        }
    }
    let numbers: Option<Vec<f64>> = found.iter().map(|text| text.parse().ok()).collect();
    if let Some(numbers) = numbers {
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
        found = order.into_iter().map(|index| found[index]).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_found_by_name_and_told_by_line() {
        let table = Table::from_csv("gpus,step_time_s\n8,1.5\n16,\n32,x\n").unwrap();
        assert_eq!(table.texts("gpus").unwrap(), ["8", "16", "32"]);
        let error = table.numbers("step_time_s").unwrap_err().to_string();
        assert_eq!(
            error,
            "the saved result is damaged: line 4, column `step_time_s`: found `x`, expected a number"
        );
        let error = table.numbers("step_time").unwrap_err().to_string();
        assert_eq!(error, "unknown column `step_time`; allowed: gpus, step_time_s");
        assert!(Table::from_csv("a,b\n1\n").unwrap_err().to_string().contains("line 2 has 1 values"));
    }

    #[test]
    fn quantities_follow_from_the_ending() {
        assert_eq!(Quantity::of_column("step_time_s"), Quantity::Seconds);
        assert_eq!(Quantity::of_column("tokens_per_s"), Quantity::Number);
        assert_eq!(Quantity::of_column("reserved_bytes"), Quantity::Bytes);
    }

    #[test]
    fn categories_are_sorted_where_they_are_numbers() {
        assert_eq!(distinct(&["16", "8", "16", "128"]), ["8", "16", "128"]);
        assert_eq!(distinct(&["zb-h1", "1f1b", "zb-h1"]), ["zb-h1", "1f1b"]);
    }
}

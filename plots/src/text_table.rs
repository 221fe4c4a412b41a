//! Tables of the same data for papers: Markdown and LaTeX.

use crate::axis::{Quantity, three_digits};
use crate::error::PlotError;
use crate::spec::words;
use crate::table::Table;

/// What a table is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextFormat {
    /// GitHub's tables.
    Markdown,
    /// A `tabular` with rules of the package `booktabs`.
    Latex,
}

impl TextFormat {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::Markdown, Self::Latex];

    /// The name in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Markdown => "markdown",
            Self::Latex => "latex",
        }
    }

    /// Ending of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Markdown => "md",
            Self::Latex => "tex",
        }
    }

    /// What the table was made from, as lines that are not shown.
    pub fn comment(self, facts: &[(String, String)]) -> String {
        let line = |(name, text): &(String, String)| match self {
            // Two hyphens would end the comment.
            Self::Markdown => format!("<!-- {name}: {} -->\n", text.replace("--", "- -")),
            Self::Latex => format!("% {name}: {}\n", text.replace('\n', " ")),
        };
        facts.iter().map(line).collect()
    }
}

/// Writes these columns of a table, numbers with three digits in the unit that suits the column's largest. Without
/// names, all columns.
///
/// # Errors
/// [`PlotError::UnknownName`] for a column that is not there.
pub fn text_table(table: &Table, columns: &[String], format: TextFormat) -> Result<String, PlotError> {
    let all = table.columns().to_vec();
    let columns = if columns.is_empty() { &all } else { columns };
    let written = columns.iter().map(|column| column_of(table, column)).collect::<Result<Vec<_>, _>>()?;
    let mut text = String::new();
    let escape = |cell: &str| match format {
        TextFormat::Markdown => cell.replace('|', "\\|"),
        TextFormat::Latex => latex(cell),
    };
    let line = |cells: Vec<String>| match format {
        TextFormat::Markdown => format!("| {} |\n", cells.join(" | ")),
        TextFormat::Latex => format!("{} \\\\\n", cells.join(" & ")),
    };
    let heads = line(written.iter().map(|column| escape(&column.head)).collect());
    match format {
        TextFormat::Markdown => {
            text.push_str(&heads);
            let rules = written.iter().map(|column| if column.right { "---:" } else { "---" }.to_owned());
            text.push_str(&line(rules.collect()));
        }
        TextFormat::Latex => {
            let sides: String = written.iter().map(|column| if column.right { 'r' } else { 'l' }).collect();
            text.push_str(&format!("\\begin{{tabular}}{{{sides}}}\n\\toprule\n{heads}\\midrule\n"));
        }
    }
    for row in 0..table.len() {
        text.push_str(&line(written.iter().map(|column| escape(&column.cells[row])).collect()));
    }
    if format == TextFormat::Latex {
        text.push_str("\\bottomrule\n\\end{tabular}\n");
    }
    Ok(text)
}

/// A column as it is written.
struct Written {
    head: String,
    cells: Vec<String>,
    right: bool,
}

fn column_of(table: &Table, column: &str) -> Result<Written, PlotError> {
    let texts = table.texts(column)?;
    let Ok(numbers) = table.numbers(column) else {
        let cells = texts.iter().map(|text| (*text).to_owned()).collect();
        return Ok(Written { head: words(column), cells, right: false });
    };
    // Counts stay as they are; what has a unit, or decimals, gets three digits.
    let plain = numbers.quantity == Quantity::Number && texts.iter().all(|text| !text.contains(['.', 'e']));
    let largest = numbers.values.iter().flatten().copied().fold(0.0, f64::max);
    let unit = numbers.quantity.unit(largest);
    let cell = |(value, text): (&Option<f64>, &&str)| match value {
        None => "–".to_owned(),
        Some(_) if plain => (*text).to_owned(),
        Some(value) if *value < 0.0 => format!("−{}", three_digits(-value / unit.size)),
        Some(value) => three_digits(value / unit.size),
    };
    let cells = numbers.values.iter().zip(&texts).map(cell).collect();
    let head = if plain { words(column) } else { unit.label(&words(column)) };
    Ok(Written { head, cells, right: true })
}

/// Text in which LaTeX's own characters stand for themselves.
fn latex(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '–' => out.push_str("--"),
            '−' => out.push_str("$-$"),
            'µ' => out.push_str("\\textmu{}"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::from_csv("plan,gpus,step_time_s\nzero_3 & cpu,8,0.5\npipeline,1024,\n").unwrap()
    }

    #[test]
    fn markdown_has_units_in_its_head() {
        assert_eq!(
            text_table(&table(), &[], TextFormat::Markdown).unwrap(),
            "| Plan | Gpus | Step time (ms) |\n| --- | ---: | ---: |\n| zero_3 & cpu | 8 | 500 |\n| pipeline | 1024 | – |\n"
        );
    }

    #[test]
    fn latex_escapes_what_it_must() {
        let columns = ["plan".to_owned(), "gpus".to_owned()];
        assert_eq!(
            text_table(&table(), &columns, TextFormat::Latex).unwrap(),
            "\\begin{tabular}{lr}\n\\toprule\nPlan & Gpus \\\\\n\\midrule\nzero\\_3 \\& cpu & 8 \\\\\npipeline & 1024 \\\\\n\\bottomrule\n\\end{tabular}\n"
        );
    }
}

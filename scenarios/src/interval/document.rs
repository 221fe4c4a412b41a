//! The tables as a file.

use serde::Deserialize;

use super::traits::{Condition, Trait};
use super::{Group, Intervals};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    runs: usize,
    table: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// The part that was left out; absent in the table of all runs.
    without: Option<usize>,
    groups: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    when: Vec<String>,
    runs: usize,
    low: f64,
    high: f64,
    borrowed: [f64; 2],
    gpus: [f64; 2],
    work: [f64; 2],
    /// Absent in tables written before these were looked at: any share.
    #[serde(default = "any_share")]
    host: [f64; 2],
    #[serde(default = "any_share")]
    loading: [f64; 2],
}

fn any_share() -> [f64; 2] {
    [0.0, 1.0]
}

const HEAD: &str = "\
# Written by `steptime validate --data ... --write-intervals FILE`.
#
# Measured over predicted step time of published runs: the ends that hold 80 % of each group, and the range of what
# the group was measured on. borrowed: 0 kernels fitted on the GPU itself, 1 on another of its architecture, 2 on
# another architecture; work: TFLOP of a GPU in one micro-batch; shares are of the predicted step, all but that of
# loading without the loading of samples. The first table
# is of all runs; each of the others leaves a fifth of them out, and is what `validate` compares that fifth with.
";

impl Intervals {
    /// Reads the file.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let document: Document = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut read = Self { runs: document.runs, all: Vec::new(), without: Vec::new() };
        for table in document.table {
            let groups = table.groups.iter().map(group).collect::<Result<Vec<_>, _>>()?;
            match table.without {
                None => read.all = groups,
                Some(part) if part == read.without.len() => read.without.push(groups),
                Some(part) => return Err(format!("table without {part} out of order")),
            }
        }
        Ok(read)
    }

    /// The file that the program is built with (`scenarios/src/interval/residuals.toml`).
    pub fn text(&self) -> String {
        let mut text = format!("{HEAD}\nruns = {}\n", self.runs);
        write_table(&mut text, None, &self.all);
        for (part, groups) in self.without.iter().enumerate() {
            write_table(&mut text, Some(part), groups);
        }
        text
    }
}

fn group(entry: &Entry) -> Result<Group, String> {
    let when = entry.when.iter().map(|text| condition(text)).collect::<Result<Vec<_>, _>>()?;
    let range = |kind: Trait, [least, most]: [f64; 2]| (kind, least, most);
    if !(entry.low > 0.0 && entry.low <= entry.high && entry.high.is_finite()) {
        return Err(format!("{:?}: no interval", entry.when));
    }
    Ok(Group {
        when,
        runs: entry.runs,
        low: entry.low,
        high: entry.high,
        covered: vec![
            range(Trait::Borrowed, entry.borrowed),
            range(Trait::Gpus, entry.gpus),
            range(Trait::Work, entry.work),
            range(Trait::Host, entry.host),
            range(Trait::Loading, entry.loading),
        ],
    })
}

/// `host >= 0.2` or `host < 0.2`.
fn condition(text: &str) -> Result<Condition, String> {
    let wrong = || format!("`{text}` is no condition");
    let mut words = text.split(' ');
    let (Some(name), Some(side), Some(threshold), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong());
    };
    let at_least = match side {
        ">=" => true,
        "<" => false,
        _ => return Err(wrong()),
    };
    Ok(Condition {
        kind: Trait::named(name).ok_or_else(wrong)?,
        at_least,
        threshold: threshold.parse().map_err(|_| wrong())?,
    })
}

fn write_table(text: &mut String, without: Option<usize>, groups: &[Group]) {
    *text += "\n[[table]]\n";
    if let Some(part) = without {
        *text += &format!("without = {part}\n");
    }
    *text += "groups = [\n";
    for group in groups {
        let when: Vec<String> = group
            .when
            .iter()
            .map(|it| {
                let side = if it.at_least { ">=" } else { "<" };
                format!("\"{} {side} {}\"", it.kind.shape().name, it.threshold)
            })
            .collect();
        *text += &format!(
            "  {{ when = [{}], runs = {}, low = {:.3}, high = {:.3}",
            when.join(", "),
            group.runs,
            group.low,
            group.high
        );
        for (kind, least, most) in &group.covered {
            *text += &format!(", {} = [{}, {}]", kind.shape().name, digits(*least), digits(*most));
        }
        *text += " },\n";
    }
    *text += "]\n";
}

/// Enough digits for a range.
fn digits(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.1}") } else { format!("{value:.4}") }
}

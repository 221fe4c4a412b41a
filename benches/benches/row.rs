//! A row of the table of gates, on its way from the process that measures it to the page.

use std::hint::black_box;
use std::time::Instant;

/// What a work took, what it may take, and what a plain loop of the same run takes.
pub(crate) struct Row {
    pub(crate) measured: f64,
    /// What it may be at most.
    pub(crate) limit: Option<f64>,
    pub(crate) unit: &'static str,
    /// The same of what cannot be left out, in the same unit, and what that is.
    pub(crate) floor: Option<(f64, &'static str)>,
    pub(crate) note: String,
}

impl Row {
    /// One line of fields parted by tabs; `peak_mib` is the most memory of the process.
    pub(crate) fn line(&self, peak_mib: f64) -> String {
        let (floor, what) = self.floor.unwrap_or((f64::NAN, ""));
        let limit = self.limit.unwrap_or(f64::NAN);
        format!("{}\t{limit}\t{}\t{floor}\t{what}\t{peak_mib}\t{}", self.measured, self.unit, self.note)
    }
}

/// Least seconds of some runs.
pub(crate) fn best<T>(runs: u32, mut work: impl FnMut() -> T) -> f64 {
    let one = |_| {
        let start = Instant::now();
        black_box(work());
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(one).fold(f64::INFINITY, f64::min)
}

/// A row as it is shown.
pub(crate) struct Shown {
    cells: [String; 7],
}

impl Shown {
    pub(crate) const HEADER: &'static str =
        "work | ours | limit | of limit | plain loop, same run | times the loop | memory, MiB | ";

    /// From the line that a process wrote.
    pub(crate) fn read(name: &str, line: &str, most_mib: Option<f64>) -> Option<Self> {
        let mut fields = line.trim_end_matches('\n').split('\t');
        let mut next = || fields.next().map(str::to_owned);
        let (measured, limit, unit) = (next()?.parse::<f64>().ok()?, next()?.parse::<f64>().ok()?, next()?);
        let (floor, what) = (next()?.parse::<f64>().ok()?, next()?);
        let peak = next()?.parse::<f64>().ok()?;
        let note = next()?;
        let number = |value: f64| {
            if value.is_nan() { "-".to_owned() } else { format!("{value:.3} {unit}").trim_end().to_owned() }
        };
        let times = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.2}") };
        let over = if measured > limit { " !" } else { "" };
        let memory = match most_mib {
            Some(most) => format!("{peak:.0} of {most:.0}{}", if peak > most { " !" } else { "" }),
            None => format!("{peak:.0}"),
        };
        let beside = if what.is_empty() { "-".to_owned() } else { format!("{} {what}", number(floor)) };
        let ours = if note.is_empty() { number(measured) } else { format!("{} ({note})", number(measured)) };
        let cells = [
            name.to_owned(),
            ours,
            number(limit),
            format!("{}{over}", times(measured / limit)),
            beside,
            times(measured / floor),
            memory,
        ];
        Some(Self { cells })
    }

    pub(crate) fn text(&self) -> String {
        self.cells.join(" | ")
    }
}

/// The page docs/performance.md.
pub(crate) fn page(rows: &[Shown]) -> String {
    let mut page = String::from(
        "# Performance\n\n\
         Written by `cargo bench -p steptime-benches --bench gates -- --markdown docs/performance.md`. Every row is a process of \
         its own on one core, where it does not say all; times are the best of some runs. A limit is what the project promises, `!` marks what is over \
         it; the plain loop does what cannot be left out, in the same process, so that its ratio can be compared between \
         machines and days while times cannot. Growth rows give the exponent `e` of `time ~ size^e` between two sizes.\n\n\
         | work | ours | limit | of limit | plain loop, same run | times the loop | memory, MiB |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        page.push_str(&format!("| {} |\n", row.text()));
    }
    page.push_str(
        "\nInstructions are counted in CI (`.ci/instructions`) and held against `benches/instructions.txt`: they do not depend on \
         what else a machine does.\n",
    );
    page
}

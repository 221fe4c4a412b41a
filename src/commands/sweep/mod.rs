//! `steptime sweep` and `steptime merge`.

#[cfg(feature = "parquet")]
mod parquet;
mod parts;
mod shard;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use steptime_scenarios::{
    Left, PointVerdict, Shard, Sweep, SweepHeader, SweepPart, SweepRow, merge_parts, part_name, read_part,
    sweep_csv, sweep_line,
};

use super::run::{self, Beside};
use crate::cli::{MergeArguments, SweepArguments};
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};
use crate::present::{bytes, right_align, seconds, table, trimmed};

/// A sweep as one document.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    header: &'a SweepHeader,
    rows: &'a [SweepRow],
}

/// Plays every point. The answer is no where none of them fits.
pub(crate) fn sweep(arguments: &SweepArguments) -> Result<Answer, Failure> {
    let (draft, files) = run::draft(&arguments.scenario, &arguments.set)?;
    let pool = pool(arguments.jobs)?;
    let sweep = pool.install(|| Sweep::read(&draft, &files))?;
    let shard = arguments.shard.as_deref().map_or(Ok(Shard::WHOLE), shard::read)?;
    let header = sweep.header(shard);
    let Some(folder) = &arguments.out else {
        let rows = Mutex::new(Vec::new());
        let part = SweepPart { header, rows: Vec::new(), whole_bytes: 0 };
        let played = play(&pool, &sweep, &files, part, &|row| {
            lock(&rows).push(row.clone());
            Ok(())
        })?;
        page(arguments.report.as_deref(), &played)?;
        return print(&played, arguments.json);
    };
    let result = folder.join(part_name(shard, "jsonl"));
    let left = Left::find(folder, &result, &header, arguments.restart)?;
    let part = match left {
        Left::Finished(part) => part,
        Left::Begun(journal, part) => {
            let resumed = part.rows.len();
            let part = play(&pool, &sweep, &files, part, &|row| Ok(journal.append(&sweep_line(row))?))?;
            write(folder, &part)?;
            journal.remove()?;
            if resumed > 0 && !arguments.quiet {
                output::remark(&format!("{resumed} points were there from an earlier run\n"))?;
            }
            part
        }
    };
    page(arguments.report.as_deref(), &part)?;
    #[cfg(feature = "parquet")]
    if arguments.parquet {
        write_parquet(folder, &part)?;
    }
    if arguments.json {
        return print(&part, true);
    }
    if !arguments.quiet {
        output::print(&trimmed(&summary(&part, folder)))?;
    }
    Ok(answer(&part))
}

/// Puts parts together.
pub(crate) fn merge(arguments: &MergeArguments) -> Result<Answer, Failure> {
    let mut parts = Vec::new();
    for path in parts::find(&arguments.parts)? {
        let text = output::read(&path)?;
        let name = path.display().to_string();
        let part = read_part(&name, &text).map_err(|error| Failure::Message(error.to_string()))?;
        parts.push((name, part));
    }
    let whole = merge_parts(parts).map_err(|error| Failure::Message(error.to_string()))?;
    page(arguments.report.as_deref(), &whole)?;
    let Some(folder) = &arguments.out else { return print(&whole, arguments.json) };
    write(folder, &whole)?;
    #[cfg(feature = "parquet")]
    if arguments.parquet {
        write_parquet(folder, &whole)?;
    }
    if arguments.json {
        return print(&whole, true);
    }
    output::print(&trimmed(&summary(&whole, folder)))?;
    Ok(answer(&whole))
}

/// Writes the page, if one is wanted.
fn page(file: Option<&Path>, part: &SweepPart) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let html = steptime_plots::sweep_page(&part.header, &part.rows)?;
    output::write_all(&[Output::new(file.to_owned(), html)])
}

/// A pool of threads; the results do not depend on how many.
pub(crate) fn pool(jobs: Option<u16>) -> Result<rayon::ThreadPool, Failure> {
    let threads = jobs.map_or(0, usize::from);
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    built.map_err(|error| Failure::Message(format!("threads cannot be started: {error}")))
}

/// A lock that a thread which ended has left behind is as good as any: rows are appended whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Plays what a part still lacks; `keep` is called with each row as it is there.
fn play(
    pool: &rayon::ThreadPool,
    sweep: &Sweep,
    files: &Beside,
    part: SweepPart,
    keep: &(dyn Fn(&SweepRow) -> Result<(), Failure> + Sync),
) -> Result<SweepPart, Failure> {
    let SweepPart { header, rows, .. } = part;
    let there: std::collections::BTreeSet<u64> = rows.iter().map(|row| row.point).collect();
    let all = (0..header.points).filter(|&point| header.shard.holds(point));
    let wanted: Vec<u64> = all.filter(|point| !there.contains(point)).collect();
    let bar = progress(wanted.len() as u64);
    let rows = Mutex::new(rows);
    let done = |row: SweepRow| {
        keep(&row)?;
        lock(&rows).push(row);
        bar.inc(1);
        Ok(())
    };
    let played = pool.install(|| sweep.play::<Failure>(&wanted, files, &done));
    bar.finish_and_clear();
    played?;
    let mut rows = rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    rows.sort_by_key(|row| row.point);
    Ok(SweepPart { header, rows, whole_bytes: 0 })
}

/// A bar with rate and remaining time, hidden off a terminal.
fn progress(points: u64) -> ProgressBar {
    let bar = ProgressBar::new(points);
    let template = "{wide_bar} {pos}/{len} points, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// The finished part as files: of a shard its lines alone, of the whole also the table.
fn write(folder: &Path, part: &SweepPart) -> Result<(), Failure> {
    let mut lines = sweep_line(&part.header);
    part.rows.iter().for_each(|row| lines += &sweep_line(row));
    let shard = part.header.shard;
    let mut outputs = Vec::new();
    if shard == Shard::WHOLE {
        outputs.push(Output::new(folder.join("sweep.csv"), sweep_csv(&part.header.axes, &part.rows)));
    }
    outputs.push(Output::new(folder.join(part_name(shard, "jsonl")), lines));
    output::write_all(&outputs)
}

#[cfg(feature = "parquet")]
fn write_parquet(folder: &Path, part: &SweepPart) -> Result<(), Failure> {
    output::write_all(&[Output::new(folder.join("sweep.parquet"), parquet::bytes(part)?)])
}

fn print(part: &SweepPart, as_json: bool) -> Result<Answer, Failure> {
    let text = if as_json {
        output::json(&Document { header: &part.header, rows: &part.rows })?
    } else {
        sweep_csv(&part.header.axes, &part.rows)
    };
    output::print(&text)?;
    Ok(answer(part))
}

fn answer(part: &SweepPart) -> Answer {
    // A shard without points has nothing to say no to.
    let fits = part.rows.iter().any(|row| row.verdict == PointVerdict::Fits);
    if fits || part.rows.is_empty() { Answer::Yes } else { Answer::No }
}

/// Points of the summary's table.
const BEST: usize = 5;

/// How many points ended how, and the fastest of those that fit.
fn summary(part: &SweepPart, folder: &Path) -> String {
    let header = &part.header;
    let count = |verdict| part.rows.iter().filter(|row| row.verdict == verdict).count();
    let mut text = format!("{}\n\n", header.name);
    let skipped = if header.skipped > 0 {
        format!(", {} left out by conditions", header.skipped)
    } else {
        String::new()
    };
    text += &format!("  points         {} of {}{skipped}\n", part.rows.len(), header.points);
    text += &format!("  fit            {}\n", count(PointVerdict::Fits));
    text += &format!("  out of memory  {}\n", count(PointVerdict::OutOfMemory));
    text += &format!("  refused        {}\n", count(PointVerdict::Refused));
    let mut best: Vec<&SweepRow> = part.rows.iter().filter(|row| row.verdict == PointVerdict::Fits).collect();
    let rate = |row: &SweepRow| row.samples_per_s.unwrap_or(0.0);
    best.sort_by(|a, b| rate(b).total_cmp(&rate(a)).then(a.point.cmp(&b.point)));
    if !best.is_empty() {
        text += "\nmost samples a second\n";
        let names: Vec<&str> =
            header.axes.iter().map(|axis| axis.rsplit('.').next().unwrap_or(axis)).collect();
        let mut columns = vec!["point"];
        columns.extend(names);
        columns.extend(["step", "samples/s", "memory"]);
        let mut grid = table(&columns);
        for row in best.into_iter().take(BEST) {
            let mut cells = vec![row.point.to_string()];
            cells.extend(
                row.values
                    .values()
                    .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            );
            cells.push(row.step_time_s.map_or_else(|| "-".to_owned(), seconds));
            cells.push(crate::present::significant(rate(row)));
            cells.push(row.peak_device_bytes.map_or_else(|| "-".to_owned(), bytes));
            grid.add_row(cells);
        }
        right_align(&mut grid, 1);
        text += &format!("{grid}\n");
    }
    let file: PathBuf = folder.join(if header.shard == Shard::WHOLE {
        "sweep.csv".to_owned()
    } else {
        part_name(header.shard, "jsonl")
    });
    text + &format!("\nresults in {}\n", file.display())
}

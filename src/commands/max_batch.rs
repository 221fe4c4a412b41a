//! `steptime max-batch`.

use steptime_scenarios::{LARGEST_MICRO_BATCH, MaxBatch, max_batch as find};

use super::run;
use crate::cli::MaxBatchArguments;
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{bytes, seconds, shortage, significant, trimmed};

/// Finds the largest micro-batch; the answer is no where not even the smallest fits.
pub(crate) fn max_batch(arguments: &MaxBatchArguments) -> Result<Answer, Failure> {
    let (draft, files) = run::draft(&arguments.scenario, &arguments.set)?;
    let found = find(&draft, &files, arguments.granularity)?;
    let text = if arguments.json {
        output::json(&found)?
    } else if arguments.quiet {
        format!("{}\n", answer(&found))
    } else {
        text(&found)
    };
    output::print(&trimmed(&text))?;
    Ok(if found.micro_batch_size.is_some() { Answer::Yes } else { Answer::No })
}

fn answer(found: &MaxBatch) -> String {
    match (found.micro_batch_size, found.next_micro_batch_size) {
        (None, _) => format!("{}: no micro-batch fits", found.name),
        (Some(size), None) => {
            format!("{}: micro-batches of {size} fit; none above {LARGEST_MICRO_BATCH} was tried", found.name)
        }
        (Some(size), Some(_)) => format!("{}: the largest micro-batch is {size}", found.name),
    }
}

fn text(found: &MaxBatch) -> String {
    let mut text = format!("{}\n\n", found.name);
    if let (Some(size), Some(report)) = (found.micro_batch_size, &found.report) {
        let memory = &report.peak_memory;
        let spare = memory.capacity_bytes.saturating_sub(memory.device_bytes);
        text += &format!("  micro-batch    {size} fits, {} to spare\n", bytes(spare));
        if let (Some(step), Some(rate)) = (report.step_time_s, report.samples_per_s) {
            text += &format!("  step time      {}, {} samples/s\n", seconds(step), significant(rate));
        }
    }
    if let Some(next) = found.next_micro_batch_size {
        let what = found.runs_out.as_ref().map_or_else(
            || "it does not fit".to_owned(),
            |oom| format!("rank {}: {}", oom.rank, shortage(oom)),
        );
        text += &format!("  {:<14} {what}\n", format!("at {next}"));
    }
    let tried: Vec<String> = found.tried.iter().map(u64::to_string).collect();
    text += &format!("  played         {}\n\n{}\n", tried.join(", "), answer(found));
    text
}

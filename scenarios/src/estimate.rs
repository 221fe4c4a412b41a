//! Playing only some of a step's equal micro-batches, for scoring and screening many scenarios.
//!
//! After a pipeline has filled, every further micro-batch does the same and takes the same time: the step is affine in
//! their number. Two shorter steps, both past the filling, give the line. A test holds this against full play.

use steptime_plans::{Plan, ScheduleKind, Task, Told};

use crate::error::InputError;
use crate::report::{Report, Verdict};
use crate::run::{attach_interval, play, play_sizes, play_time};
use crate::scenario::{Job, Scenario};
use crate::shared::Point;

/// The report of a scenario, of whose micro-batches only as many are played as it takes to see the rest.
///
/// Its step time and breakdown are within a thousandth of full play; memory is equal, because no more micro-batches
/// are in flight once the pipeline is full.
///
/// # Errors
/// As [`crate::run`].
pub fn estimate(scenario: &Scenario) -> Result<Report, InputError> {
    Ok(attach_interval(scenario, in_part(scenario)?))
}

/// The report without the interval.
pub(crate) fn in_part(scenario: &Scenario) -> Result<Report, InputError> {
    in_part_with(scenario, Some(Told::Everything), &alone)
}

/// The same of whose memory only sizes are wanted.
pub(crate) fn in_part_sizes(scenario: &Scenario) -> Result<Report, InputError> {
    in_part_with(scenario, Some(Told::Sizes), &alone)
}

/// The same for its times alone: the report knows nothing of memory.
pub(crate) fn in_part_times(scenario: &Scenario) -> Result<Report, InputError> {
    in_part_with(scenario, None, &alone)
}

/// Plays a scenario's step, with so many micro-batches if a number is given, and with what is asked of its memory.
type Player<'a> = &'a dyn Fn(&Scenario, Option<u64>, Option<Told>) -> Result<Report, InputError>;

/// A step by itself.
fn alone(scenario: &Scenario, count: Option<u64>, told: Option<Told>) -> Result<Report, InputError> {
    if let Some(count) = count {
        return alone(&scenario.with_micro_batches(count), None, told);
    }
    match told {
        Some(Told::Everything) => play(scenario, false).map(|played| played.report),
        Some(Told::Sizes) => play_sizes(scenario),
        None => play_time(scenario),
    }
}

/// A point of a sweep: in part for those who want to know how much memory it takes, and of what does not fit everything,
/// so that moments of peaks may be missing; or in full. With `point` it has in common what it can.
pub(crate) fn row_report(
    scenario: &Scenario,
    part: bool,
    point: Option<&Point<'_>>,
) -> Result<Report, InputError> {
    let shared = |scenario: &Scenario, count, told| match point {
        Some(point) => point.play(scenario, count, told),
        None => alone(scenario, count, told),
    };
    let everything = Some(Told::Everything);
    let report = if part {
        in_part_with(scenario, Some(Told::Sizes), &shared)?
    } else {
        shared(scenario, None, everything)?
    };
    let again = part && report.verdict == Verdict::OutOfMemory;
    let report = if again { in_part_with(scenario, everything, &shared)? } else { report };
    Ok(attach_interval(scenario, report))
}

fn in_part_with(scenario: &Scenario, told: Option<Told>, play: Player<'_>) -> Result<Report, InputError> {
    let full = || play(scenario, None, told);
    let Job::Gpus { plan, workload, .. } = &scenario.job else { return full() };
    // Steps that wait for their samples are no line: from some number of micro-batches on the loader is the slower one.
    if scenario.input.is_some() || plan.micro_batch_counts.is_some() {
        return full();
    }
    let count = workload.accumulation;
    let training = workload.task == Task::Training;
    let Some(period) = period(plan, training, count) else { return full() };
    // The last group of micro-batches may be smaller than the others.
    let filled = (if plan.schedule.splits_backward() { 4 } else { 2 }) * plan.pipeline + 4;
    let short = filled.next_multiple_of(period) + count % period;
    let long = short + period;
    if count <= long + period {
        return full();
    }
    let first = play(scenario, Some(short), None)?;
    let second = play(scenario, Some(long), told)?;
    let times = (count - long) as f64 / (long - short) as f64;
    let growth = scenario.batch.samples() as f64 / scenario.batch.with_micro_batches(long).samples() as f64;
    Ok(extended(&first, second, times, growth))
}

/// Micro-batches after which a filled pipeline does the same again; None where no number tells the rest.
fn period(plan: &Plan, training: bool, count: u64) -> Option<u64> {
    if !training {
        return Some(2);
    }
    if plan.written.is_some() {
        return None;
    }
    match plan.schedule {
        // It holds every micro-batch, so that its memory grows with them.
        ScheduleKind::GPipe => None,
        // Found for the very number, these repeat only far from both ends.
        ScheduleKind::ZeroBubbleOne | ScheduleKind::ZeroBubbleTwo if count <= 512 => None,
        // Interleaved 1F1B takes micro-batches in groups.
        ScheduleKind::OneForwardOneBackward if plan.virtual_pipeline > 1 => {
            Some(plan.micro_batch_group.map_or(plan.pipeline, u64::from))
        }
        _ => Some(2),
    }
}

/// `second`, further along the line from `first` through it by `times` their distance; the work grows `growth` times.
fn extended(first: &Report, second: Report, times: f64, growth: f64) -> Report {
    let along = |a: f64, b: f64| b + (b - a) * times;
    let (Some(a), Some(b)) = (first.step_time_s, second.step_time_s) else { return second };
    let step = along(a, b);
    // Rates grow with the work and shrink with the time.
    let faster = growth * b / step;
    Report {
        step_time_s: Some(step),
        time_breakdown_s: second.time_breakdown_s.with(&first.time_breakdown_s, |b, a| along(a, b)),
        flops_per_step: second.flops_per_step * growth,
        ..second.with_rates(faster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::NoFiles;
    use crate::run::run;

    #[test]
    fn a_step_played_in_part_is_the_step_played_in_full() {
        let cases = [
            ("gpt2", "data = 8", 64),
            ("gpt2", "tensor = 2\npipeline = 4", 96),
            ("gpt2", "pipeline = 4\nvirtual_pipeline = 3\ndata = 2", 64),
            ("gpt2", "pipeline = 4\nschedule = \"zb-h1\"\ndata = 2", 64),
            ("gpt2", "pipeline = 4\nschedule = \"zb-v\"\ndata = 2", 64),
            ("gpt2", "pipeline = 4\nschedule = \"v-half\"\ndata = 2", 64),
            ("gpt2", "pipeline = 4\nvirtual_pipeline = 3\nmicro_batch_group = 5\ndata = 2", 64),
            ("llama3.2-1b", "data = 8\nzero_stage = 3", 40),
            ("llama3.2-1b", "pipeline = 2\ndata = 4\nzero_stage = 2", 40),
        ];
        for (model, plan, micro_batches) in cases {
            let text = format!(
                "[model]\nname = \"{model}\"\nsequence_length = 1024\n[cluster]\nname = \"dgx-h100\"\n[workload]\n\
                 micro_batch_size = 1\ngradient_accumulation_steps = {micro_batches}\nprecision = \"bf16\"\n\
                 [parallelism]\n{plan}\n"
            );
            let scenario = Scenario::read("case", &text, &[], &NoFiles).unwrap();
            let (full, part) = (run(&scenario, false).unwrap().report, estimate(&scenario).unwrap());
            let near = |a: f64, b: f64, what: &str| {
                assert!((a - b).abs() <= 1e-3 * b.abs() + 1e-9, "{model} {plan} {what}: {a} against {b}");
            };
            let step = full.step_time_s.unwrap();
            near(part.step_time_s.unwrap(), step, "step");
            near(part.tokens_per_s.unwrap(), full.tokens_per_s.unwrap(), "tokens");
            near(part.model_flops_utilization.unwrap(), full.model_flops_utilization.unwrap(), "MFU");
            near(part.flops_per_step, full.flops_per_step, "FLOPs");
            for ((name, a), (_, b)) in
                part.time_breakdown_s.entries().into_iter().zip(full.time_breakdown_s.entries())
            {
                assert!((a - b).abs() <= 2e-3 * step, "{model} {plan} {name}: {a} against {b}");
            }
            assert_eq!(part.peak_memory.allocated_bytes, full.peak_memory.allocated_bytes, "{model} {plan}");
        }
    }
}

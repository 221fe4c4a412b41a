//! `steptime plot schedule`.

use std::path::Path;

use steptime_plots::pipeline_gantt;
use steptime_scenarios::{
    ScheduleReport, ScheduleRequest, ScheduleTimes, schedule_study, written_schedule_study,
};

use super::render;
use crate::cli::ScheduleArguments;
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{right_align, seconds, significant, table, trimmed};

/// Longest pass and transfer, milliseconds.
const LONGEST_MS: f64 = 1000.0;

/// Lays a schedule out, prints what its stages do and draws it where asked.
pub(crate) fn schedule(arguments: &ScheduleArguments) -> Result<Answer, Failure> {
    let times = ScheduleTimes {
        forward_s: seconds_of("--forward", arguments.forward)?,
        input_s: seconds_of("--backward-input", arguments.backward_input)?,
        weight_s: seconds_of("--backward-weight", arguments.backward_weight)?,
        transfer_s: seconds_of("--transfer", arguments.transfer)?,
        pair_s: arguments.pair.map(|pair| seconds_of("--pair", pair)).transpose()?,
    };
    let name = arguments.schedule.as_str();
    let (report, timeline) = if Path::new(name).is_file() {
        refuse_sizes(arguments)?;
        let text = output::read(Path::new(name))?;
        written_schedule_study(name, &text, &times)
    } else {
        let stages = arguments.pipeline.unwrap_or(4);
        let request = ScheduleRequest {
            name,
            stages: stages as usize,
            chunks: arguments.virtual_pipeline,
            micro_batches: arguments.micro_batches.unwrap_or(2 * stages),
            times,
        };
        schedule_study(&request)
    }
    .map_err(|message| Failure::Message(format!("{name}: {message}")))?;
    let outputs = match &arguments.out {
        None => Vec::new(),
        Some(folder) => {
            let figure = pipeline_gantt(&timeline, arguments.style.width)?;
            render(folder, &[figure], &arguments.style.figures)?
        }
    };
    output::write_all(&outputs)?;
    let text = if arguments.json { output::json(&report)? } else { text(&report) };
    output::print(&trimmed(&text))?;
    Ok(Answer::Yes)
}

fn seconds_of(option: &str, milliseconds: f64) -> Result<f64, Failure> {
    if (0.0..=LONGEST_MS).contains(&milliseconds) {
        return Ok(milliseconds / 1e3);
    }
    Err(Failure::Message(format!(
        "{option}: found {milliseconds}, allowed: milliseconds from 0 to {LONGEST_MS}"
    )))
}

/// A written schedule has its own sizes.
fn refuse_sizes(arguments: &ScheduleArguments) -> Result<(), Failure> {
    let given = [
        ("--pipeline", arguments.pipeline),
        ("--virtual-pipeline", arguments.virtual_pipeline),
        ("--micro-batches", arguments.micro_batches),
    ];
    match given.into_iter().find(|(_, value)| value.is_some()) {
        Some((option, _)) => {
            let message = format!("{option}: {} says so itself; leave this option out", arguments.schedule);
            Err(Failure::Message(message))
        }
        None => Ok(()),
    }
}

fn text(report: &ScheduleReport) -> String {
    let mut stages = table(&["stage", "busy", "idle", "in flight"]);
    for stage in &report.stages {
        stages.add_row([
            stage.stage.to_string(),
            seconds(stage.busy_s),
            seconds(stage.idle_s),
            significant(stage.in_flight_micro_batches),
        ]);
    }
    right_align(&mut stages, 0);
    let chunks = if report.virtual_pipeline > 1 {
        format!(" of {} chunks", report.virtual_pipeline)
    } else {
        String::new()
    };
    format!(
        "{}: {} stages{chunks}, {} micro-batches\n\n  step time      {}\n  without waits  {}\n  \
         bubble         {:.1} % of the stages' time\n  transfers      {} exposed\n\n{stages}\n",
        report.name,
        report.pipeline,
        report.micro_batches,
        seconds(report.step_time_s),
        seconds(report.ideal_time_s),
        100.0 * report.bubble_fraction,
        seconds(report.exposed_communication_s),
    )
}

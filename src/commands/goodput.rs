//! `steptime goodput`.

use std::fmt::Write;

use steptime_scenarios::{GoodputReport, Share, Verdict, goodput as play, run as step};

use super::run;
use crate::cli::GoodputArguments;
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{bytes, seconds, significant, trimmed, verdict_line};

/// Plays the step, then long runs of it. The answer is no where the step does not fit.
pub(crate) fn goodput(arguments: &GoodputArguments) -> Result<Answer, Failure> {
    let scenario = run::read(&arguments.scenario, &arguments.set)?;
    let report = step(&scenario, false)?.report;
    if report.verdict == Verdict::OutOfMemory {
        let line = verdict_line(&report) + "\n";
        if arguments.json {
            output::print(&output::json(&report)?)?;
        } else {
            output::print(&line)?;
        }
        return Ok(Answer::No);
    }
    let found = play(&scenario, &report)?;
    let text = if arguments.json { output::json(&found)? } else { trimmed(&text(&found)) };
    output::print(&text)?;
    Ok(Answer::Yes)
}

fn text(found: &GoodputReport) -> String {
    let mut text = format!("{}\n\n", found.name);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<14} {value}");
    };
    line("step time", seconds(found.step_time_s));
    line("machines", format!("{} GPUs in {} nodes", found.gpus, found.nodes));
    let mean = found.mean_time_between_failures_s;
    line(
        "failures",
        format!("every {} on average, {} a day", time(mean), significant(found.failures_per_day)),
    );
    line(
        "checkpoints",
        format!(
            "every {} of work ({}), {}, hold up for {}, can be read after {}",
            time(found.interval_s),
            found.interval_rule,
            bytes(found.checkpoint_bytes as u64),
            seconds(found.checkpoint_blocks_s),
            seconds(found.checkpoint_write_s)
        ),
    );
    let percent = |value: f64| format!("{:.2} %", 100.0 * value);
    let [low, high] = found.goodput.confidence;
    line(
        "goodput",
        format!(
            "{} ({} to {} with 95 % confidence; {} to {} in 8 of 10 runs)",
            percent(found.goodput.mean),
            percent(low),
            percent(high),
            percent(found.goodput.p10),
            percent(found.goodput.p90)
        ),
    );
    line("closed form", percent(found.closed_form_goodput));
    for (name, share) in [
        ("  lost work", found.lost),
        ("  checkpoints", found.checkpoints),
        ("  restarts", found.restarts),
        ("  no nodes", found.waiting),
        ("  maintenance", found.maintenance),
    ] {
        line(name, percent(share));
    }
    match (&found.to_finish, found.days) {
        (Some(finish), _) => {
            line("to the end", format!("{} steps", significant(finish.steps)));
            line("  days", range(&finish.days));
            if let Some(money) = &finish.money {
                line("  money", range(money));
            }
            if let Some(energy) = &finish.energy_kwh {
                line("  kWh", range(energy));
            }
        }
        (None, Some(days)) => line("runs", format!("{} of {} days", found.repetitions, significant(days))),
        (None, None) => {}
    }
    text
}

/// A mean and eight runs of ten.
fn range(share: &Share) -> String {
    format!(
        "{} ({} to {} in 8 of 10 runs)",
        significant(share.mean),
        significant(share.p10),
        significant(share.p90)
    )
}

/// Seconds, minutes, hours or days.
fn time(value: f64) -> String {
    match value {
        v if v >= 172_800.0 => format!("{} days", significant(v / 86_400.0)),
        v if v >= 7200.0 => format!("{} h", significant(v / 3600.0)),
        v if v >= 120.0 => format!("{} min", significant(v / 60.0)),
        v => seconds(v),
    }
}

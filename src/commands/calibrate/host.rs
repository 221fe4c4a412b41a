//! `steptime calibrate host`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use steptime_clusters::ExecutionStyle;
use steptime_clusters::calibrate_host::{HostFit, HostTimes, Intervals, Trace, from_trace};
use steptime_scenarios::{MeasuredStep, StepsFit, calibrate_host};

use super::{Shown, framework, in_file, percent, show};
use crate::cli::{CalibrateHost, TracedExecution};
use crate::commands::run;
use crate::failure::{Answer, Failure};
use crate::present::{right_align, seconds, table};

/// First bytes of a file that gzip has written.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Fits the cost of issuing an operation.
pub(super) fn calibrate(arguments: &CalibrateHost) -> Result<Answer, Failure> {
    if !arguments.rows.is_empty() {
        return framework::calibrate(arguments);
    }
    let shown = match &arguments.trace {
        Some(path) => traced(path, arguments.execution)?,
        None => stepped(&measured(arguments)?)?,
    };
    show(shown, &arguments.to)
}

fn traced(path: &Path, execution: TracedExecution) -> Result<Shown, Failure> {
    let style = match execution {
        TracedExecution::Eager => ExecutionStyle::Eager,
        TracedExecution::Compiled => ExecutionStyle::Compiled,
    };
    let mut start = [0; 2];
    let mut file = File::open(path).map_err(|error| in_file(path, error))?;
    let read = file.read(&mut start).map_err(|error| in_file(path, error))?;
    // Begins anew, so that pipes can be read too.
    let whole = std::io::Cursor::new(start.get(..read).unwrap_or_default().to_vec()).chain(file);
    let trace = if start == GZIP {
        Trace::read(BufReader::new(MultiGzDecoder::new(BufReader::new(whole))))
    } else {
        Trace::read(BufReader::new(whole))
    };
    let (times, fit) =
        trace.and_then(|trace| from_trace(&trace, style)).map_err(|error| in_file(path, error))?;
    Ok(Shown {
        errors: intervals(&times, style),
        notes: String::new(),
        toml: fit.to_calibration(),
        document: json!({
            "kind": "host",
            "launches": times.launches,
            "idle_launches": times.idle,
            "forward": interval_document(times.forward),
            "backward": interval_document(times.backward),
            "launch_latency": interval_document(times.launch_latency),
            "sync_latency": interval_document(times.sync_latency),
            "constants": constants(&fit),
        }),
    })
}

fn intervals(times: &HostTimes, style: ExecutionStyle) -> String {
    let mut list = table(&["time", "intervals", "mean", "median", "10 %", "90 %", "left out"]);
    list.set_width(110);
    let forward =
        if style == ExecutionStyle::Eager { "between launches, forward" } else { "between launches" };
    for (what, found) in [
        (forward, times.forward),
        ("between launches, backward", times.backward),
        ("from launch to kernel", times.launch_latency),
        ("from device to host", times.sync_latency),
    ] {
        let Some(Intervals { count, outliers, mean_s, median_s, p10_s, p90_s }) = found else { continue };
        list.add_row([
            what.to_owned(),
            count.to_string(),
            seconds(mean_s),
            seconds(median_s),
            seconds(p10_s),
            seconds(p90_s),
            outliers.to_string(),
        ]);
    }
    right_align(&mut list, 1);
    format!("{} launches, {} found the device idle\n{list}\n", times.launches, times.idle)
}

fn interval_document(found: Option<Intervals>) -> Value {
    found.map_or(Value::Null, |Intervals { count, outliers, mean_s, median_s, p10_s, p90_s }| {
        json!({ "count": count, "left_out": outliers, "mean_s": mean_s, "median_s": median_s, "p10_s": p10_s, "p90_s": p90_s })
    })
}

fn constants(fit: &HostFit) -> Value {
    let values = fit.constants.iter().map(|constant| (constant.key.to_owned(), json!(constant.seconds)));
    Value::Object(values.collect())
}

/// The steps of the options and of the table.
fn measured(arguments: &CalibrateHost) -> Result<Vec<MeasuredStep>, Failure> {
    let mut steps = Vec::new();
    for option in &arguments.step {
        let (path, time) = option.rsplit_once('=').ok_or_else(|| {
            Failure::Message(format!(
                "--step: found `{option}`, expected a scenario and seconds, e.g. job.toml=0.12"
            ))
        })?;
        let seconds = positive(time).ok_or_else(|| {
            Failure::Message(format!("--step: found `{time}` in `{option}`, expected seconds above 0"))
        })?;
        steps.push(MeasuredStep { scenario: run::read(Path::new(path), &[])?, seconds });
    }
    if let Some(path) = &arguments.steps {
        steps.extend(table_of_steps(path)?);
    }
    if steps.is_empty() {
        return Err(Failure::Message(
            "give a trace (--trace), measured steps (--step, --steps) or rows (--rows)".to_owned(),
        ));
    }
    Ok(steps)
}

fn positive(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|seconds: &f64| *seconds > 0.0 && seconds.is_finite())
}

/// Rows of a table; scenarios are named relative to it.
fn table_of_steps(path: &Path) -> Result<Vec<MeasuredStep>, Failure> {
    let wrong = |message: String| in_file(path, message);
    let mut reader = csv::Reader::from_path(path).map_err(|error| wrong(error.to_string()))?;
    let headers = reader.headers().map_err(|error| wrong(error.to_string()))?.clone();
    let column = |name: &str| {
        let place = headers.iter().position(|header| header == name);
        place.ok_or_else(|| {
            wrong(format!(
                "line 1: the column `{name}` is missing; a table of steps has scenario, step_time_s"
            ))
        })
    };
    let (scenario, time) = (column("scenario")?, column("step_time_s")?);
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    let mut steps = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let found = record.get(time).unwrap_or_default();
        let seconds = positive(found).ok_or_else(|| {
            wrong(format!("line {line}: column `step_time_s` holds \"{found}\", expected seconds above 0"))
        })?;
        let scenario = run::read(&folder.join(record.get(scenario).unwrap_or_default()), &[])?;
        steps.push(MeasuredStep { scenario, seconds });
    }
    Ok(steps)
}

fn stepped(steps: &[MeasuredStep]) -> Result<Shown, Failure> {
    let fit = calibrate_host(steps).map_err(|error| Failure::Message(error.to_string()))?;
    let rows: Vec<Value> = fit
        .steps
        .iter()
        .map(|step| {
            json!({
                "name": step.name,
                "measured_s": step.measured_s,
                "before_s": step.before_s,
                "after_s": step.after_s,
                "factor": step.factor,
            })
        })
        .collect();
    Ok(Shown {
        errors: step_errors(&fit),
        notes: String::new(),
        document: json!({ "kind": "host", "factor": fit.factor, "steps": rows, "constants": constants(&fit.host) }),
        toml: fit.host.to_calibration(),
    })
}

fn step_errors(fit: &StepsFit) -> String {
    let mut list = table(&["scenario", "measured", "before", "error", "after", "error", "factor alone"]);
    list.set_width(110);
    for step in &fit.steps {
        let error = |predicted: f64| {
            let error = predicted / step.measured_s - 1.0;
            if error < 0.0 { percent(error) } else { format!("+{}", percent(error)) }
        };
        list.add_row([
            step.name.clone(),
            seconds(step.measured_s),
            seconds(step.before_s),
            error(step.before_s),
            seconds(step.after_s),
            error(step.after_s),
            format!("{:.3}", step.factor),
        ]);
    }
    right_align(&mut list, 1);
    format!("a launch costs {:.3} times as much as the catalogue says\n{list}\n", fit.factor)
}

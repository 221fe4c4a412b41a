//! `steptime sensitivity` and `steptime diff`.

use std::fmt::Write;

use steptime_scenarios::{Difference, Pair, Sensitivity, difference, run as play, sensitivity as vary};

use super::run;
use crate::cli::{DiffArguments, SensitivityArguments};
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{bytes, right_align, seconds, table, trimmed, whole_names};

/// Columns of half of a tornado's bars.
const HALF: usize = 8;

/// Plays a scenario on hardware that is better and worse.
pub(crate) fn sensitivity(arguments: &SensitivityArguments) -> Result<Answer, Failure> {
    let scenario = run::read(&arguments.scenario, &arguments.set)?;
    let share = arguments.percent / 100.0;
    if !(share > 0.0 && share <= 10.0) {
        return Err(Failure::Message(format!(
            "--percent: found {}, allowed: above 0 and up to 1000",
            arguments.percent
        )));
    }
    let found = vary(&scenario, share)?;
    let text = if arguments.json { output::json(&found)? } else { trimmed(&tornado(&found)) };
    output::print(&text)?;
    Ok(Answer::Yes)
}

fn tornado(found: &Sensitivity) -> String {
    let mut text = format!("{}\n\n  step time      {}\n\n", found.name, seconds(found.step_time_s));
    let percent = 100.0 * found.share;
    let mut grid =
        table(&["", &format!("{percent:.0} % better"), &format!("{percent:.0} % worse"), "shorter | longer"]);
    let base = found.step_time_s;
    let widest = found
        .effects
        .iter()
        .map(|effect| (effect.worse_s - base).max(base - effect.better_s))
        .fold(0.0, f64::max);
    for effect in &found.effects {
        let columns = |seconds: f64| {
            if widest > 0.0 { (seconds.max(0.0) / widest * HALF as f64).round() as usize } else { 0 }
        };
        let (left, right) = (columns(base - effect.better_s), columns(effect.worse_s - base));
        let change = |step: f64| format!("{:+.2} %", 100.0 * (step / base - 1.0));
        let bar = format!("{:>HALF$}|{}", "#".repeat(left), "#".repeat(right));
        grid.add_row([effect.what.clone(), change(effect.better_s), change(effect.worse_s), bar]);
    }
    right_align(&mut grid, 1);
    if let Some(bars) = grid.column_mut(3) {
        bars.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    whole_names(&mut grid);
    let _ = writeln!(text, "{grid}");
    text
}

/// Compares two scenarios part by part.
pub(crate) fn diff(arguments: &DiffArguments) -> Result<Answer, Failure> {
    let first = run::read(&arguments.first, &arguments.set)?;
    let second = run::read(&arguments.second, &[arguments.set.as_slice(), &arguments.set_second].concat())?;
    let (first, second) = (play(&first, false)?.report, play(&second, false)?.report);
    let found = difference(&first, &second);
    let text = if arguments.json { output::json(&found)? } else { trimmed(&parts(&found)) };
    output::print(&text)?;
    Ok(Answer::Yes)
}

fn parts(found: &Difference) -> String {
    let [first, second] = &found.names;
    let mut text = format!("first   {first}\nsecond  {second}\n");
    let mut show =
        |title: &str, total: Option<(&str, &Pair)>, pairs: &[(&String, &Pair)], word: fn(f64) -> String| {
            let mut grid = table(&[title, "first", "second", "difference"]);
            let mut rows: Vec<(&str, &Pair)> =
                pairs.iter().map(|(name, pair)| (name.as_str(), *pair)).collect();
            rows.sort_by(|a, b| b.1.difference.abs().total_cmp(&a.1.difference.abs()));
            for (name, pair) in total.into_iter().chain(rows) {
                if pair.first > 0.0 || pair.second > 0.0 {
                    let sign = if pair.difference < 0.0 { "-" } else { "+" };
                    let change = format!("{sign}{}", word(pair.difference.abs()));
                    grid.add_row([name.replace('_', " "), word(pair.first), word(pair.second), change]);
                }
            }
            right_align(&mut grid, 1);
            whole_names(&mut grid);
            let _ = writeln!(text, "\n{grid}");
        };
    let times: Vec<(&String, &Pair)> = found.time_s.iter().collect();
    show("time", found.step_time_s.as_ref().map(|pair| ("step", pair)), &times, seconds);
    let memory: Vec<(&String, &Pair)> = found.memory_bytes.iter().collect();
    show("memory", Some(("peak", &found.peak_device_bytes)), &memory, |value| bytes(value as u64));
    text
}

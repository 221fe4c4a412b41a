//! `steptime search`.

use std::fmt::Write;

use steptime_scenarios::{FoundPlan, SearchReport, search as find};

use super::{run, sweep};
use crate::cli::SearchArguments;
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};
use crate::present::{bytes, right_align, seconds, significant, table, trimmed};

/// Finds the best plan. The answer is no where none fits.
pub(crate) fn search(arguments: &SearchArguments) -> Result<Answer, Failure> {
    let (draft, files) = run::draft(&arguments.scenario, &arguments.set)?;
    let pool = sweep::pool(arguments.jobs)?;
    let found = pool.install(|| find(&draft, &files, arguments.plays))?;
    if let Some(file) = &arguments.report {
        let html = steptime_plots::search_page(&found)?;
        output::write_all(&[Output::new(file.clone(), html)])?;
    }
    let text = if arguments.json {
        output::json(&found)?
    } else if arguments.quiet {
        format!("{}\n", answer(&found))
    } else {
        trimmed(&text(&found))
    };
    output::print(&text)?;
    Ok(if found.best.is_some() { Answer::Yes } else { Answer::No })
}

fn answer(found: &SearchReport) -> String {
    match &found.best {
        None => format!("{}: no plan fits", found.name),
        Some(best) => format!("{}: {} a step with {}", found.name, seconds(best.step_time_s), words(best)),
    }
}

/// The plan by its sizes, without those that are 1.
fn words(plan: &FoundPlan) -> String {
    let trivial = |key: &str| {
        let one = key.ends_with("=1") && !key.contains("zero_stage") && !key.contains("micro_batch_size");
        one || key.ends_with("=false") || key.ends_with("=none")
    };
    let shown = plan.set.iter().filter(|key| !trivial(key));
    let short = shown.filter_map(|key| key.split_once('.').map(|(_, key)| key.replace('=', " ")));
    let kept = short.filter(|key| !key.starts_with("global_batch_size") && !key.starts_with("nodes"));
    kept.collect::<Vec<_>>().join(", ")
}

fn text(found: &SearchReport) -> String {
    let counts = &found.counts;
    let mut text = format!("{}\n\n", found.name);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<14} {value}");
    };
    line("objective", found.objective.replace('_', " "));
    line(
        "plans",
        format!(
            "{}: {} whose states do not fit, {} whose bound is no better than the best, {} refused",
            counts.plans, counts.states_do_not_fit, counts.bound_is_worse, counts.refused
        ),
    );
    line("played", format!("{}, of which {} ran out of memory", counts.played, counts.out_of_memory));
    if counts.left > 0 {
        line("left", format!("{} when the number of plays was used up", counts.left));
    }
    if let Some(best) = &found.best {
        line("best", words(best));
        let interval = best.step_time_interval_s.map_or_else(String::new, |[low, high]| {
            format!("  (80 % interval {} to {})", seconds(low), seconds(high))
        });
        line("  step time", format!("{}{interval}", seconds(best.step_time_s)));
        line("  memory", bytes(best.peak_device_bytes));
        if let Some(cost) = &best.cost {
            line("  cost", format!("{} {} a step", significant(cost.per_step), cost.currency));
        }
    }
    if let (Some(bound), Some(gap)) = (found.bound, found.gap) {
        line(
            "bound",
            format!("no plan of this space scores below {}: gap {:.2} %", significant(bound), 100.0 * gap),
        );
    }
    plans(&mut text, "best in time, memory, money and energy at once (Pareto)", &found.pareto);
    plans(&mut text, "next best", &found.runners_up);
    let _ = writeln!(text, "\n{}", answer(found));
    if let Some(best) = &found.best {
        let options: Vec<String> = best.set.iter().map(|key| format!("--set {key}")).collect();
        let _ = writeln!(text, "\n  {}", options.join(" "));
    }
    text
}

fn plans(text: &mut String, title: &str, plans: &[FoundPlan]) {
    if plans.is_empty() {
        return;
    }
    let mut grid = table(&["step", "memory", "plan", "why not"]);
    for plan in plans {
        grid.add_row([
            seconds(plan.step_time_s),
            bytes(plan.peak_device_bytes),
            words(plan),
            plan.why.clone(),
        ]);
    }
    right_align(&mut grid, 0);
    for column in grid.column_iter_mut().skip(2) {
        column.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    let _ = writeln!(text, "\n{title}\n{grid}");
}

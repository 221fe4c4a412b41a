//! `steptime search`.

use std::fmt::Write;

use steptime_scenarios::{CostReport, FoundPlan, SearchReport, search as find};

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
        Some(best) => format!("{}: {} a step with {}", found.name, seconds(best.step_time_s), best.words()),
    }
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
            "{}: {} whose states do not fit, {} with what forward keeps, {} whose bound is no better than the best, {} refused",
            counts.plans,
            counts.states_do_not_fit,
            counts.activations_do_not_fit,
            counts.bound_is_worse,
            counts.refused
        ),
    );
    line("played", format!("{}, of which {} ran out of memory", counts.played, counts.out_of_memory));
    if counts.left > 0 {
        line("left", format!("{} when the number of plays was used up", counts.left));
    }
    if let Some(best) = &found.best {
        line("best", best.words());
        let interval = best.step_time_interval_s.map_or_else(String::new, |[low, high]| {
            format!("  (80 % interval {} to {})", seconds(low), seconds(high))
        });
        line("  step time", format!("{}{interval}", seconds(best.step_time_s)));
        line("  memory", bytes(best.peak_device_bytes));
        if let Some(cost) = &best.cost {
            line("  cost", money(cost));
            if let Some(tokens) = cost.tokens_per_joule {
                line("  energy", format!("{} tokens a joule", significant(tokens)));
            }
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

/// What a step and what tokens cost.
fn money(cost: &CostReport) -> String {
    let step = format!("{} {} a step", significant(cost.per_step), cost.currency);
    match cost.per_million_tokens {
        Some(tokens) => format!("{step}, {} a million tokens", significant(tokens)),
        None => step,
    }
}

/// Joules of a step.
fn energy(plan: &FoundPlan) -> Option<f64> {
    plan.cost.as_ref().and_then(|cost| cost.energy_per_step_j)
}

fn plans(text: &mut String, title: &str, plans: &[FoundPlan]) {
    if plans.is_empty() {
        return;
    }
    let priced = plans.iter().any(|plan| plan.cost.is_some());
    let powered = plans.iter().any(|plan| energy(plan).is_some());
    let mut columns = vec!["step", "memory"];
    columns.extend(priced.then_some("money a step"));
    columns.extend(powered.then_some("energy a step"));
    let numbers = columns.len();
    columns.push("plan");
    // Plans of the Pareto set are all best in something.
    let told = plans.iter().any(|plan| !plan.why.is_empty());
    columns.extend(told.then_some("why not"));
    let mut grid = table(&columns);
    for plan in plans {
        let mut cells = vec![seconds(plan.step_time_s), bytes(plan.peak_device_bytes)];
        let money = plan.cost.as_ref().map(|cost| significant(cost.per_step));
        cells.extend(priced.then(|| money.unwrap_or_default()));
        let joules = energy(plan).map(|joules| format!("{} J", significant(joules)));
        cells.extend(powered.then(|| joules.unwrap_or_default()));
        cells.push(plan.words());
        cells.extend(told.then(|| plan.why.clone()));
        grid.add_row(cells);
    }
    right_align(&mut grid, 0);
    for column in grid.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    let _ = writeln!(text, "\n{title}\n{grid}");
}

//! `steptime calibrate operations`.

use serde_json::{Value, json};
use steptime_clusters::calibrate::{Errors, HandedOn, OperationScore, Operations};

use super::{SCHEMA, bytes, in_file, percent};
use crate::cli::CalibrateOperations;
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{right_align, seconds, table, trimmed};

/// Scores the catalogue's prices on measured operations of models.
pub(super) fn calibrate(arguments: &CalibrateOperations) -> Result<Answer, Failure> {
    let mut operations = Operations::default();
    for path in &arguments.data {
        operations.read(&bytes(path)?).map_err(|error| in_file(path, error))?;
    }
    let scores = operations.score().map_err(|error| Failure::Message(error.to_string()))?;
    let handed_on = operations.handed_on();
    if arguments.json {
        let scores: Vec<Value> = scores.iter().map(document).collect();
        let hosts: Vec<Value> = handed_on.iter().map(host_document).collect();
        let document = json!({ "schema": SCHEMA, "kind": "operations", "scores": scores, "hosts": hosts });
        output::print(&output::json(&document)?)?;
    } else {
        output::print(&trimmed(&(text(&scores) + &hosts(&handed_on))))?;
    }
    Ok(Answer::Yes)
}

fn text(scores: &[OperationScore]) -> String {
    let mut list = table(&["pass", "kind", "rows", "left out", "median", "mean", "90 %", "bias"]);
    for OperationScore { kind, pass, errors, left_out } in scores {
        let Errors { rows, median, mean, p90, bias, .. } = *errors;
        let error = |value: f64| if rows > 0 { percent(value) } else { "-".to_owned() };
        list.add_row([
            if *kind == "all" { pass.name() } else { "" }.to_owned(),
            (*kind).to_owned(),
            rows.to_string(),
            left_out.to_string(),
            error(median),
            error(mean),
            error(p90),
            if rows > 0 { format!("{:+.1} %", 100.0 * bias) } else { "-".to_owned() },
        ]);
    }
    right_align(&mut list, 2);
    format!("{list}\n")
}

/// What hosts take where backward launches nothing; empty where no such operation was timed.
fn hosts(handed_on: &[HandedOn]) -> String {
    if handed_on.is_empty() {
        return String::new();
    }
    let mut list = table(&["host of", "operations that launch nothing", "shortest", "median"]);
    for HandedOn { gpu, operations, shortest_s, median_s } in handed_on {
        list.add_row([gpu.clone(), operations.to_string(), seconds(*shortest_s), seconds(*median_s)]);
    }
    right_align(&mut list, 1);
    format!("\n{list}\n")
}

fn host_document(host: &HandedOn) -> Value {
    let HandedOn { gpu, operations, shortest_s, median_s } = host;
    json!({ "gpu": gpu, "operations": operations, "shortest_s": shortest_s, "median_s": median_s })
}

fn document(score: &OperationScore) -> Value {
    let Errors { rows, median, mean, p80, p90, bias } = score.errors;
    json!({
        "kind": score.kind,
        "pass": score.pass.name(),
        "rows": rows,
        "left_out": score.left_out,
        "median": median,
        "mean": mean,
        "p80": p80,
        "p90": p90,
        "bias": bias,
    })
}

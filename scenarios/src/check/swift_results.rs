//! What the SWIFT planner writes: `swift_results.json`, `pipelines_*.csv`, or a path with its assignment.

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::Claim;
use crate::error::InputError;
use crate::origin::Origin;

/// A path and what its vehicles hold, by names.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedPath {
    /// What the source calls it.
    pub name: String,
    /// Vehicles in order.
    pub path: Vec<String>,
    /// Partitions of each vehicle.
    pub assignment: IndexMap<String, Vec<String>>,
    /// Its author's time.
    pub claim: Claim,
    /// Whether it is the one that the planner proposes.
    pub proposed: bool,
}

fn syntax(file: &str, line: usize, message: impl Into<String>) -> InputError {
    InputError::Syntax { origin: Origin::at(file, line, 1), message: message.into() }
}

/// The plans of a file; exactly one of them is proposed.
///
/// # Errors
/// The text is none of the planner's forms, or a plan in it has no path or no assignment.
pub fn swift_results(file: &str, text: &str) -> Result<Vec<NamedPath>, InputError> {
    if text.trim_start().starts_with('{') {
        return from_json(file, text);
    }
    from_csv(file, text)
}

fn from_json(file: &str, text: &str) -> Result<Vec<NamedPath>, InputError> {
    let document: Json = serde_json::from_str(text)
        .map_err(|error| syntax(file, error.line(), format!("not JSON: {error}")))?;
    let mut plans = Vec::new();
    if let Some(best) = document.get("best_pipeline") {
        plans.push(plan(file, "best pipeline", best, true)?);
    }
    let others = document.get("pipelines").map(|node| node.get("data").unwrap_or(node));
    if let Some(others) = others {
        let list = others.as_array().ok_or_else(|| syntax(file, 1, "pipelines: found no list of plans"))?;
        for (index, other) in list.iter().enumerate() {
            plans.push(plan(file, &format!("pipeline {}", index + 1), other, false)?);
        }
    }
    if plans.is_empty() {
        plans.push(plan(file, "plan", &document, true)?);
    }
    propose(plans, file)
}

/// Where nothing is called best, the plan with the least claimed time is.
fn propose(mut plans: Vec<NamedPath>, file: &str) -> Result<Vec<NamedPath>, InputError> {
    if !plans.iter().any(|plan| plan.proposed) {
        let time = |plan: &NamedPath| plan.claim.step_time_s.unwrap_or(f64::INFINITY);
        let mut least = 0;
        for index in 1..plans.len() {
            if time(&plans[index]) < time(&plans[least]) {
                least = index;
            }
        }
        match plans.get_mut(least) {
            Some(plan) => plan.proposed = true,
            None => return Err(syntax(file, 1, "has no plans")),
        }
    }
    Ok(plans)
}

fn plan(file: &str, name: &str, node: &Json, proposed: bool) -> Result<NamedPath, InputError> {
    let names = |node: &Json| -> Option<Vec<String>> {
        node.as_array()?.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
    };
    let missing =
        |key: &str, what: &str| syntax(file, 1, format!("{name}: {key}: found none, allowed: {what}"));
    let path = node.get("path").and_then(names).ok_or_else(|| missing("path", "a list of vehicles"))?;
    let strategy =
        ["strategy", "assignment", "partition_strategy"].iter().find_map(|key| node.get(key)?.as_object());
    let strategy =
        strategy.ok_or_else(|| missing("strategy", "a table from vehicles to lists of partitions"))?;
    let mut assignment = IndexMap::new();
    for (vehicle, held) in strategy {
        let held =
            names(held).ok_or_else(|| missing(&format!("strategy.{vehicle}"), "a list of partitions"))?;
        assignment.insert(vehicle.clone(), held);
    }
    let time = ["execution_time", "time_s", "step_time_s"].iter().find_map(|key| node.get(key)?.as_f64());
    let claim = Claim { step_time_s: time, peak_memory_bytes: None };
    Ok(NamedPath { name: name.to_owned(), path, assignment, claim, proposed })
}

/// `Pipeline,Path,Execution_Time,Partition_Strategy`: the path's own commas are not quoted, so that a line is read from both
/// ends: the number before the first comma, the strategy from the first `vehicle:[` on, the time before it.
fn from_csv(file: &str, text: &str) -> Result<Vec<NamedPath>, InputError> {
    let mut lines = text.lines().enumerate();
    let header = lines.next().map(|(_, line)| line.trim());
    if header != Some("Pipeline,Path,Execution_Time,Partition_Strategy") {
        let message = "found neither JSON nor the header Pipeline,Path,Execution_Time,Partition_Strategy";
        return Err(syntax(file, 1, message));
    }
    let mut plans = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let line = line.trim();
        let parsed = csv_line(line).ok_or_else(|| {
            syntax(file, index + 1, "found no Pipeline,Path,Execution_Time,Partition_Strategy such as 1,v1,v2,910.5,v1:[A,B];v2:[]")
        })?;
        plans.push(parsed);
    }
    if plans.is_empty() {
        return Err(syntax(file, 1, "has no plans"));
    }
    propose(plans, file)
}

fn csv_line(line: &str) -> Option<NamedPath> {
    let (number, rest) = line.split_once(',')?;
    let opening = rest.find(":[")?;
    let start = rest[..opening].rfind(',')? + 1;
    let (front, strategy) = (rest[..start - 1].trim_end_matches('"'), rest[start..].trim_matches('"'));
    let (path, time) = front.rsplit_once(',')?;
    let time: f64 = time.trim().parse().ok()?;
    let clean =
        |text: &str| text.trim_matches(|c: char| c.is_whitespace() || "[]'\"()".contains(c)).to_owned();
    let separators = |c: char| matches!(c, ',' | '>' | ';' | '→');
    let path = path.replace("->", ">");
    let path: Vec<String> = path.split(separators).map(clean).filter(|id| !id.is_empty()).collect();
    let mut assignment = IndexMap::new();
    for part in strategy.split(';').filter(|part| !part.trim().is_empty()) {
        let (vehicle, held) = part.split_once(':')?;
        let held = held.trim().strip_prefix('[')?.strip_suffix(']')?;
        let names = held.split(',').map(clean).filter(|name| !name.is_empty()).collect();
        assignment.insert(clean(vehicle), names);
    }
    let claim = Claim { step_time_s: Some(time), peak_memory_bytes: None };
    Some(NamedPath { name: format!("pipeline {}", number.trim()), path, assignment, claim, proposed: false })
}

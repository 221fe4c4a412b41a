//! Keys of context and expert parallelism, and of the router.

use steptime_models::ContextMethod;
use steptime_plans::Router;

use crate::error::InputError;
use crate::files::Files;
use crate::section::{Section, list, wrong};
use crate::tree::{Node, Value};

/// Most ranks along one dimension.
const MOST: u64 = 1 << 20;
/// Steepest Zipf distribution; beyond it the first expert gets everything.
const STEEPEST: f64 = 100.0;

/// Concentrations of a Dirichlet distribution: at the least one expert gets everything, at the most all get the same.
const CONCENTRATIONS: std::ops::RangeInclusive<f64> = 1e-3..=100.0;

/// Sizes of the groups that share sequences and experts.
pub(crate) struct Groups {
    pub(crate) context: u64,
    pub(crate) context_method: ContextMethod,
    pub(crate) expert: u64,
    pub(crate) expert_tensor: Option<u64>,
}

/// Reads `context`, `context_method`, `expert` and `expert_tensor` of `[parallelism]`.
pub(crate) fn read(section: &Section<'_>, tensor: u64) -> Result<Groups, InputError> {
    let context = section.count("context", MOST)?.unwrap_or(1);
    let methods = [("ring", ContextMethod::Ring), ("all-to-all", ContextMethod::AllToAll)];
    let method = section.choice("context_method", &methods)?;
    if method.is_some() && context == 1 {
        return Err(section.conflict("context_method", "needs context above 1; leave this key out"));
    }
    let expert = section.count("expert", MOST)?.unwrap_or(1);
    let expert_tensor = section.count("expert_tensor", MOST)?;
    if let Some(ways) = expert_tensor.filter(|ways| !tensor.is_multiple_of(*ways)) {
        let message = format!("found {ways}, allowed: a divisor of tensor ({tensor})");
        return Err(section.conflict("expert_tensor", message));
    }
    Ok(Groups { context, context_method: method.unwrap_or_default(), expert, expert_tensor })
}

/// Reads `router` of `[workload]`: `"uniform"`, `{ zipf = 0.8 }`, `{ dirichlet = 1.0 }`, `{ histogram = [3, 1, 1, 1] }` or
/// `{ histogram = "counts.txt" }`.
pub(crate) fn read_router(section: &Section<'_>, files: &dyn Files) -> Result<Router, InputError> {
    let allowed =
        "\"uniform\", { zipf = ... }, { dirichlet = ... }, { histogram = [...] } or { histogram = \"FILE\" }";
    let Some(node) = section.node("router")? else { return Ok(Router::Uniform) };
    let key = section.full("router");
    match &node.value {
        Value::Text(text) if text == "uniform" => Ok(Router::Uniform),
        Value::Table(table) => match table.first() {
            Some((name, value)) if table.len() == 1 && name == "zipf" => read_zipf(&key, value),
            Some((name, value)) if table.len() == 1 && name == "dirichlet" => read_dirichlet(&key, value),
            Some((name, value)) if table.len() == 1 && name == "histogram" => {
                read_histogram(&key, value, files)
            }
            _ => Err(InputError::Value {
                origin: node.origin.clone(),
                key,
                found: format!("a table with {}", list(table.keys().map(String::as_str))),
                allowed: allowed.to_owned(),
                nearest: None,
            }),
        },
        other => Err(wrong(&node.origin, &key, other, allowed)),
    }
}

fn read_zipf(key: &str, node: &Node) -> Result<Router, InputError> {
    let exponent = number(&node.value).filter(|value| (0.0..=STEEPEST).contains(value));
    let allowed = format!("a number from 0 to {STEEPEST}");
    exponent
        .map(Router::Zipf)
        .ok_or_else(|| wrong(&node.origin, &format!("{key}.zipf"), &node.value, &allowed))
}

fn read_dirichlet(key: &str, node: &Node) -> Result<Router, InputError> {
    let concentration = number(&node.value).filter(|value| CONCENTRATIONS.contains(value));
    let allowed = format!("a number from {} to {}", CONCENTRATIONS.start(), CONCENTRATIONS.end());
    concentration
        .map(Router::Dirichlet)
        .ok_or_else(|| wrong(&node.origin, &format!("{key}.dirichlet"), &node.value, &allowed))
}

/// Largest number of a histogram.
const MOST_TOKENS: f64 = 1e12;

fn read_histogram(key: &str, node: &Node, files: &dyn Files) -> Result<Router, InputError> {
    let key = format!("{key}.histogram");
    let allowed =
        "a list of numbers from 0 to 1e12, one of them above 0, or the name of a file of such numbers";
    let refuse = |node: &Node| wrong(&node.origin, &key, &node.value, allowed);
    if let Value::Text(name) = &node.value {
        let counts = files.read(name).and_then(|text| counts(&text));
        return counts.map(Router::Histogram).map_err(|message| InputError::Conflict {
            origin: node.origin.clone(),
            key,
            message: format!("{name}: {message}"),
        });
    }
    let Value::Array(items) = &node.value else { return Err(refuse(node)) };
    let weight = |item: &Node| {
        number(&item.value).filter(|value| (0.0..=MOST_TOKENS).contains(value)).ok_or_else(|| refuse(item))
    };
    let weights = items.iter().map(weight).collect::<Result<Vec<f64>, _>>()?;
    if weights.iter().any(|&weight| weight > 0.0) {
        Ok(Router::Histogram(weights))
    } else {
        Err(refuse(node))
    }
}

/// Tokens of each expert, parted by spaces, commas and line ends; `#` begins a comment.
fn counts(text: &str) -> Result<Vec<f64>, String> {
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let said = line.split('#').next().unwrap_or_default();
        let words =
            said.split(|c: char| c.is_whitespace() || c == ',' || c == ';').filter(|it| !it.is_empty());
        for word in words {
            let count = word.parse().ok().filter(|count| (0.0..=MOST_TOKENS).contains(count));
            all.push(count.ok_or_else(|| {
                format!(
                    "line {}: found `{word}`, allowed: numbers from 0 to 1e12, one for each expert",
                    number + 1
                )
            })?);
        }
    }
    if all.iter().any(|&count| count > 0.0) {
        Ok(all)
    } else {
        Err("no number in it is above 0; write the tokens of each expert".to_owned())
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        Value::Integer(value) => Some(*value as f64),
        _ => None,
    }
}

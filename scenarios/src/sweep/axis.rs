//! Axes of a sweep: keys of the scenario and the values that they take.

use indexmap::IndexMap;

use crate::error::{InputError, nearest};
use crate::section::{list, wrong};
use crate::tree::{Node, Value};

/// Sections of a scenario that an axis can go through.
pub(super) const SECTIONS: [&str; 11] = [
    "model",
    "cluster",
    "workload",
    "parallelism",
    "allocator",
    "input",
    "benchmark",
    "cost",
    "failures",
    "simulation",
    "variability",
];

/// Keys of `[sweep]` that are no axes.
const SETTINGS: [&str; 4] = ["zip", "skip", "only", "play"];

/// Most values of one axis.
const MOST_VALUES: u64 = 100_000;

/// A key and the values that it takes, in order.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// The key with its section, as it stands in tables.
    pub(super) name: String,
    /// The key's path.
    pub(super) path: Vec<String>,
    /// Its values, each where it was written.
    pub(super) values: Vec<Node>,
}

/// All axes of `[sweep]`, in the order of the file.
pub(super) fn read(table: &IndexMap<String, Node>) -> Result<Vec<Axis>, InputError> {
    let mut axes: Vec<Axis> = Vec::new();
    for (key, node) in table.iter().filter(|(key, _)| !SETTINGS.contains(&key.as_str())) {
        let path: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
        collect(path, node, &mut axes)?;
    }
    for (index, axis) in axes.iter().enumerate() {
        if axes[..index].iter().any(|other| other.path == axis.path) {
            let origin =
                axis.values.first().map_or_else(|| axis_origin(table), |value| value.key_origin.clone());
            let message = "is an axis twice; keep one".to_owned();
            return Err(InputError::Conflict { origin, key: full(&axis.name), message });
        }
    }
    Ok(axes)
}

fn axis_origin(table: &IndexMap<String, Node>) -> crate::origin::Origin {
    table
        .values()
        .next()
        .map_or_else(|| crate::origin::Origin::at("scenario", 1, 1), |node| node.origin.clone())
}

/// The axis at a path, or the axes of the tables below it.
fn collect(path: Vec<String>, node: &Node, axes: &mut Vec<Axis>) -> Result<(), InputError> {
    let name = path.join(".");
    if !SECTIONS.contains(&path[0].as_str()) {
        let known: Vec<&str> = SECTIONS.iter().chain(&SETTINGS).copied().collect();
        return Err(InputError::UnknownKey {
            origin: node.key_origin.clone(),
            key: full(&name),
            allowed: format!(
                "\"section.key\" of a scenario with the sections {}; {}",
                list(SECTIONS),
                list(SETTINGS)
            ),
            nearest: nearest(&path[0], known),
        });
    }
    let below = path.len() > 1 && path.iter().all(|part| !part.is_empty());
    match &node.value {
        Value::Array(items) if below => {
            if items.is_empty() {
                return Err(wrong(&node.origin, &full(&name), &node.value, "at least one value"));
            }
            for (index, item) in items.iter().enumerate() {
                if items[..index].iter().any(|other| same(&other.value, &item.value)) {
                    let allowed = "each value once";
                    let found = format!("{} twice", item.value.describe());
                    return Err(InputError::Value {
                        origin: item.origin.clone(),
                        key: full(&name),
                        found,
                        allowed: allowed.to_owned(),
                        nearest: None,
                    });
                }
            }
            let key_origin = node.key_origin.clone();
            let values =
                items.iter().map(|item| Node { key_origin: key_origin.clone(), ..item.clone() }).collect();
            axes.push(Axis { name, path, values });
            Ok(())
        }
        Value::Table(range) if below && range.contains_key("from") => {
            let values = range_values(&full(&name), node, range)?;
            axes.push(Axis { name, path, values });
            Ok(())
        }
        Value::Table(tables) if !tables.is_empty() => {
            for (key, inner) in tables {
                let mut path = path.clone();
                path.extend(key.split('.').map(|part| part.trim().to_owned()));
                collect(path, inner, axes)?;
            }
            Ok(())
        }
        other => {
            let allowed = "a list of values, or a range { from, to, step } or { from, to, factor }";
            Err(wrong(&node.origin, &full(&name), other, allowed))
        }
    }
}

/// Equal but for where they were written.
fn same(a: &Value, b: &Value) -> bool {
    crate::draft::written(a) == crate::draft::written(b)
}

fn full(name: &str) -> String {
    format!("sweep.{name}")
}

/// A number of a range, whole or not.
#[derive(Clone, Copy)]
enum Number {
    Whole(i64),
    Real(f64),
}

impl Number {
    fn real(self) -> f64 {
        match self {
            Self::Whole(value) => value as f64,
            Self::Real(value) => value,
        }
    }
}

/// The values of `{ from = 1, to = 8, factor = 2 }` or `{ from = 1, to = 8, step = 1 }`, both ends among them.
fn range_values(key: &str, node: &Node, range: &IndexMap<String, Node>) -> Result<Vec<Node>, InputError> {
    let keys = ["from", "to", "step", "factor"];
    if let Some((other, inner)) = range.iter().find(|(other, _)| !keys.contains(&other.as_str())) {
        return Err(InputError::UnknownKey {
            origin: inner.key_origin.clone(),
            key: format!("{key}.{other}"),
            allowed: list(keys),
            nearest: nearest(other, keys),
        });
    }
    let number = |name: &str| match range.get(name) {
        None => Ok(None),
        Some(Node { value: Value::Integer(value), .. }) => Ok(Some(Number::Whole(*value))),
        Some(Node { value: Value::Float(value), .. }) if value.is_finite() => Ok(Some(Number::Real(*value))),
        Some(other) => Err(wrong(&other.origin, &format!("{key}.{name}"), &other.value, "a number")),
    };
    let missing = |name: &str| InputError::Missing {
        origin: node.origin.clone(),
        key: format!("{key}.{name}"),
        needed: "a range is { from, to, step } or { from, to, factor }".to_owned(),
    };
    let from = number("from")?.ok_or_else(|| missing("from"))?;
    let to = number("to")?.ok_or_else(|| missing("to"))?;
    let conflict = |name: &str, message: String| {
        let origin = range.get(name).map_or(&node.origin, |inner| &inner.origin).clone();
        Err(InputError::Conflict { origin, key: format!("{key}.{name}"), message })
    };
    let values = match (number("step")?, number("factor")?) {
        (Some(_), Some(_)) => {
            return conflict("factor", "a range has `step` or `factor`; keep one".to_owned());
        }
        (None, None) => return Err(missing("step")),
        (Some(step), None) => {
            if step.real() == 0.0 || (to.real() - from.real()) * step.real() < 0.0 {
                let message =
                    format!("steps of {} do not lead from {} to {}", step.real(), from.real(), to.real());
                return conflict("step", message);
            }
            steps(from, to, step)
        }
        (None, Some(factor)) => {
            let grows = to.real() >= from.real();
            let leads = from.real() > 0.0 && to.real() > 0.0 && (factor.real() > 1.0) == grows;
            if !leads || factor.real() <= 0.0 || factor.real().total_cmp(&1.0).is_eq() {
                let message =
                    format!("factors of {} do not lead from {} to {}", factor.real(), from.real(), to.real());
                return conflict("factor", message);
            }
            factors(from, to, factor)
        }
    };
    let Some(values) = values else {
        return conflict("to", format!("gives more than {MOST_VALUES} values"));
    };
    let place = |value| Node { value, origin: node.origin.clone(), key_origin: node.key_origin.clone() };
    Ok(values.into_iter().map(place).collect())
}

/// Rounding noise of a range's floats must neither add nor drop its last value.
const SLACK: f64 = 1e-9;

fn steps(from: Number, to: Number, step: Number) -> Option<Vec<Value>> {
    let count = ((to.real() - from.real()) / step.real() + SLACK).floor() as u64 + 1;
    if count > MOST_VALUES {
        return None;
    }
    let value = |index: u64| match (from, step) {
        (Number::Whole(from), Number::Whole(step)) => Value::Integer(from + index.cast_signed() * step),
        _ => Value::Float(decimal(from.real() + index as f64 * step.real())),
    };
    Some((0..count).map(value).collect())
}

fn factors(from: Number, to: Number, factor: Number) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    let mut next = from;
    let grows = factor.real() > 1.0;
    let inside = |value: f64| {
        if grows { value <= to.real() * (1.0 + SLACK) } else { value >= to.real() * (1.0 - SLACK) }
    };
    while inside(next.real()) {
        if values.len() as u64 == MOST_VALUES {
            return None;
        }
        values.push(match next {
            Number::Whole(value) => Value::Integer(value),
            Number::Real(value) => Value::Float(decimal(value)),
        });
        next = match (next, factor) {
            (Number::Whole(value), Number::Whole(factor)) => {
                value.checked_mul(factor).map_or(Number::Real(f64::MAX), Number::Whole)
            }
            _ => Number::Real(next.real() * factor.real()),
        };
    }
    Some(values)
}

/// The float with twelve digits that is nearest: 0.3, not 0.30000000000000004.
fn decimal(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// Groups of axes that move together, as positions; each axis stands in one of them.
pub(super) fn groups(axes: &[Axis], zip: Option<&Node>) -> Result<Vec<Vec<usize>>, InputError> {
    let key = "sweep.zip";
    let mut together: Vec<Vec<usize>> = Vec::new();
    if let Some(node) = zip {
        let allowed = "a list of lists of axes, e.g. [[\"cluster.nodes\", \"workload.global_batch_size\"]]";
        let Value::Array(lists) = &node.value else {
            return Err(wrong(&node.origin, key, &node.value, allowed));
        };
        for list_node in lists {
            let Value::Array(names) = &list_node.value else {
                return Err(wrong(&list_node.origin, key, &list_node.value, allowed));
            };
            let group = names.iter().map(|name| position(axes, name, key)).collect::<Result<Vec<_>, _>>()?;
            check_group(axes, &group, &together, list_node, key)?;
            together.push(group);
        }
    }
    let mut groups = Vec::new();
    for index in 0..axes.len() {
        match together.iter().find(|group| group.contains(&index)) {
            None => groups.push(vec![index]),
            Some(group) if group.iter().min() == Some(&index) => groups.push(group.clone()),
            Some(_) => {}
        }
    }
    Ok(groups)
}

fn position(axes: &[Axis], node: &Node, key: &str) -> Result<usize, InputError> {
    let names = || axes.iter().map(|axis| axis.name.as_str());
    match &node.value {
        Value::Text(name) => names().position(|other| other == name).ok_or_else(|| InputError::Value {
            origin: node.origin.clone(),
            key: key.to_owned(),
            found: node.value.describe(),
            allowed: format!("axes of this sweep: {}", list(names())),
            nearest: nearest(name, names()),
        }),
        other => Err(wrong(&node.origin, key, other, &format!("axes of this sweep: {}", list(names())))),
    }
}

fn check_group(
    axes: &[Axis],
    group: &[usize],
    others: &[Vec<usize>],
    node: &Node,
    key: &str,
) -> Result<(), InputError> {
    let refuse = |message: String| {
        Err(InputError::Conflict { origin: node.origin.clone(), key: key.to_owned(), message })
    };
    if group.len() < 2 {
        return refuse("it takes two axes and more to move together".to_owned());
    }
    for (index, axis) in group.iter().enumerate() {
        if group[..index].contains(axis) || others.iter().any(|other| other.contains(axis)) {
            return refuse(format!("`{}` is zipped twice", axes[*axis].name));
        }
    }
    let (first, length) = (&axes[group[0]], axes[group[0]].values.len());
    match group.iter().map(|&index| &axes[index]).find(|axis| axis.values.len() != length) {
        Some(other) => refuse(format!(
            "`{}` has {length} values and `{}` has {}; axes that move together have as many",
            first.name,
            other.name,
            other.values.len()
        )),
        None => Ok(()),
    }
}

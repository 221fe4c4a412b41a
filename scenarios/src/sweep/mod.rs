//! Sweeps: every point of a scenario's `[sweep]`.
//!
//! Axes are keys of the scenario with lists or ranges of values; some move together (`zip`), conditions leave points out
//! (`skip`, `only`). Points are numbered from 0 in the order of nested loops over the axes, the first axis the outermost,
//! those that conditions leave out not counted: the number of a point, and its row, depend on nothing but the scenario.

mod axis;
mod condition;
mod journal;
mod part;
mod row;

use std::hash::Hasher;
use std::sync::Arc;

use indexmap::IndexMap;
use rayon::prelude::*;
use serde_json::Value as Json;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::draft::{Draft, written};
use crate::error::InputError;
use crate::estimate::row_report;
use crate::files::Files;
use crate::section::Section;
use crate::shared::{Point, Shared};
use crate::tree::{Node, Value};

use axis::Axis;
use condition::Condition;

pub use journal::{Journal, JournalError, Left, part_name};
pub use part::{PartError, SWEEP_SCHEMA, Shard, SweepHeader, SweepPart, merge_parts, read_part, sweep_line};
pub use row::{PointVerdict, SweepRow, sweep_csv};

/// Most points of a sweep, conditions not looked at.
const MOST_POINTS: u64 = 10_000_000;

/// A scenario with points to play.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The scenario without its `[sweep]`.
    base: Draft,
    name: String,
    axes: Vec<Axis>,
    /// Axes that move together, by position; points are the product of these groups.
    groups: Vec<Vec<usize>>,
    /// Of each point its number in the product.
    kept: Vec<u64>,
    skipped: u64,
    /// Whether only as many of a step's equal micro-batches are played as it takes to see the rest.
    in_part: bool,
    fingerprint: String,
    /// What its points have in common.
    shared: Arc<Shared>,
}

impl Sweep {
    /// Reads `[sweep]` and looks at every value of every axis once.
    ///
    /// # Errors
    /// There is no `[sweep]`, or something in it is wrong: no axis, an unknown key, a value that its key never takes, a range that
    /// leads nowhere, axes of different lengths that should move together, a condition that cannot be read, or nothing left
    /// to play. That two keys do not go together at some point is no error: the point's row says so.
    pub fn read(draft: &Draft, files: &(dyn Files + Sync)) -> Result<Self, InputError> {
        let (base, node) = draft.clone().take("sweep");
        let Some(node) = node else {
            let section = Section::top(draft.root())?;
            return Err(section.missing(
                "sweep",
                "a section [sweep] with the axes, e.g. \"workload.micro_batch_size\" = [1, 2]",
            ));
        };
        let Value::Table(table) = &node.value else {
            return Err(crate::section::wrong(&node.origin, "sweep", &node.value, "a table"));
        };
        let axes = axis::read(table)?;
        if axes.is_empty() {
            let message = "has no axis, e.g. \"workload.micro_batch_size\" = [1, 2]".to_owned();
            return Err(InputError::Conflict {
                origin: node.origin.clone(),
                key: "sweep".to_owned(),
                message,
            });
        }
        let groups = axis::groups(&axes, table.get("zip"))?;
        let fingerprint = fingerprint(draft, files);
        let name = String::new();
        let in_part = read_play(table)?;
        let (kept, shared) = (Vec::new(), Arc::default());
        let mut sweep = Self { base, name, axes, groups, kept, skipped: 0, in_part, fingerprint, shared };
        sweep.name = sweep.check_values(files)?;
        sweep.keep(&node, &conditions(table, "skip")?, &conditions(table, "only")?)?;
        Ok(sweep)
    }

    /// Names of the axes.
    pub fn axes(&self) -> Vec<String> {
        self.axes.iter().map(|axis| axis.name.clone()).collect()
    }

    /// Points to play.
    pub fn points(&self) -> u64 {
        self.kept.len() as u64
    }

    /// First line of a part of this sweep.
    pub fn header(&self, shard: Shard) -> SweepHeader {
        SweepHeader {
            schema: SWEEP_SCHEMA.to_owned(),
            name: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            points: self.points(),
            skipped: self.skipped,
            axes: self.axes(),
            shard,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Plays these points on all threads of the current pool. `done` gets the rows as they finish, in any order, and
    /// may end the sweep by an error.
    ///
    /// # Errors
    /// What `done` gives.
    pub fn play<E: Send>(
        &self,
        points: &[u64],
        files: &(dyn Files + Sync),
        done: &(dyn Fn(SweepRow) -> Result<(), E> + Sync),
    ) -> Result<(), E> {
        // Points differ in size by orders of magnitude: a thread takes one at a time.
        points.par_iter().with_max_len(1).try_for_each(|&point| done(self.row(point, files)))
    }

    /// The row of a point. What goes wrong at a point is what its row says.
    pub fn row(&self, point: u64, files: &(dyn Files + Sync)) -> SweepRow {
        let Some(&number) = usize::try_from(point).ok().and_then(|index| self.kept.get(index)) else {
            return SweepRow::refused(point, IndexMap::new(), format!("there is no point {point}"));
        };
        let chosen = self.chosen(number);
        let values = self
            .axes
            .iter()
            .zip(&chosen)
            .map(|(axis, &index)| (axis.name.clone(), json(&axis.values[index])));
        let values: IndexMap<String, Json> = values.collect();
        let played = self.draft(&chosen).and_then(|draft| {
            let scenario = draft.scenario(files)?;
            let point = Point::new(&self.shared, &draft, &scenario);
            row_report(&scenario, self.in_part, point.as_ref())
        });
        match played {
            Ok(report) => SweepRow::played(point, values, &report),
            Err(error) => SweepRow::refused(point, values, error.reason()),
        }
    }

    /// Memories that were replayed for its points so far.
    #[cfg(test)]
    pub(crate) fn memories(&self) -> usize {
        self.shared.memories()
    }

    /// Of each axis the position of its value, at a number of the product.
    fn chosen(&self, number: u64) -> Vec<usize> {
        let mut chosen = vec![0; self.axes.len()];
        let mut rest = number;
        for group in self.groups.iter().rev() {
            let length = self.axes[group[0]].values.len() as u64;
            for &axis in group {
                chosen[axis] = (rest % length) as usize;
            }
            rest /= length;
        }
        chosen
    }

    /// The scenario with these values of the axes.
    fn draft(&self, chosen: &[usize]) -> Result<Draft, InputError> {
        let mut draft = self.base.clone();
        for (axis, &index) in self.axes.iter().zip(chosen) {
            draft = draft.at(&axis.path, axis.values[index].clone(), &format!("sweep.{}", axis.name))?;
        }
        Ok(draft)
    }

    /// Looks at each value of each group once, the others at their first one, and returns the scenario's name. What a key
    /// never takes is an error; what does not go together is not.
    fn check_values(&self, files: &(dyn Files + Sync)) -> Result<String, InputError> {
        let mut tries: Vec<Vec<usize>> = vec![vec![0; self.axes.len()]];
        for group in &self.groups {
            for index in 1..self.axes[group[0]].values.len() {
                let mut chosen = vec![0; self.axes.len()];
                for &axis in group {
                    chosen[axis] = index;
                }
                tries.push(chosen);
            }
        }
        let read = |chosen: &Vec<usize>| self.draft(chosen)?.scenario(files);
        let checked: Vec<Result<Option<String>, InputError>> = tries
            .par_iter()
            .map(|chosen| match read(chosen) {
                Ok(scenario) => Ok(Some(scenario.name)),
                Err(error) if is_about_values(&error) => Err(error),
                Err(_) => Ok(None),
            })
            .collect();
        let mut name = None;
        for found in checked {
            name = name.or(found?);
        }
        Ok(name.unwrap_or_else(|| "sweep".to_owned()))
    }

    /// Numbers the points that conditions leave.
    fn keep(&mut self, node: &Node, skip: &[Condition], only: &[Condition]) -> Result<(), InputError> {
        let lengths = self.groups.iter().map(|group| self.axes[group[0]].values.len() as u64);
        let product = lengths.fold(1_u64, u64::saturating_mul);
        let refuse =
            |message| InputError::Conflict { origin: node.origin.clone(), key: "sweep".to_owned(), message };
        if product > MOST_POINTS {
            return Err(refuse(format!("has {product} points, at most {MOST_POINTS} can be played")));
        }
        if skip.is_empty() && only.is_empty() {
            self.kept = (0..product).collect();
            return Ok(());
        }
        let keeps = |number: u64| -> Result<bool, InputError> {
            let draft = self.draft(&self.chosen(number))?;
            let mut keeps = true;
            for condition in skip {
                keeps &= !condition.holds(draft.root())?;
            }
            for condition in only {
                keeps &= condition.holds(draft.root())?;
            }
            Ok(keeps)
        };
        let kept: Vec<bool> = (0..product).into_par_iter().map(keeps).collect::<Result<_, _>>()?;
        self.kept = (0..product).filter(|&number| kept[number as usize]).collect();
        self.skipped = product - self.kept.len() as u64;
        if self.kept.is_empty() {
            return Err(refuse(format!("has no point left: conditions leave out all {product}")));
        }
        Ok(())
    }
}

/// Whether an error is about an axis by itself, or about something that no axis touches.
fn is_about_values(error: &InputError) -> bool {
    match error {
        InputError::Syntax { .. }
        | InputError::UnknownKey { .. }
        | InputError::Unreadable { .. }
        | InputError::Value { .. } => true,
        InputError::Missing { .. } | InputError::Conflict { .. } | InputError::Plan { .. } => false,
    }
}

/// `play = "full"` or `"part"`.
fn read_play(table: &IndexMap<String, Node>) -> Result<bool, InputError> {
    match table.get("play").map(|node| (&node.value, &node.origin)) {
        None => Ok(false),
        Some((Value::Text(text), _)) if text == "full" => Ok(false),
        Some((Value::Text(text), _)) if text == "part" => Ok(true),
        Some((value, origin)) => {
            Err(crate::section::wrong(origin, "sweep.play", value, "\"full\", \"part\""))
        }
    }
}

/// A condition, or a list of them.
fn conditions(table: &IndexMap<String, Node>, key: &str) -> Result<Vec<Condition>, InputError> {
    let full = format!("sweep.{key}");
    match table.get(key) {
        None => Ok(Vec::new()),
        Some(Node { value: Value::Array(items), .. }) => {
            items.iter().map(|item| Condition::read(item, &full)).collect()
        }
        Some(node) => Condition::read(node, &full).map(|condition| vec![condition]),
    }
}

/// A value as JSON.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Integer(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::Boolean(value) => Json::from(*value),
        Value::Text(text) => Json::from(text.clone()),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Table(table) => table.iter().map(|(key, node)| (key.clone(), json(node))).collect(),
    }
}

/// Names the document, the files that it names, and the program's version: parts with different ones do not belong
/// together.
fn fingerprint(draft: &Draft, files: &(dyn Files + Sync)) -> String {
    let version = env!("CARGO_PKG_VERSION");
    digest(std::iter::once(version.to_owned()).chain(texts(draft, files)))
}

/// All that a document says: itself, and the files that it names.
pub(crate) fn texts(draft: &Draft, files: &dyn Files) -> Vec<String> {
    let mut names = Vec::new();
    file_names(draft.root(), false, &mut names);
    let mut texts = vec![written(&draft.root().value)];
    for name in names {
        let text = files.read(&name).unwrap_or_default();
        texts.extend([name, text]);
    }
    texts
}

/// 128 bits of texts (SipHash 1-3 with a fixed key), in hexadecimal digits.
pub fn digest(texts: impl IntoIterator<Item = String>) -> String {
    let mut hasher = SipHasher13::new();
    for text in texts {
        hasher.write_u64(text.len() as u64);
        hasher.write(text.as_bytes());
    }
    let hash = hasher.finish128();
    format!("{:016x}{:016x}", hash.h1, hash.h2)
}

/// Keys whose values are names of files.
const FILES: [&str; 3] = ["file", "hf", "calibration"];

/// Everything in a document that may name a file.
fn file_names(node: &Node, named: bool, names: &mut Vec<String>) {
    match &node.value {
        Value::Text(text) if named => names.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| file_names(item, named, names)),
        Value::Table(table) => {
            for (key, inner) in table {
                let last = key.rsplit('.').next().unwrap_or(key);
                file_names(inner, named || FILES.contains(&last), names);
            }
        }
        _ => {}
    }
}

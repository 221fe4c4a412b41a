//! Judging somebody's plan: is it legal, complete, does it fit, does what its author claims hold, and how far is it from
//! the best.

mod gpus;
mod stage_list;
mod swift_results;
mod vehicles;

use serde::{Deserialize, Serialize};

use crate::draft::Draft;
use crate::error::InputError;
use crate::files::Files;
use crate::refusal;
use crate::scenario::{Job, Scenario};
use crate::section::Section;

pub use stage_list::{StageList, stage_list};
pub use swift_results::{NamedPath, swift_results};

/// Identifies the form of [`CheckReport`].
pub const CHECK_SCHEMA: &str = "steptime.check/1";

/// What a plan's author says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Seconds a step, or a batch.
    pub step_time_s: Option<f64>,
    /// Peak bytes of the fullest device.
    pub peak_memory_bytes: Option<f64>,
}

/// The answer about a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanVerdict {
    /// Legal, complete, fits, and no claim is better than it can be.
    Accepted,
    /// It is not.
    Rejected,
}

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// `legal`, `complete`, `fits` or `claim`.
    pub rule: String,
    /// The whole story, with names and numbers.
    pub message: String,
}

/// A planner to compare with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Which.
    pub planner: String,
    /// Seconds of its plan; null where it has none that is complete and fits.
    pub step_time_s: Option<f64>,
    /// Its plan in words, or why there is none.
    pub plan: String,
}

/// What the planners of paths of vehicles make of a scenario, the proven optimum first; none for GPUs.
///
/// # Errors
/// The cluster's dependencies go round in a circle, or the formula's parameters mean nothing.
pub fn planners(scenario: &Scenario) -> Result<Option<Vec<Compared>>, InputError> {
    let Some(setting) = vehicles::Setting::of(scenario) else { return Ok(None) };
    let compared = setting.compare().map_err(|error| refusal::explain(scenario, error))?;
    Ok(Some(compared.1))
}

/// The smallest change that mends a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repair {
    /// What to change.
    pub changes: Vec<String>,
    /// Seconds of the mended plan.
    pub step_time_s: f64,
}

/// What there is to say of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// [`CHECK_SCHEMA`].
    pub schema: String,
    /// The plan's name.
    pub name: String,
    /// The plan in words.
    pub plan: String,
    /// The answer.
    pub verdict: PlanVerdict,
    /// Whether it keeps the rules of model, cluster and schedule.
    pub legal: bool,
    /// Whether every layer or partition is placed exactly once.
    pub complete: bool,
    /// Whether it fits into memory; null where it is not complete enough to tell.
    pub fits: Option<bool>,
    /// Everything that is wrong with it.
    pub violations: Vec<Violation>,
    /// What its author claims.
    pub claimed: Claim,
    /// Seconds predicted; of a plan that is not complete, for what it has.
    pub step_time_s: Option<f64>,
    /// 80 % interval of the step time.
    pub step_time_interval_s: Option<[f64; 2]>,
    /// Peak bytes predicted on the fullest device.
    pub peak_memory_bytes: Option<u64>,
    /// What takes most of the time, and its share.
    pub bottleneck: Option<(String, f64)>,
    /// The best plan found, first, and other planners.
    pub compared: Vec<Compared>,
    /// No plan is faster than this, seconds; null where nothing is known, infinite bounds too.
    pub bound_s: Option<f64>,
    /// Whether the bound is reached by the best plan.
    pub proven: bool,
    /// The smallest repair of a plan that was rejected.
    pub repair: Option<Repair>,
}

impl CheckReport {
    fn new(name: &str, plan: String, claimed: Claim) -> Self {
        Self {
            schema: CHECK_SCHEMA.to_owned(),
            name: name.to_owned(),
            plan,
            verdict: PlanVerdict::Accepted,
            legal: true,
            complete: true,
            fits: None,
            violations: Vec::new(),
            claimed,
            step_time_s: None,
            step_time_interval_s: None,
            peak_memory_bytes: None,
            bottleneck: None,
            compared: Vec::new(),
            bound_s: None,
            proven: false,
            repair: None,
        }
    }

    fn violate(&mut self, rule: &str, message: String) {
        self.verdict = PlanVerdict::Rejected;
        match rule {
            "legal" => self.legal = false,
            "complete" => self.complete = false,
            "fits" => self.fits = Some(false),
            _ => {}
        }
        self.violations.push(Violation { rule: rule.to_owned(), message });
    }
}

/// Checks the plan that a scenario is, with what its `[claim]`, or else `claim`, says. `plays` is how many plans a search for a better
/// one may play; with 0 none is made.
///
/// # Errors
/// The document is wrong: what is no plan at all. A plan that cannot be is no error: the report says why.
pub fn check_scenario(
    draft: &Draft,
    files: &(dyn Files + Sync),
    claim: Claim,
    plays: u64,
) -> Result<CheckReport, InputError> {
    let (plain, written) = read_claim(draft)?;
    let claim = Claim {
        step_time_s: claim.step_time_s.or(written.step_time_s),
        peak_memory_bytes: claim.peak_memory_bytes.or(written.peak_memory_bytes),
    };
    gpus::check(&plain, files, claim, plays)
}

/// Checks a path of vehicles by names, against the model and cluster of a scenario.
///
/// # Errors
/// The scenario is wrong, or not one of vehicles.
pub fn check_path(draft: &Draft, files: &dyn Files, path: &NamedPath) -> Result<CheckReport, InputError> {
    let scenario = draft.scenario(files)?;
    if !matches!(scenario.job, Job::Vehicles { .. }) {
        let message = "is no cluster of vehicles, which the plan is for";
        return Err(scenario.places.cluster.conflict(message));
    }
    vehicles::check_named(&scenario, path)
}

/// The document without its `[claim]`, and that.
fn read_claim(draft: &Draft) -> Result<(Draft, Claim), InputError> {
    let section = Section::of(draft.root(), "claim", &[])?;
    let claim = Claim {
        step_time_s: section.factor("step_time_s", 0.0, 1e9)?,
        peak_memory_bytes: match section.text("peak_memory")? {
            None => None,
            Some((text, origin)) => {
                let bytes = steptime_models::parse_quantity(&text, steptime_models::Dimension::Bytes);
                let found = crate::tree::Value::Text(text);
                let wrong = || {
                    crate::section::wrong(
                        &origin,
                        "claim.peak_memory",
                        &found,
                        "an amount such as \"70 GiB\"",
                    )
                };
                Some(bytes.map_err(|_| wrong())?)
            }
        },
    };
    section.finish()?;
    Ok((draft.clone().take("claim").0, claim))
}

/// What `scenario` is about in a sentence: used where a plan has no other words.
fn plan_in_words(scenario: &Scenario) -> String {
    let Job::Gpus { plan, workload, .. } = &scenario.job else { return scenario.name.clone() };
    let mut words = vec![format!("data {}", plan.data)];
    for (name, size) in [
        ("tensor", plan.tensor),
        ("pipeline", plan.pipeline),
        ("virtual", plan.virtual_pipeline),
        ("context", plan.context),
        ("expert", plan.expert),
    ] {
        if size > 1 {
            words.push(format!("{name} {size}"));
        }
    }
    words.push(format!("ZeRO {}", plan.zero as u8));
    words.push(format!("{} micro-batches of {}", workload.accumulation, workload.micro_batch_size));
    words.join(", ")
}

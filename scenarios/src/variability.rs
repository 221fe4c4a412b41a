//! The `[variability]` section, and steps that are played over and over again.

use rayon::prelude::*;
use steptime_core::{NoObserver, SimTime, simulate};
use steptime_plans::{
    LinkOwner, Lowered, PlanError, Quantiles, Repetition, SlowLink, Straggler, Stragglers, Variation,
};

use crate::error::InputError;
use crate::report::{Provenance, VariabilityReport};
use crate::section::{KeyPlace, Section, tables};

/// Most steps that are played.
const MOST_REPETITIONS: u64 = 10_000;
/// Steps where something is random and the scenario does not say how many.
const USUAL_REPETITIONS: u64 = 50;
/// Largest standard deviation of a logarithm: factors of 20 and more are no jitter.
const MOST_JITTER: f64 = 1.0;
/// Largest factor of a straggler, and smallest share of its clock or of a link's rate that is left.
const SLOWEST: f64 = 1000.0;
/// Longest time before something begins, seconds: a year.
const LONGEST: f64 = 31_536_000.0;

/// How steps differ, and how many of them are played.
#[derive(Clone, Debug)]
pub struct Variability {
    /// What varies.
    pub variation: Variation,
    /// Steps that are played, one after another in the run.
    pub repetitions: u32,
    /// The section, for errors that show up only when the links are there.
    pub(crate) place: KeyPlace,
}

/// How many GPUs and nodes there are to be named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) gpus: u64,
    pub(crate) nodes: u64,
    /// Whether a router has experts on several ranks to choose from, and some more than others.
    pub(crate) routes: bool,
}

/// Reads the section; `fold` is taken out before, because the plan depends on it.
pub(crate) fn read(section: Section<'_>, size: Size) -> Result<Option<Variability>, InputError> {
    if !section.is_present() {
        return Ok(None);
    }
    let place = KeyPlace { origin: section.origin().clone(), key: "variability".to_owned() };
    let fold = fold(&section)?;
    let jitter = |key| section.factor(key, 0.0, MOST_JITTER).map(|given| given.unwrap_or(0.0));
    let mut variation = Variation {
        seed: section.number("seed", 0, i64::MAX as u64)?.unwrap_or(0),
        kernel_jitter: jitter("kernel_jitter")?,
        host_jitter: jitter("host_jitter")?,
        transfer_jitter: jitter("transfer_jitter")?,
        step_jitter: jitter("step_jitter")?,
        routing: section.flag("routing")?.unwrap_or(false),
        ..Variation::default()
    };
    if variation.routing && !size.routes {
        let message =
            "has nothing to draw; needs parallelism.expert above 1 and a router that is not uniform";
        return Err(section.conflict("routing", message));
    }
    let given = section.count("repetitions", MOST_REPETITIONS)?;
    for table in tables(&section, "stragglers")? {
        let straggler = straggler(Section::inner(table, "variability.stragglers")?, size)?;
        variation.stragglers.push(straggler);
    }
    for table in tables(&section, "slow_links")? {
        let link = slow_link(Section::inner(table, "variability.slow_links")?, size)?;
        variation.slow_links.push(link);
    }
    if fold && !variation.stragglers.is_empty() {
        let message =
            "ranks that stand for others cannot be slower than they are; leave `fold` or the stragglers out";
        return Err(section.conflict("fold", message));
    }
    if fold && variation.slow_links.iter().any(|it| !matches!(it.owner, LinkOwner::Name(_))) {
        let message =
            "links that stand for others cannot be slower than they are; leave `fold` or the slow links out";
        return Err(section.conflict("fold", message));
    }
    let later = variation.stragglers.iter().map(|it| it.after_s);
    let changes = later.chain(variation.slow_links.iter().map(|it| it.after_s)).any(|after| after > 0.0);
    let random = variation.is_random();
    if !random && !changes && given.is_some_and(|count| count > 1) {
        let message = "nothing differs from step to step; ask for a jitter, or leave `repetitions` out";
        return Err(section.conflict("repetitions", message));
    }
    section.finish()?;
    if !random && variation.stragglers.is_empty() && variation.slow_links.is_empty() {
        let message = "asks for nothing; give a jitter, stragglers or slow links, or leave the section out";
        return Err(place.conflict(message));
    }
    let repetitions = given.unwrap_or(if random || changes { USUAL_REPETITIONS } else { 1 }) as u32;
    Ok(Some(Variability { variation, repetitions, place }))
}

/// Whether ranks that do the same are played once all the same.
pub(crate) fn fold(section: &Section<'_>) -> Result<bool, InputError> {
    Ok(section.flag("fold")?.unwrap_or(false))
}

fn after(section: &Section<'_>) -> Result<f64, InputError> {
    Ok(section.factor("after_seconds", 0.0, LONGEST)?.unwrap_or(0.0))
}

fn straggler(section: Section<'_>, size: Size) -> Result<Straggler, InputError> {
    let factor = section.factor("factor", 1.0, SLOWEST)?;
    let clock = section.factor("clock", 1.0 / SLOWEST, 1.0)?;
    let which = match (section.counts("ranks")?, section.count("count", size.gpus)?) {
        (Some(_), Some(_)) => {
            return Err(section.conflict("count", "contradicts `ranks`: keep one of the two"));
        }
        (None, None) => return Err(section.missing("ranks", "a list of ranks, or `count`: how many of them")),
        (None, Some(count)) => Stragglers::Any(count),
        (Some(ranks), None) => {
            if let Some(rank) = ranks.iter().find(|rank| **rank >= size.gpus) {
                let message = format!("there is no rank {rank}, allowed: 0 to {}", size.gpus - 1);
                return Err(section.conflict("ranks", message));
            }
            Stragglers::Ranks(ranks)
        }
    };
    if factor.is_none() && clock.is_none() {
        return Err(section
            .missing("factor", "how many times as long kernels take, or `clock`: the share that is left"));
    }
    let straggler = Straggler {
        which,
        factor: factor.unwrap_or(1.0),
        clock: clock.unwrap_or(1.0),
        after_s: after(&section)?,
    };
    section.finish()?;
    Ok(straggler)
}

fn slow_link(section: Section<'_>, size: Size) -> Result<SlowLink, InputError> {
    let rate = section.factor("rate", 1.0 / SLOWEST, 1.0)?;
    let rate = rate.ok_or_else(|| section.missing("rate", "the share of its rate that is left"))?;
    let gpu = section.number("gpu", 0, size.gpus - 1)?;
    let node = section.number("node", 0, size.nodes - 1)?;
    let name = section.text("name")?;
    let owner = match (gpu, node, name) {
        (Some(gpu), None, None) => LinkOwner::Gpu(gpu),
        (None, Some(_), None) if size.nodes == 1 => {
            return Err(section.conflict("node", "a single node has no links to others"));
        }
        (None, Some(node), None) => LinkOwner::Node(node),
        (None, None, Some((name, _))) => LinkOwner::Name(name),
        (None, None, None) => return Err(section.missing("gpu", "whose link it is: `gpu`, `node` or `name`")),
        _ => {
            return Err(
                section.conflict("rate", "is about one of `gpu`, `node` and `name`; keep one of them")
            );
        }
    };
    let link = SlowLink { owner, rate, after_s: after(&section)? };
    section.finish()?;
    Ok(link)
}

/// Steps of a run, as far as they were played.
pub(crate) struct Repetitions {
    /// When each began, and how long it took.
    steps: Vec<(Repetition, SimTime)>,
}

impl Repetitions {
    /// Plays the steps of a job; when a step begins is reckoned as if those before it were undisturbed. `routed` gives the
    /// job anew of a step whose routing differs.
    pub(crate) fn play(
        variability: &Variability,
        lowered: &Lowered,
        routed: impl Fn(Repetition) -> Result<Option<Lowered>, PlanError> + Sync,
    ) -> Result<Self, PlanError> {
        let undisturbed = simulate(&lowered.world, &mut NoObserver)?.end.seconds();
        let step = |number: u32| {
            let at = Repetition { number, begins_s: f64::from(number) * undisturbed };
            let world = match routed(at)? {
                Some(routed) => variability.variation.world(&routed, at)?,
                None => variability.variation.world(lowered, at)?,
            };
            Ok((at, simulate(&world, &mut NoObserver)?.end))
        };
        let played: Result<Vec<_>, PlanError> =
            (0..variability.repetitions).into_par_iter().map(step).collect();
        Ok(Self { steps: played? })
    }

    /// The step that takes the median time; of equal ones the first.
    pub(crate) fn median(&self) -> Repetition {
        let times: Vec<SimTime> = self.steps.iter().map(|(_, end)| *end).collect();
        let median = Quantiles::of(&times).map(|it| it.median);
        self.steps.iter().find(|(_, end)| Some(*end) == median).map(|(at, _)| *at).unwrap_or_default()
    }

    /// The first of the steps that a run does not survive, with its end; `short` says of each whether it does.
    pub(crate) fn first(&self, short: &[bool]) -> Option<(Repetition, SimTime)> {
        self.steps.iter().zip(short).find(|(_, short)| **short).map(|(step, _)| *step)
    }

    /// What the report says about them, and in which of them memory does not suffice; `memory` gives the most bytes that a
    /// device has in use in one of them, and whether it is too little.
    pub(crate) fn report(
        &self,
        variability: &Variability,
        memory: impl Fn(Repetition) -> Result<(u64, bool), PlanError> + Sync,
    ) -> Result<Option<(VariabilityReport, Vec<bool>)>, PlanError> {
        let times: Vec<SimTime> = self.steps.iter().map(|(_, end)| *end).collect();
        let of_steps: Result<Vec<(u64, bool)>, PlanError> =
            self.steps.par_iter().map(|(at, _)| memory(*at)).collect();
        let (bytes, short): (Vec<u64>, Vec<bool>) = of_steps?.into_iter().unzip();
        let (Some(time), Some(bytes)) = (Quantiles::of(&times), Quantiles::of(&bytes)) else {
            return Ok(None);
        };
        let seconds = |time: SimTime| time.seconds();
        let failed = short.iter().filter(|short| **short).count();
        let report = VariabilityReport {
            repetitions: variability.repetitions,
            seed: variability.variation.seed,
            step_time_s: [time.p10, time.median, time.p90].map(seconds).into(),
            peak_device_bytes: [bytes.p10, bytes.median, bytes.p90].into(),
            out_of_memory_fraction: failed as f64 / short.len().max(1) as f64,
        };
        Ok(Some((report, short)))
    }
}

/// What the report's numbers rest on besides.
pub(crate) fn provenance(variability: &Variability) -> Provenance {
    Provenance {
        what: "variability".to_owned(),
        kind: "assumption".to_owned(),
        source: format!(
            "jitter, stragglers and slow links as the scenario gives them; {} steps with seed {}",
            variability.repetitions, variability.variation.seed
        ),
        error: "as good as what the scenario says".to_owned(),
    }
}

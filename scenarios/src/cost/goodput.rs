//! Long runs with failures drawn at random.
//!
//! A run alternates work and checkpoints. A failure loses what was done since the last checkpoint that can be read; the
//! job waits until it is noticed, for a spare or repaired node where one is short, restarts, and reads the checkpoint.
//! Parts fail in wall-clock time, also while the job waits; a new part starts a new life.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::checkpoint::{Rule, Times, checkpoint_bytes};
use super::closed_form::expected_goodput;
use super::failures::{Component, Failures};
use super::life::exponential;
use super::money::{CostReport, machines, work_of_step};
use crate::error::InputError;
use crate::report::{Provenance, Report};
use crate::scenario::Scenario;

/// Identifies the form of [`GoodputReport`].
pub const GOODPUT_SCHEMA: &str = "steptime.goodput/1";

/// A mean over runs with its 95 % confidence interval, and how runs spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Mean.
    pub mean: f64,
    /// 95 % confidence interval of the mean (Student's t where runs are few, by the normal distribution from 30 on).
    pub confidence: [f64; 2],
    /// A tenth of the runs are below.
    pub p10: f64,
    /// Half of them are.
    pub p50: f64,
    /// Nine tenths are.
    pub p90: f64,
}

/// Time and money to the end of the work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finish {
    /// Optimizer steps.
    pub steps: f64,
    /// Days.
    pub days: Share,
    /// Money; null without prices.
    pub money: Option<Share>,
    /// Kilowatt-hours; null without powers.
    pub energy_kwh: Option<Share>,
}

/// What long runs come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoodputReport {
    /// [`GOODPUT_SCHEMA`].
    pub schema: String,
    /// The scenario's name.
    pub name: String,
    /// Seconds of a step without failures.
    pub step_time_s: f64,
    /// GPUs and nodes of the job.
    pub gpus: u64,
    /// Nodes.
    pub nodes: u64,
    /// Mean seconds between failures of the job.
    pub mean_time_between_failures_s: f64,
    /// Where the interval comes from: `fixed`, `young`, `daly`, `best`.
    pub interval_rule: String,
    /// Seconds of work between two checkpoints.
    pub interval_s: f64,
    /// Bytes of a checkpoint.
    pub checkpoint_bytes: f64,
    /// Seconds that a checkpoint holds the job up.
    pub checkpoint_blocks_s: f64,
    /// Seconds until it can be read.
    pub checkpoint_write_s: f64,
    /// Goodput by the closed form: exponential failures, spares without end.
    pub closed_form_goodput: f64,
    /// Share of the time that goes into work that is kept.
    pub goodput: Share,
    /// Mean share of the time in work that was lost.
    pub lost: f64,
    /// In checkpoints that held the job up.
    pub checkpoints: f64,
    /// In noticing failures, restarting and reading.
    pub restarts: f64,
    /// In waiting for nodes.
    pub waiting: f64,
    /// In maintenance.
    pub maintenance: f64,
    /// Failures a day.
    pub failures_per_day: f64,
    /// Days of each run, or null where runs end with their work.
    pub days: Option<f64>,
    /// Runs that were played.
    pub repetitions: u64,
    /// Time and money to the end, where `[cost]` says how much is to be done.
    pub to_finish: Option<Finish>,
    /// What the numbers rest on.
    pub provenance: Vec<Provenance>,
    /// Version of the program.
    pub version: String,
}

/// Plays long runs of a scenario whose step is reported.
///
/// # Errors
/// The scenario has no `[failures]`, runs on vehicles, or does not fit.
pub fn goodput(scenario: &Scenario, report: &Report) -> Result<GoodputReport, InputError> {
    let place = &scenario.places.parallelism;
    let refuse = |key: &str, message: &str| InputError::Conflict {
        origin: place.origin.clone(),
        key: key.to_owned(),
        message: message.to_owned(),
    };
    let Some(failures) = &scenario.failures else {
        return Err(refuse("failures", "missing: a section [failures] says what fails and how often"));
    };
    let (Some((gpus, nodes)), Some(step)) = (machines(scenario), report.step_time_s) else {
        return Err(refuse("failures", "nothing runs whose failures could be played"));
    };
    let mean = failures.mean_between(gpus, nodes);
    let times = failures.checkpoint.costs(scenario);
    let (tokens, samples) = work_of_step(report).unwrap_or((None, 1.0));
    let steps = scenario.cost.as_ref().and_then(|cost| cost.steps(tokens, samples));
    let end = steps.map_or(End::Time(failures.horizon_s), |steps| End::Work(steps * step));
    let job = Job { failures, gpus, nodes, times, end };
    let interval = match failures.checkpoint.rule {
        Rule::Best => job.best_interval(failures.checkpoint.interval(&times, mean)),
        _ => failures.checkpoint.interval(&times, mean),
    };
    let runs = job.runs(interval, failures.repetitions);
    let share = |part: fn(&Run) -> f64| mean_of(&runs, |run| part(run) / run.wall);
    let cost = CostReport::of(scenario, report);
    let to_finish = steps.map(|steps| {
        let spread = |of: &dyn Fn(&Run) -> f64| spread(runs.iter().map(of).collect());
        Finish {
            steps,
            days: spread(&|run| run.wall / 86_400.0),
            money: cost.as_ref().map(|cost| spread(&|run| cost.spend(run.wall).0)),
            energy_kwh: cost
                .as_ref()
                .filter(|cost| cost.power_w.is_some())
                .map(|cost| spread(&|run| cost.spend(run.wall).1.unwrap_or(0.0) / 3.6e6)),
        }
    });
    Ok(GoodputReport {
        schema: GOODPUT_SCHEMA.to_owned(),
        name: scenario.name.clone(),
        step_time_s: step,
        gpus,
        nodes,
        mean_time_between_failures_s: mean,
        interval_rule: failures.checkpoint.rule.word().to_owned(),
        interval_s: interval,
        checkpoint_bytes: checkpoint_bytes(scenario),
        checkpoint_blocks_s: times.blocks,
        checkpoint_write_s: times.write,
        closed_form_goodput: expected_goodput(interval, times.blocks, failures.restart_s(&times), mean)
            * failures.maintenance_share(),
        goodput: spread(runs.iter().map(|run| run.kept / run.wall).collect()),
        lost: share(|run| run.lost),
        checkpoints: share(|run| run.checkpoints),
        restarts: share(|run| run.restarts),
        waiting: share(|run| run.waiting),
        maintenance: share(|run| run.maintenance),
        failures_per_day: mean_of(&runs, |run| run.failures as f64 / run.wall * 86_400.0),
        days: if steps.is_some() { None } else { Some(failures.horizon_s / 86_400.0) },
        repetitions: failures.repetitions,
        to_finish,
        provenance: provenance(failures),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn provenance(failures: &Failures) -> Vec<Provenance> {
    let parts: Vec<String> = failures
        .components
        .iter()
        .map(|part| format!("{} every {:.0} h", part.name, part.life.mean_s() / 3600.0))
        .collect();
    let entry = |what: &str, kind: &str, source: String, error: &str| Provenance {
        what: what.to_owned(),
        kind: kind.to_owned(),
        source,
        error: error.to_owned(),
    };
    vec![
        entry(
            "failures",
            "assumption",
            format!("the scenario's: {}", parts.join(", ")),
            "as good as what it says",
        ),
        entry(
            "goodput",
            "formula",
            "failures drawn by ChaCha8 and played one after the other; closed form: Daly 2006, equation 20"
                .to_owned(),
            "the 95 % interval is of the mean over runs, not of the scenario's numbers",
        ),
    ]
}

fn mean_of(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    runs.iter().map(of).sum::<f64>() / runs.len() as f64
}

/// Student's t at 97.5 % for 1 to 29 degrees of freedom; 1.96 from there on.
const T: [f64; 29] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045,
];

fn spread(mut values: Vec<f64>) -> Share {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance =
        values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (count - 1.0).max(1.0);
    let t = values.len().checked_sub(2).and_then(|index| T.get(index)).copied().unwrap_or(1.96);
    let half = t * (variance / count).sqrt();
    let quantile = |share: f64| values[((share * (count - 1.0)).round() as usize).min(values.len() - 1)];
    Share {
        mean,
        confidence: [mean - half, mean + half],
        p10: quantile(0.1),
        p50: quantile(0.5),
        p90: quantile(0.9),
    }
}

/// What ends a run.
#[derive(Clone, Copy, Debug)]
enum End {
    /// So many seconds of the clock.
    Time(f64),
    /// So many seconds of work that is kept.
    Work(f64),
}

/// Seconds of one run by what they went into.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    wall: f64,
    kept: f64,
    lost: f64,
    checkpoints: f64,
    restarts: f64,
    waiting: f64,
    maintenance: f64,
    failures: u64,
}

struct Job<'a> {
    failures: &'a Failures,
    gpus: u64,
    nodes: u64,
    times: Times,
    end: End,
}

/// A run that does not get on is ended: so many times the seconds of its work.
const HOPELESS: f64 = 1000.0;

/// Runs that compare intervals.
const TRIAL_RUNS: u64 = 24;

impl Job<'_> {
    /// The runs, each with a stream of random numbers of its own: their order does not depend on threads.
    fn runs(&self, interval: f64, count: u64) -> Vec<Run> {
        (0..count).into_par_iter().map(|number| Clock::new(self, interval, number).play()).collect()
    }

    /// The interval of most goodput: a ladder around a first guess, then finer around its best rung. All are played with
    /// the same random numbers.
    fn best_interval(&self, guess: f64) -> f64 {
        let mut best = (f64::NEG_INFINITY, guess);
        let mut width = 2.0;
        for _ in 0..3 {
            let middle = best.1;
            for rung in -3..=3 {
                let interval = middle * libm::pow(width, f64::from(rung) / 1.5);
                let runs = self.runs(interval, TRIAL_RUNS.min(self.failures.repetitions));
                let kept = mean_of(&runs, |run| run.kept / run.wall);
                if kept > best.0 {
                    best = (kept, interval);
                }
            }
            width = libm::sqrt(width);
        }
        best.1
    }
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A part of a kind fails.
    Failure(usize),
    /// A node comes back.
    Repaired,
    /// Maintenance begins.
    Maintenance,
}

/// One run.
struct Clock<'a> {
    job: &'a Job<'a>,
    interval: f64,
    random: ChaCha8Rng,
    now: f64,
    /// Picoseconds are too fine for years: events are ordered by milliseconds, then by kind and number.
    agenda: BinaryHeap<Reverse<(u64, Event, u64)>>,
    number: u64,
    /// Nodes that are away, and those of them whose repair has begun.
    away: u64,
    in_repair: u64,
    /// Mean repair times of nodes that wait for a crew.
    queue: std::collections::VecDeque<f64>,
    run: Run,
}

/// Milliseconds.
fn key(seconds: f64) -> u64 {
    (seconds * 1e3) as u64
}

impl<'a> Clock<'a> {
    fn new(job: &'a Job<'a>, interval: f64, number: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(job.failures.seed);
        random.set_stream(number);
        let mut clock = Self {
            job,
            interval,
            random,
            now: 0.0,
            agenda: BinaryHeap::new(),
            number: 0,
            away: 0,
            in_repair: 0,
            queue: std::collections::VecDeque::new(),
            run: Run::default(),
        };
        for (kind, component) in job.failures.components.iter().enumerate() {
            // Without memory of age all parts of a kind together are one that fails as often.
            let lives =
                if component.life.is_exponential() { 1 } else { component.count(job.gpus, job.nodes) };
            for _ in 0..lives {
                clock.begin_life(kind, component);
            }
        }
        if let Some((every, _)) = job.failures.maintenance {
            clock.push(every, Event::Maintenance);
        }
        clock
    }

    fn push(&mut self, at: f64, event: Event) {
        self.number += 1;
        self.agenda.push(Reverse((key(at), event, self.number)));
    }

    fn begin_life(&mut self, kind: usize, component: &Component) {
        let together = if component.life.is_exponential() {
            component.count(self.job.gpus, self.job.nodes) as f64
        } else {
            1.0
        };
        let life = component.life.draw(&mut self.random) / together;
        self.push(self.now + life, Event::Failure(kind));
    }

    /// Nodes that the job lacks.
    fn short(&self) -> u64 {
        self.away.saturating_sub(self.job.failures.spare_nodes)
    }

    /// The clock goes on to `until`, or to the first event that stops the job; true in that case.
    fn advance(&mut self, until: f64) -> Option<Event> {
        while let Some(&Reverse((at, event, _))) = self.agenda.peek()
            && at < key(until)
        {
            self.agenda.pop();
            self.now = self.now.max(at as f64 / 1e3);
            match event {
                Event::Repaired => self.repaired(),
                Event::Failure(kind) => {
                    self.fail(kind);
                    return Some(event);
                }
                Event::Maintenance => return Some(event),
            }
        }
        self.now = self.now.max(until);
        None
    }

    fn fail(&mut self, kind: usize) {
        let failures = self.job.failures;
        let component = &failures.components[kind];
        self.run.failures += 1;
        self.begin_life(kind, component);
        if component.repair_s > 0.0 {
            self.away += 1;
            self.queue.push_back(component.repair_s);
            self.begin_repairs();
        }
    }

    /// Repairs take exponential times of their mean.
    fn begin_repairs(&mut self) {
        let crews = self.job.failures.repair_crews.unwrap_or(u64::MAX);
        while self.in_repair < crews {
            let Some(mean) = self.queue.pop_front() else { break };
            self.in_repair += 1;
            let takes = mean * exponential(&mut self.random);
            self.push(self.now + takes, Event::Repaired);
        }
    }

    fn repaired(&mut self) {
        self.away = self.away.saturating_sub(1);
        self.in_repair = self.in_repair.saturating_sub(1);
        self.begin_repairs();
    }

    /// Passes `length` seconds on the way back to work; a failure or maintenance begins anew. What passed is given.
    fn pass(&mut self, length: f64) -> (f64, Option<Event>) {
        let start = self.now;
        let event = self.advance(start + length);
        (self.now - start, event)
    }

    fn play(mut self) -> Run {
        let limit = match self.job.end {
            End::Time(seconds) => seconds,
            End::Work(seconds) => seconds * HOPELESS + 1.0,
        };
        // Work that a readable checkpoint holds, work done since, and when the checkpoint in flight can be read.
        let (mut saved, mut done) = (0.0, 0.0);
        let mut flight: Option<(f64, f64)> = None;
        while self.now < limit {
            let target = match self.job.end {
                End::Work(all) => all,
                End::Time(_) => f64::INFINITY,
            };
            let left = (target - done).min(self.interval).min((limit - self.now).max(0.0));
            let (worked, event) = self.pass(left);
            done += worked;
            if let Some((ready, held)) = flight
                && ready <= self.now
            {
                saved = held;
                flight = None;
            }
            if event.is_none() && done >= target - 1e-6 {
                break;
            }
            let event = match event {
                Some(event) => Some(event),
                None if self.now < limit => {
                    // The checkpoint before is out of the way first.
                    let due = flight.map_or(self.now, |(ready, _)| ready.max(self.now));
                    let (begun, times) = (due, self.job.times);
                    let (passed, event) = self.pass(due - self.now + times.blocks);
                    self.run.checkpoints += passed;
                    if event.is_none() {
                        if let Some((_, held)) = flight {
                            saved = held;
                        }
                        flight = Some((begun + times.write, done));
                        if times.write <= times.blocks {
                            (saved, flight) = (done, None);
                        }
                    }
                    event
                }
                None => None,
            };
            match event {
                // Maintenance is announced: a checkpoint is there when it begins.
                Some(Event::Maintenance) => {
                    saved = done;
                    flight = None;
                    self.maintain();
                    self.come_back(limit);
                }
                Some(_) => {
                    self.run.lost += done - saved;
                    done = saved;
                    flight = None;
                    self.come_back(limit);
                }
                None => {}
            }
        }
        // What is not lost when the clock ends is kept.
        self.run.kept = done;
        self.run.wall = self.now.max(f64::MIN_POSITIVE);
        self.run
    }

    /// Stops for maintenance; what fails meanwhile is repaired as always.
    fn maintain(&mut self) {
        let Some((every, stop)) = self.job.failures.maintenance else { return };
        let end = self.now + stop;
        let start = self.now;
        while self.advance(end).is_some() {}
        self.run.maintenance += self.now - start;
        self.push(self.now + every, Event::Maintenance);
    }

    /// From a failure until work goes on, or the clock ends.
    fn come_back(&mut self, limit: f64) {
        let failures = self.job.failures;
        let restart = failures.restart_s(&self.job.times);
        loop {
            // A node is short: nothing can begin before one is back.
            let mut start = self.now;
            while self.short() > 0 && self.now < limit {
                let Some(&Reverse((at, _, _))) = self.agenda.peek() else { break };
                let next = (at as f64 / 1e3 + 2e-3).min(limit);
                if self.advance(next) == Some(Event::Maintenance) {
                    self.run.waiting += self.now - start;
                    self.maintain();
                    start = self.now;
                }
            }
            self.run.waiting += self.now - start;
            if self.now >= limit {
                return;
            }
            let (passed, event) = self.pass(restart.min(limit - self.now));
            self.run.restarts += passed;
            match event {
                None => return,
                Some(Event::Maintenance) => self.maintain(),
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;

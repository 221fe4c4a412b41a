//! Chance: steps of the same job that differ from each other, and parts of the cluster that are slower than they should
//! be.
//!
//! Kernels, host work and transfers take a random factor each, lognormal with mean 1: `exp(s z - s^2 / 2)` for a standard
//! normal `z`, so that the mean of many stays what was predicted and only the spread and what ranks wait for each other
//! come on top. Every purpose, repetition and rank (of transfers: group) draws from a ChaCha stream of its own, so that a
//! result depends neither on the order in which repetitions are played nor on the number of threads.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use steptime_core::{GroupId, Link, Program, Work, World};
use steptime_models::{ExpertParallel, Model};

use crate::error::PlanError;
use crate::lower::{Lowered, StageFacts};
use crate::plan::Plan;
use crate::router::Router;
use crate::workload::Workload;

/// Most records that one varied world may have: every rank has its own, with times of their own, of 32 bytes.
const MOST_RECORDS: u64 = 1 << 26;

/// Which ranks are slower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stragglers {
    /// These ranks, in every repetition.
    Ranks(Vec<u64>),
    /// So many of all, others in every repetition.
    Any(u64),
}

/// GPUs that are slower than the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Straggler {
    /// Which.
    pub which: Stragglers,
    /// How many times as long every kernel takes, 1 or more.
    pub factor: f64,
    /// Share of its clock that such a GPU keeps, above 0 and up to 1: kernels that arithmetic limits take `1 / clock`
    /// times as long; the memory has a clock of its own.
    pub clock: f64,
    /// When it begins, seconds into the run, whose steps the repetitions are: a step that begins at that time or later
    /// is slower as a whole.
    pub after_s: f64,
}

/// Links, by what they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOwner {
    /// Both directions of a GPU's port into the fabric of its node.
    Gpu(u64),
    /// What a node has to the network: its ports, and the cards of its GPUs.
    Node(u64),
    /// The link of this name.
    Name(String),
}

/// Links that are slower than they should be.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowLink {
    /// Which.
    pub owner: LinkOwner,
    /// Share of its rate that it keeps, above 0 and up to 1.
    pub rate: f64,
    /// When it begins, seconds into the run.
    pub after_s: f64,
}

/// What varies from step to step and from rank to rank.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variation {
    /// Chooses the random numbers.
    pub seed: u64,
    /// Standard deviation of the logarithm of each kernel's time.
    pub kernel_jitter: f64,
    /// The same of what the host works and takes to issue a kernel.
    pub host_jitter: f64,
    /// The same of each transfer, the same for all ranks that take part.
    pub transfer_jitter: f64,
    /// The same of a factor that all kernels of a rank share in a step.
    pub step_jitter: f64,
    /// Slower GPUs.
    pub stragglers: Vec<Straggler>,
    /// Slower links.
    pub slow_links: Vec<SlowLink>,
    /// Whether the router's choice is another one in every step and layer.
    pub routing: bool,
}

/// Which rank of those that share experts a drawn router is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busiest {
    /// In each layer the one with the most tokens there, for whom all others wait.
    InEachLayer,
    /// Of each of these stages the one with the most tokens in all of its layers together, whose memory is fullest.
    OfStages,
}

/// One of the steps that are played.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Repetition {
    /// Its number, from 0.
    pub number: u32,
    /// When it begins, seconds into the run.
    pub begins_s: f64,
}

/// What random numbers are for; each has its own.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Kernel = 1,
    Host = 2,
    Transfer = 3,
    Step = 4,
    Straggler = 5,
    Routing = 6,
}

/// Factors from a stream of random numbers.
struct Lognormal {
    stream: ChaCha8Rng,
    sigma: f64,
}

impl Lognormal {
    fn next(&mut self) -> f64 {
        if self.sigma <= 0.0 {
            return 1.0;
        }
        let z: f64 = StandardNormal.sample(&mut self.stream);
        libm::exp(self.sigma * z - 0.5 * self.sigma * self.sigma)
    }
}

/// Factors of a group's transfers, drawn as far as its members have come.
struct Drawn {
    random: Lognormal,
    factors: Vec<f64>,
}

impl Drawn {
    fn get(&mut self, number: u32) -> f64 {
        while self.factors.len() <= number as usize {
            let next = self.random.next();
            self.factors.push(next);
        }
        self.factors[number as usize]
    }
}

impl Variation {
    /// Whether steps differ from each other at random.
    pub fn is_random(&self) -> bool {
        let chosen = self.stragglers.iter().any(|it| matches!(it.which, Stragglers::Any(_)));
        chosen
            || self.routing
            || [self.kernel_jitter, self.host_jitter, self.transfer_jitter, self.step_jitter]
                .into_iter()
                .any(|sigma| sigma > 0.0)
    }

    /// The workload of one repetition of a job with routed experts, if it differs. Every layer's router has preferences of
    /// its own, and so a draw of its own; `stages` are those that the job was lowered to.
    pub fn routed(
        &self,
        (model, plan, workload): (&Model, &Plan, &Workload),
        stages: &[StageFacts],
        busiest: Busiest,
        at: Repetition,
    ) -> Option<Workload> {
        if !self.routing {
            return None;
        }
        let experts = model.experts();
        let draw = |layer: usize| {
            let routes = model.layers[layer].parameters.iter().any(|it| it.expert.is_some());
            let stream = &mut self.stream(Purpose::Routing, at, layer as u64);
            routes.then(|| workload.router.drawn(experts, stream).loads_millionths(experts, plan.expert))
        };
        let drawn: Vec<Option<Vec<u64>>> = (0..model.layers.len()).map(draw).collect();
        let of_layer = |layer: usize| drawn.get(layer).and_then(Option::as_ref);
        let mut loads: Vec<u64> = Vec::with_capacity(drawn.len());
        for of_ranks in &drawn {
            let most = of_ranks.as_ref().and_then(|loads| loads.iter().copied().max());
            loads.push(most.unwrap_or(ExpertParallel::BALANCED));
        }
        if busiest == Busiest::OfStages {
            for stage in stages {
                let layers = || stage.layers.iter().cloned().flatten();
                let all =
                    |rank: usize| -> u64 { layers().filter_map(|layer| of_layer(layer)?.get(rank)).sum() };
                // Of equal ones the first.
                let fullest = (0..plan.expert as usize).rev().max_by_key(|rank| all(*rank)).unwrap_or(0);
                for layer in layers() {
                    if let Some(load) = of_layer(layer).and_then(|loads| loads.get(fullest)) {
                        loads[layer] = *load;
                    }
                }
            }
        }
        Some(Workload { router: Router::Drawn(loads), ..workload.clone() })
    }

    /// The world of one repetition.
    ///
    /// # Errors
    /// The world has too many records for a copy of each rank, or no link of a given name.
    pub fn world(&self, lowered: &Lowered, at: Repetition) -> Result<World, PlanError> {
        let world = &lowered.world;
        let records: u64 =
            world.ranks().iter().map(|it| world.programs()[it.program as usize].len() as u64).sum();
        if records > MOST_RECORDS {
            return Err(PlanError::TooManyRecords { records, limit: MOST_RECORDS });
        }
        let slow = self.slow_links(world, at)?;
        let all: u64 = lowered.ranks.iter().map(|it| it.multiplicity).sum();
        let stragglers = self.chosen(all, at);
        let mut transfers: BTreeMap<GroupId, Drawn> = BTreeMap::new();
        let program = |index: u32, program: &Program| {
            let rank = lowered.ranks[index as usize].rank;
            let groups = &world.ranks()[index as usize].groups;
            let mut kernel = self.factors(Purpose::Kernel, at, rank, self.kernel_jitter);
            let mut host = self.factors(Purpose::Host, at, rank, self.host_jitter);
            let step = self.factors(Purpose::Step, at, rank, self.step_jitter).next();
            let [by_arithmetic, by_memory] = slowness(&stragglers, rank).map(|slow| slow * step);
            program.stretched(|work| match work {
                Work::Host => host.next(),
                Work::Kernel { by_memory: true } => by_memory * kernel.next(),
                Work::Kernel { by_memory: false } => by_arithmetic * kernel.next(),
                Work::Transfer { channel, number } => {
                    let group = groups[channel];
                    let new = || Drawn {
                        random: self.factors(Purpose::Transfer, at, u64::from(group.0), self.transfer_jitter),
                        factors: Vec::new(),
                    };
                    transfers.entry(group).or_insert_with(new).get(number)
                }
            })
        };
        let rate = |link: &Link| link.bytes_per_second * slow.get(&link.name).copied().unwrap_or(1.0);
        Ok(world.varied(program, rate)?)
    }

    /// Random numbers of a purpose for a rank or a group.
    fn stream(&self, purpose: Purpose, at: Repetition, index: u64) -> ChaCha8Rng {
        let mut stream = ChaCha8Rng::seed_from_u64(self.seed);
        stream.set_stream((purpose as u64) << 56 | u64::from(at.number) << 32 | index);
        stream
    }

    fn factors(&self, purpose: Purpose, at: Repetition, index: u64, sigma: f64) -> Lognormal {
        Lognormal { stream: self.stream(purpose, at, index), sigma }
    }

    /// Stragglers of a repetition with their ranks, of all that there are.
    fn chosen(&self, ranks: u64, at: Repetition) -> Vec<(Vec<u64>, &Straggler)> {
        let mut stream = self.stream(Purpose::Straggler, at, 0);
        let mut chosen = Vec::new();
        for straggler in &self.stragglers {
            let which = match &straggler.which {
                Stragglers::Ranks(ranks) => ranks.clone(),
                Stragglers::Any(count) => distinct(&mut stream, *count, ranks),
            };
            if straggler.after_s <= at.begins_s {
                chosen.push((which, straggler));
            }
        }
        chosen
    }

    /// What is left of the rates of slow links, by name; links may be named more than once.
    fn slow_links(&self, world: &World, at: Repetition) -> Result<BTreeMap<String, f64>, PlanError> {
        let mut slow = BTreeMap::new();
        for link in &self.slow_links {
            let mut names =
                world.links().iter().map(|it| &it.name).filter(|name| owns(&link.owner, name)).peekable();
            if let (LinkOwner::Name(name), None) = (&link.owner, names.peek()) {
                return Err(PlanError::UnknownLink { name: name.clone(), known: known(world) });
            }
            for name in names.filter(|_| link.after_s <= at.begins_s) {
                *slow.entry(name.clone()).or_insert(1.0) *= link.rate;
            }
        }
        Ok(slow)
    }
}

/// How many times as long kernels of a rank take that arithmetic limits, and those that memory limits.
fn slowness(stragglers: &[(Vec<u64>, &Straggler)], rank: u64) -> [f64; 2] {
    let of_rank = stragglers.iter().filter(|(ranks, _)| ranks.contains(&rank));
    of_rank.fold([1.0, 1.0], |[arithmetic, memory], (_, it)| {
        [arithmetic * it.factor / it.clock, memory * it.factor]
    })
}

/// `count` different numbers below `ranks`, or all.
fn distinct(stream: &mut ChaCha8Rng, count: u64, ranks: u64) -> Vec<u64> {
    let mut left: Vec<u64> = (0..ranks).collect();
    let mut chosen = Vec::new();
    while (chosen.len() as u64) < count && !left.is_empty() {
        // 64 bits over at most 2^20 ranks: no number is favoured by more than 2^-44.
        let at = stream.next_u64() % left.len() as u64;
        chosen.push(left.swap_remove(at as usize));
    }
    chosen
}

/// Whether a link of this name is one of the owner's.
fn owns(owner: &LinkOwner, name: &str) -> bool {
    let begins = |owner: &str| name.strip_prefix(owner).is_some_and(|rest| rest.starts_with(' '));
    match owner {
        LinkOwner::Name(wanted) => wanted == name,
        LinkOwner::Gpu(gpu) => begins(&format!("gpu {gpu}")) && !name.ends_with(" cards"),
        LinkOwner::Node(node) => {
            let own = format!("node {node}");
            (begins(&own) || name.contains(&format!(" {own} "))) && !name.ends_with(" bridge")
        }
    }
}

/// The first names of a world's links.
fn known(world: &World) -> String {
    let names: Vec<&str> = world.links().iter().map(|link| link.name.as_str()).take(8).collect();
    names.join(", ")
}

/// Order statistics of repeated steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiles<T> {
    /// A tenth of the values are at most this.
    pub p10: T,
    /// Half of the values are at most this.
    pub median: T,
    /// Nine tenths of the values are at most this.
    pub p90: T,
}

impl<T: Copy + Ord> Quantiles<T> {
    /// Of some values, by the nearest rank: the smallest one that so large a part of all do not exceed; `None` of none.
    pub fn of(values: &[T]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let at = |tenths: usize| sorted.get((tenths * sorted.len()).div_ceil(10).max(1) - 1).copied();
        Some(Self { p10: at(1)?, median: at(5)?, p90: at(9)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<u32> = (1..=10).rev().collect();
        assert_eq!(Quantiles::of(&values), Some(Quantiles { p10: 1, median: 5, p90: 9 }));
        assert_eq!(Quantiles::of(&[7]), Some(Quantiles { p10: 7, median: 7, p90: 7 }));
        assert_eq!(Quantiles::<u32>::of(&[]), None);
    }

    #[test]
    fn factors_have_mean_one_and_the_spread_asked_for() {
        let variation = Variation { seed: 3, ..Variation::default() };
        let mut random = variation.factors(Purpose::Kernel, Repetition::default(), 0, 0.3);
        let count = 200_000;
        let logs: Vec<f64> = (0..count).map(|_| random.next()).collect();
        let mean = logs.iter().sum::<f64>() / f64::from(count);
        // Standard error of the mean: sqrt((exp(s^2) - 1) / n) = 0.0007.
        assert!((mean - 1.0).abs() < 3e-3, "{mean}");
        let log_mean = logs.iter().map(|it| libm::log(*it)).sum::<f64>() / f64::from(count);
        let variance =
            logs.iter().map(|it| (libm::log(*it) - log_mean).powi(2)).sum::<f64>() / f64::from(count);
        // Standard error of the standard deviation: s / sqrt(2 n) = 0.0005.
        assert!((variance.sqrt() - 0.3).abs() < 2e-3, "{}", variance.sqrt());
    }

    #[test]
    fn streams_of_purposes_repetitions_and_ranks_differ() {
        let variation = Variation::default();
        let first = |purpose, number, rank| {
            let at = Repetition { number, begins_s: 0.0 };
            variation.factors(purpose, at, rank, 1.0).next().to_bits()
        };
        let all = [
            first(Purpose::Kernel, 0, 0),
            first(Purpose::Host, 0, 0),
            first(Purpose::Kernel, 1, 0),
            first(Purpose::Kernel, 0, 1),
        ];
        let mut unique = all.to_vec();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), all.len());
        assert_eq!(first(Purpose::Kernel, 0, 0), all[0]);
    }

    #[test]
    fn links_belong_to_gpus_and_nodes() {
        let (gpu, node) = (LinkOwner::Gpu(1), LinkOwner::Node(1));
        assert!(owns(&gpu, "gpu 1 out") && owns(&gpu, "gpu 1 in"));
        assert!(!owns(&gpu, "gpu 10 out") && !owns(&gpu, "gpu 1 cards"));
        assert!(owns(&node, "node 1 out") && owns(&node, "stage 0 node 1 cards"));
        assert!(!owns(&node, "node 10 out") && !owns(&node, "node 1 bridge"));
    }

    #[test]
    fn stragglers_by_chance_are_different_ranks() {
        let mut stream = Variation::default().stream(Purpose::Straggler, Repetition::default(), 0);
        for count in 0..9 {
            let mut chosen = distinct(&mut stream, count, 8);
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len() as u64, count.min(8));
        }
    }
}

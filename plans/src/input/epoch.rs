//! Batches one after the other: workers, the training process and the device as streams and the host of a rank.

use std::collections::VecDeque;

use steptime_clusters::Cluster;
use steptime_core::{
    Class, Event, Label, NoObserver, ProgramBuilder, RankSpec, SimTime, Stream, WorldBuilder, simulate,
};

use super::Loader;
use crate::classes;
use crate::error::PlanError;

/// Batches that are played one by one; of longer epochs the settled part is extended.
const MOST_PLAYED: u64 = 4096;
/// Rounds of the workers over which a settled loader is measured.
const ROUNDS: u64 = 4;

/// A micro-batch of a rank, and what it takes once it is on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchTime {
    /// Its samples.
    pub samples: u64,
    /// From the first kernel to the last.
    pub device: SimTime,
    /// The host's part: issuing them, and waiting for them where the model asks for it.
    pub host: SimTime,
}

/// The micro-batches of a rank in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Each of the equal ones.
    pub batch: BatchTime,
    /// How many there are.
    pub count: u64,
    /// A smaller one after them.
    pub last: Option<BatchTime>,
}

impl Epoch {
    fn get(&self, number: u64) -> Option<BatchTime> {
        if number < self.count { Some(self.batch) } else { self.last.filter(|_| number == self.count) }
    }
}

/// A loader on the nodes of a cluster. All ranks have one each, and all see the same: one is played.
#[derive(Clone, Copy, Debug)]
pub struct Loading<'a> {
    /// The loader.
    pub loader: &'a Loader,
    /// Where it runs.
    pub cluster: &'a Cluster,
}

impl Loading<'_> {
    /// From the start of an epoch until the training process holds its first batch, of so many samples, seconds.
    ///
    /// # Errors
    /// A time leaves the range of the clock.
    pub fn first_batch_s(self, samples: u64) -> Result<f64, PlanError> {
        let nothing = BatchTime { samples, device: SimTime::ZERO, host: SimTime::ZERO };
        let mut player = Player::new(self, Epoch { batch: nothing, count: 1, last: None });
        player.start()?;
        player.take(samples)?;
        Ok(player.play()?.seconds())
    }

    /// One micro-batch of many, once the queues no longer know how the epoch began: an epoch longer by some rounds of
    /// the workers takes that much longer. Seconds.
    ///
    /// # Errors
    /// A time leaves the range of the clock.
    pub fn micro_batch_s(self, batch: BatchTime) -> Result<f64, PlanError> {
        let more = ROUNDS * self.loader.processes();
        let end = |count| self.end(Epoch { batch, count, last: None });
        let settled = self.settled();
        Ok(end(settled + more)?.checked_sub(end(settled)?)?.seconds() / more as f64)
    }

    /// A whole epoch, from the start of the workers to their end, seconds.
    ///
    /// # Errors
    /// A time leaves the range of the clock.
    pub fn epoch_s(self, epoch: Epoch) -> Result<f64, PlanError> {
        let (round, settled) = (self.loader.processes(), self.settled());
        if epoch.count <= MOST_PLAYED.max(settled + round) {
            return Ok(self.end(epoch)?.seconds());
        }
        // An epoch is played that ends at the same worker; the rounds left out take what its last one takes.
        let count = settled + (epoch.count - settled) % round;
        let short = self.end(Epoch { count, ..epoch })?;
        let long = self.end(Epoch { count: count + round, ..epoch })?;
        let rounds = (epoch.count - count) / round;
        Ok(short.seconds() + long.checked_sub(short)?.seconds() * rounds as f64)
    }

    /// Samples a second that the loader of a rank could deliver if nobody held it up; none if loading takes no time.
    ///
    /// # Errors
    /// A time leaves the range of the clock.
    pub fn most_samples_per_s(self, samples: u64) -> Result<Option<f64>, PlanError> {
        let load = self.loader.load(self.cluster, samples)?.seconds();
        Ok((load > 0.0).then(|| samples as f64 * self.loader.processes() as f64 / load))
    }

    /// Batches after which the queues no longer know how the epoch began.
    fn settled(self) -> u64 {
        self.loader.processes() * (self.loader.prefetch_factor + ROUNDS)
    }

    pub(super) fn end(self, epoch: Epoch) -> Result<SimTime, PlanError> {
        let mut player = Player::new(self, epoch);
        player.start()?;
        let mut number = 0;
        while let Some(batch) = epoch.get(number) {
            player.take(batch.samples)?;
            player.run(batch)?;
            number += 1;
        }
        player.stop()?;
        player.play()
    }
}

/// Writes the program of an epoch.
struct Player<'a> {
    loading: Loading<'a>,
    epoch: Epoch,
    program: ProgramBuilder,
    compute: Stream,
    workers: Vec<Stream>,
    pinning: Stream,
    /// Batches on order, and the next one to be ordered.
    ready: VecDeque<Event>,
    ordered: u64,
    loads: Label,
    runs: Label,
}

impl<'a> Player<'a> {
    fn new(loading: Loading<'a>, epoch: Epoch) -> Self {
        let mut program = ProgramBuilder::new("epoch");
        let compute = program.stream("compute");
        let pinning = program.stream("pinning thread");
        let workers = (0..loading.loader.workers).map(|worker| program.stream(&format!("worker {worker}")));
        let workers = workers.collect();
        let loads = program.label("batch|data_loading|-");
        let runs = program.label("batch|forward|-");
        Self {
            loading,
            epoch,
            program,
            compute,
            workers,
            pinning,
            ready: VecDeque::new(),
            ordered: 0,
            loads,
            runs,
        }
    }

    fn host(&mut self, duration: SimTime, class: Class) {
        self.program.host(duration, class, self.loads);
    }

    /// The training process starts the workers and orders the first batches.
    fn start(&mut self) -> Result<(), PlanError> {
        self.each_worker(self.loading.loader.worker_start_s)?;
        for _ in 0..self.loading.loader.workers * self.loading.loader.prefetch_factor {
            self.order()?;
        }
        Ok(())
    }

    /// The training process waits for the device and ends the workers.
    fn stop(&mut self) -> Result<(), PlanError> {
        self.program.host_sync(self.compute);
        self.each_worker(self.loading.loader.worker_stop_s)
    }

    fn each_worker(&mut self, seconds: f64) -> Result<(), PlanError> {
        let Loader { workers, persistent_workers, .. } = *self.loading.loader;
        if workers > 0 && !persistent_workers {
            self.host(SimTime::from_seconds(seconds * workers as f64)?, classes::INPUT);
        }
        Ok(())
    }

    /// The next batch is ordered from the worker whose turn it is.
    fn order(&mut self) -> Result<(), PlanError> {
        let Some(batch) = self.epoch.get(self.ordered) else { return Ok(()) };
        let Loading { loader, cluster } = self.loading;
        let turn = (self.ordered % loader.processes()) as usize;
        let Some(&worker) = self.workers.get(turn) else { return Ok(()) };
        let load = loader.load(cluster, batch.samples)?;
        self.program.kernel(worker, classes::INPUT, self.loads, load, SimTime::ZERO);
        let mut ready = self.program.record(worker);
        if loader.pin_memory {
            self.program.wait(self.pinning, ready);
            let pin = loader.receive(batch.samples)?.checked_add(loader.pin(cluster, batch.samples)?)?;
            self.program.kernel(self.pinning, classes::INPUT, self.loads, pin, SimTime::ZERO);
            ready = self.program.record(self.pinning);
        }
        self.ready.push_back(ready);
        self.ordered += 1;
        Ok(())
    }

    /// The training process takes the next batch, or loads it by itself.
    fn take(&mut self, samples: u64) -> Result<(), PlanError> {
        let Loading { loader, cluster } = self.loading;
        if loader.workers == 0 {
            self.host(loader.load(cluster, samples)?, classes::INPUT);
            if loader.pin_memory {
                self.host(loader.pin(cluster, samples)?, classes::INPUT);
            }
            return Ok(());
        }
        if let Some(ready) = self.ready.pop_front() {
            self.program.host_wait(ready);
        }
        self.order()?;
        if !loader.pin_memory {
            self.host(loader.receive(samples)?, classes::INPUT);
        }
        Ok(())
    }

    /// The batch is copied to the device and run there.
    fn run(&mut self, batch: BatchTime) -> Result<(), PlanError> {
        let Loading { loader, cluster } = self.loading;
        if loader.sample_bytes > 0 {
            let copy = loader.copy(cluster, batch.samples)?;
            self.program.kernel(self.compute, classes::INPUT, self.loads, copy, SimTime::ZERO);
            if !loader.copies_in_background() {
                self.program.host_sync(self.compute);
                self.host(SimTime::from_seconds(cluster.host.sync_latency_s)?, classes::HOST);
            }
        }
        self.program.kernel(self.compute, classes::FORWARD, self.runs, batch.device, SimTime::ZERO);
        self.host(batch.host, classes::HOST);
        Ok(())
    }

    fn play(self) -> Result<SimTime, PlanError> {
        let mut world = WorldBuilder::new();
        let program = world.program(self.program.build()?);
        world.rank(RankSpec { program, ..RankSpec::default() });
        Ok(simulate(&world.build()?, &mut NoObserver)?.end)
    }
}

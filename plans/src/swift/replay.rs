//! A vehicle path as a program of events: micro-batches flow down the path and their gradients back.
//!
//! The formula of the source ([`PathPlan::serial_time`]) knows one compute term a vehicle and counts each
//! transfer twice, "forward + backward"; it has no micro-batches. The replay spends exactly that work, in parts:
//!
//! - *Compute.* A vehicle's term is split 1/3 forward and 2/3 backward, because a backward pass costs two
//!   products for each one of the forward; the sum is the formula's. A micro-batch takes its share of it.
//! - *Transfers.* One of the two counted transfers carries a micro-batch's activations to the next vehicle
//!   that holds something, the other its gradients back. Both cross the link of the vehicle that sent the
//!   activations, at its communication rate; when both are under way they share it. Bytes a micro-batch are
//!   the volumes of all partitions of the vehicle, times its samples, times the overhead.
//! - *Vehicles that hold nothing* are not visited, and the last vehicle that holds something sends nothing. If
//!   the path ends with vehicles that hold nothing, the formula charges that last holder's transfer all the
//!   same (only the last of the *path* is spared), so that the replay is shorter by that term.
//! - *Memory* is each partition's capacity, held from the start; the source knows no activations.
//!
//! Transfers have streams of their own and overlap compute; work on a vehicle stays in the order of the
//! schedule. With one micro-batch nothing can overlap, and the end is the formula's time.

use steptime_clusters::{Vehicle, VehicleCluster};
use steptime_core::{
    Category, Channel, Class, GroupId, LinkUse, Note, ProgramBuilder, ProgramError, RankSpec, SimTime,
    Stream, TimeError, World, WorldBuilder, WorldError,
};
use steptime_models::ComponentGraph;
use thiserror::Error;

use super::formula::{compute_seconds, flops, volume};
use super::{FormulaParameterError, FormulaParameters, PathPlan, PathPlanError};
use crate::classes::{self, Message};
use crate::schedule::{Action, Schedule, ScheduleError, ScheduleKind};

/// Category of the partitions' memory. A capacity covers all that a component requires; weights are what the
/// source scales it with.
const CAPACITY: Category = classes::PARAMETERS;

/// Share of a vehicle's compute that is forward; the rest is backward.
const FORWARD_SHARE: f64 = 1.0 / 3.0;

/// The engine's class for each activity of the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayClasses {
    /// A partition's forward.
    pub compute_forward: Class,
    /// A partition's backward.
    pub compute_backward: Class,
    /// Bytes on a link.
    pub transfer: Class,
    /// A transfer whose other side is not there yet, and the idle time after a vehicle's last work.
    pub waiting: Class,
    /// Issuing; takes no time here.
    pub host: Class,
}

impl Default for ReplayClasses {
    /// The classes of all other lowered programs, [`crate::classes`].
    fn default() -> Self {
        Self {
            compute_forward: classes::FORWARD,
            compute_backward: classes::BACKWARD,
            transfer: classes::TRANSFER,
            waiting: classes::TRANSFER_WAIT,
            host: classes::HOST,
        }
    }
}

/// How a path is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReplayOptions {
    /// Batch and factors, as for the formula.
    pub parameters: FormulaParameters,
    /// Parts of the batch, equal in samples.
    pub micro_batches: u32,
    /// Order of forwards and backwards on each vehicle.
    pub schedule: ScheduleKind,
}

/// A lowered path.
#[derive(Clone, Debug)]
pub struct PathReplay {
    /// What the engine plays: one rank for each vehicle that holds something, in the order of the path.
    pub world: World,
    /// Index of each rank's vehicle in [`VehicleCluster::vehicles`].
    pub vehicles: Vec<usize>,
    /// Most micro-batches of each rank between forward and backward.
    pub in_flight: Vec<u64>,
}

/// Why a path cannot be replayed.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ReplayError {
    /// The batch cannot be cut in this many equal parts.
    #[error(
        "micro_batches is {micro_batches}, which does not divide the batch of {batch} samples into equal parts"
    )]
    MicroBatches {
        /// Number of parts asked for.
        micro_batches: u32,
        /// Samples of the batch.
        batch: u32,
    },
    /// The schedule breaks a rule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The plan breaks a rule.
    #[error(transparent)]
    Plan(#[from] PathPlanError),
    /// A parameter with which the formula means nothing.
    #[error(transparent)]
    Parameter(#[from] FormulaParameterError),
    /// A duration left the range of the clock.
    #[error("vehicle {vehicle}, partition {partition}: {error}")]
    Time {
        /// Vehicle's name.
        vehicle: String,
        /// Partition's name.
        partition: String,
        /// What is wrong with the duration.
        error: TimeError,
    },
    /// A vehicle's program breaks a rule of the engine, such as its largest message.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The world breaks a rule of the engine, such as a link without bandwidth.
    #[error(transparent)]
    World(#[from] WorldError),
}

/// Lowers a plan to a world of one rank for each vehicle that holds something.
///
/// Labels of kernels and transfers read `<name>|<kind>|<micro-batch>`, where the kind is `forward`,
/// `backward` or `send_receive`, and the name that of the partition or `<sender>><receiver>`. The part of
/// a transfer that waits for its other side has the same label and the class `waiting`. A `|` within a name
/// becomes `/`. A tensor is labelled with its partition's name alone.
///
/// # Errors
/// [`ReplayError`]: the plan breaks a rule, the batch cannot be cut, a duration or a message is larger than
/// the engine counts.
pub fn lower_path(
    graph: &ComponentGraph,
    cluster: &VehicleCluster,
    plan: &PathPlan,
    options: &ReplayOptions,
    classes: &ReplayClasses,
) -> Result<PathReplay, ReplayError> {
    let ReplayOptions { parameters, micro_batches, schedule } = *options;
    parameters.validate()?;
    plan.validate(graph, cluster)?;
    if micro_batches == 0 || parameters.batch % micro_batches != 0 {
        return Err(ReplayError::MicroBatches { micro_batches, batch: parameters.batch });
    }
    let holders: Vec<usize> =
        plan.order.iter().copied().filter(|&v| !plan.assignment[v].is_empty()).collect();
    let schedule = Schedule::named(schedule, holders.len(), 1, micro_batches)?;
    let in_flight = (0..holders.len()).map(|rank| schedule.in_flight(rank)).collect();
    let mut world = WorldBuilder::new();
    world.host_class(classes.host);
    world.tail_class(classes.waiting);
    let borders = add_borders(graph, cluster, plan, &holders, options, &mut world);
    for (rank, &v) in holders.iter().enumerate() {
        let vehicle = &cluster.vehicles[v];
        let mut lowering = Lowering {
            builder: ProgramBuilder::new(&vehicle.id),
            classes,
            parts: parts(graph, vehicle, &plan.assignment[v], options)?,
        };
        lowering.allocate(graph, &plan.assignment[v]);
        let mut groups = Vec::new();
        let upstream = rank.checked_sub(1).map(|b| lowering.enter(&borders[b], &mut groups));
        let downstream = borders.get(rank).map(|border| lowering.enter(border, &mut groups));
        for &action in &schedule.stages[rank] {
            lowering.play(action, upstream.as_ref(), downstream.as_ref());
        }
        let program = world.program(lowering.builder.build()?);
        // Whole bytes on both sides, rounded down: what fits as real numbers fits.
        let memory_capacity = Some(vehicle.memory as u64);
        world.rank(RankSpec { program, groups, memory_capacity, queue_depth: 0, multiplicity: 1 });
    }
    Ok(PathReplay { world: world.build()?, vehicles: holders, in_flight })
}

/// The link between two holders that follow each other, and the two groups that meet over it.
struct Border {
    forward: GroupId,
    backward: GroupId,
    forward_name: String,
    backward_name: String,
    /// Bytes of a micro-batch, either way.
    bytes: u64,
}

fn add_borders(
    graph: &ComponentGraph,
    cluster: &VehicleCluster,
    plan: &PathPlan,
    holders: &[usize],
    options: &ReplayOptions,
    world: &mut WorldBuilder,
) -> Vec<Border> {
    let samples = f64::from(options.parameters.batch / options.micro_batches);
    let border = |pair: &[usize]| {
        let (sender, receiver) = (&cluster.vehicles[pair[0]], &cluster.vehicles[pair[1]]);
        let link = world.link(&sender.id, sender.communication, SimTime::ZERO);
        let volume = volume(graph, &plan.assignment[pair[0]]);
        Border {
            forward: world.group(2, vec![LinkUse { link, weight: 1 }]),
            backward: world.group(2, vec![LinkUse { link, weight: 1 }]),
            forward_name: name(&format!("{}>{}", sender.id, receiver.id)),
            backward_name: name(&format!("{}>{}", receiver.id, sender.id)),
            bytes: (volume * samples * options.parameters.overhead).round() as u64,
        }
    };
    holders.windows(2).map(border).collect()
}

/// What a vehicle computes for each micro-batch, in its order.
struct Part {
    name: String,
    forward: SimTime,
    backward: SimTime,
}

fn parts(
    graph: &ComponentGraph,
    vehicle: &Vehicle,
    held: &[usize],
    options: &ReplayOptions,
) -> Result<Vec<Part>, ReplayError> {
    let part = |&p: &usize| {
        let partition = &graph.partitions[p].name;
        let seconds = compute_seconds(flops(graph, &[p]), vehicle, &options.parameters)
            / f64::from(options.micro_batches);
        let time = |seconds| {
            SimTime::from_seconds(seconds).map_err(|error| ReplayError::Time {
                vehicle: vehicle.id.clone(),
                partition: partition.clone(),
                error,
            })
        };
        let forward = seconds * FORWARD_SHARE;
        Ok(Part { name: name(partition), forward: time(forward)?, backward: time(seconds - forward)? })
    };
    held.iter().map(part).collect()
}

/// A name as it stands in a label.
fn name(text: &str) -> String {
    text.replace('|', "/")
}

/// A rank's end of a [`Border`]. Every direction has its stream, so that no transfer queues behind another
/// one that waits for something else.
struct End {
    forward: Way,
    backward: Way,
    bytes: u64,
}

struct Way {
    stream: Stream,
    channel: Channel,
    name: String,
}

/// One vehicle's program in the making.
struct Lowering<'a> {
    builder: ProgramBuilder,
    classes: &'a ReplayClasses,
    parts: Vec<Part>,
}

/// The first stream of every program.
const COMPUTE: Stream = Stream(0);

impl Lowering<'_> {
    /// Opens the compute stream and puts the partitions in memory.
    fn allocate(&mut self, graph: &ComponentGraph, held: &[usize]) {
        self.builder.stream("compute");
        for &p in held {
            let label = self.builder.label(&graph.partitions[p].name);
            let tensor = self.builder.tensor(graph.partition_capacity(p) as u64, CAPACITY, label);
            self.builder.alloc(COMPUTE, tensor);
        }
    }

    fn enter(&mut self, border: &Border, groups: &mut Vec<GroupId>) -> End {
        let mut way = |group: GroupId, name: &String| {
            groups.push(group);
            let stream = self.builder.stream(name);
            Way { stream, channel: self.builder.channel(name), name: name.clone() }
        };
        End {
            forward: way(border.forward, &border.forward_name),
            backward: way(border.backward, &border.backward_name),
            bytes: border.bytes,
        }
    }

    fn play(&mut self, action: Action, upstream: Option<&End>, downstream: Option<&End>) {
        match action {
            Action::Forward { micro_batch: m, .. } => {
                self.receive(upstream.map(|end| (&end.forward, end.bytes)), m);
                for part in &self.parts {
                    let label = self.builder.label(&format!("{}|forward|{m}", part.name));
                    let class = self.classes.compute_forward;
                    self.builder.kernel(COMPUTE, class, label, part.forward, SimTime::ZERO);
                }
                self.send(downstream.map(|end| (&end.forward, end.bytes)), m);
            }
            // A vehicle's backward is one piece.
            Action::BackwardWeight { .. } => {}
            Action::Backward { micro_batch: m, .. } | Action::BackwardInput { micro_batch: m, .. } => {
                self.receive(downstream.map(|end| (&end.backward, end.bytes)), m);
                for part in self.parts.iter().rev() {
                    let label = self.builder.label(&format!("{}|backward|{m}", part.name));
                    let class = self.classes.compute_backward;
                    self.builder.kernel(COMPUTE, class, label, part.backward, SimTime::ZERO);
                }
                self.send(upstream.map(|end| (&end.backward, end.bytes)), m);
            }
        }
    }

    fn receive(&mut self, from: Option<(&Way, u64)>, micro_batch: u32) {
        let Some((way, bytes)) = from else { return };
        self.meet(way, bytes, micro_batch, Message::Receive);
        let arrived = self.builder.record(way.stream);
        self.builder.wait(COMPUTE, arrived);
    }

    fn send(&mut self, to: Option<(&Way, u64)>, micro_batch: u32) {
        let Some((way, bytes)) = to else { return };
        let computed = self.builder.record(COMPUTE);
        self.builder.wait(way.stream, computed);
        self.meet(way, bytes, micro_batch, Message::Send);
    }

    fn meet(&mut self, way: &Way, bytes: u64, micro_batch: u32, message: Message) {
        let label = self.builder.label(&format!("{}|send_receive|{micro_batch}", way.name));
        let ReplayClasses { transfer, waiting, .. } = *self.classes;
        self.builder.rendezvous(way.stream, way.channel, transfer, waiting, label, SimTime::ZERO, bytes);
        self.builder.note(Note { kind: message.number(), bytes });
    }
}

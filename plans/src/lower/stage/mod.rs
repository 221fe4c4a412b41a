//! The program of one pipeline stage: what every data-parallel rank of that stage does in a step.

mod channels;
mod data_parallel;
mod detail;
mod fetch;
mod gradients;
mod groups;
mod hooks;
mod labels;
mod library;
mod lists;
mod matrices;
mod meetings;
mod norms;
mod offload;
mod pairs;
mod passes;
mod pipeline;
mod repeat;
mod replicas;
mod tensor;
mod whole;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Range;

use steptime_clusters::{Cluster, CollectiveKind, Framework, Transfer};
use steptime_core::{
    Category, Channel, Class, Event, Label, Program, ProgramBuilder, SimTime, Stream, Tensor,
};
use steptime_models::{Bytes, LayerRole, Model, Parameter, Pass};

pub use self::detail::MemoryMarks;
use self::detail::Owned;
use self::fetch::{Gathered, Release};
pub(super) use self::offload::check_offload;
use self::offload::{HostStreams, Stashes};
use self::pairs::Pairs;
pub(super) use self::passes::deferred;
use self::pipeline::{Transfers, transfers};
use self::repeat::Repeats;
use self::whole::WholePasses;
use super::Grain;
use super::cost::{Cost, LayerCost, ModelCost, OpCost, Pricer};
use super::host_ports::HostPath;
use super::placement::{Along, Placements};
use super::views::Links;
use crate::bucket::{Bucket, Share};
use crate::classes;
use crate::error::PlanError;
use crate::offload::HostUse;
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::workload::{Task, Workload};
use crate::zero::{Held, StateBytes, ZeroStage, state_bytes};

/// Everything that the program of a stage depends on.
pub(super) struct StageInput<'a> {
    pub(super) model: &'a Model,
    pub(super) cluster: &'a Cluster,
    /// What its groups and transfers are priced by.
    pub(super) links: Links<'a>,
    pub(super) plan: &'a Plan,
    pub(super) workload: &'a Workload,
    pub(super) costs: &'a ModelCost,
    /// Costs of the last micro-batch, where it is smaller than the others.
    pub(super) short: Option<&'a ModelCost>,
    pub(super) schedule: &'a Schedule,
    pub(super) stage: usize,
    /// Chunks of layers, in the order of forward.
    pub(super) chunks: Vec<Chunk>,
    /// Where the stage's groups sit, by [`Along`].
    pub(super) placements: Placements,
    /// What the program says of memory.
    pub(super) grain: Grain,
    /// Whether passes that do the same are written once and copied.
    pub(super) repeats: bool,
    /// The last layer's stage.
    pub(super) head_stage: usize,
    /// Whether the first stage and the last hold copies of one embedding, and whether those lie on two nodes.
    pub(super) tied_embedding: Option<bool>,
    /// Whether another stage holds copies of all of this one's layers, and whether that lies on another node.
    pub(super) opposite: Option<bool>,
    /// What is asked for again and again, once it has been: [`StageInput::held`], by share, and the parameters that the stage
    /// owns, by layer.
    pub(super) held: [OnceCell<Held>; 2],
    pub(super) owned: OnceCell<Vec<Vec<Owned>>>,
}

/// Consecutive layers on a stage.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) layers: Range<usize>,
    /// Stages of the layers before and after; of the ends the chunk's own.
    pub(super) neighbours: [usize; 2],
    /// Whether the layers before and after are on other stages, and then whether the link to them leaves the node.
    pub(super) crosses: [Option<bool>; 2],
}

impl StageInput<'_> {
    /// Costs of a layer for one of the step's micro-batches.
    pub(super) fn cost(&self, layer: usize, micro_batch: u32) -> &LayerCost {
        let last = micro_batch + 1 == self.schedule.micro_batches;
        self.short.filter(|_| last).unwrap_or(self.costs).layer(layer)
    }

    /// Samples of one of the step's micro-batches.
    fn samples(&self, micro_batch: u32) -> u64 {
        let last = self.workload.last_micro_batch_size;
        let short = last.filter(|_| micro_batch + 1 == self.schedule.micro_batches);
        short.unwrap_or(self.workload.micro_batch_size)
    }

    fn holds_embedding(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.layers.start == 0)
    }

    fn holds_head(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.layers.end == self.model.layers.len())
    }

    /// Layers of the stage, in the order of forward.
    pub(super) fn layers(&self) -> impl Iterator<Item = usize> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.layers.clone())
    }

    /// Which of the stage's chunks has the layer.
    fn chunk_of(&self, layer: usize) -> Option<usize> {
        self.chunks.iter().position(|chunk| chunk.layers.contains(&layer))
    }

    /// Place of a layer among the stage's.
    fn slot(&self, layer: usize) -> usize {
        let before = self.chunks.iter().take_while(|chunk| !chunk.layers.contains(&layer));
        let passed: usize = before.map(|chunk| chunk.layers.len()).sum();
        let start = self.chunks.iter().find(|chunk| chunk.layers.contains(&layer));
        passed + start.map_or(0, |chunk| layer - chunk.layers.start)
    }

    fn training(&self) -> bool {
        self.workload.task == Task::Training
    }

    /// Values that a rank of the stage holds before data parallelism partitions any.
    pub(super) fn parameters(&self) -> u64 {
        self.layers().map(|layer| self.count(layer, |it| self.owns(it))).sum()
    }

    /// Those of [`StageInput::parameters`] that are trained.
    pub(super) fn trained_parameters(&self) -> u64 {
        self.layers().map(|layer| self.layer_trained(layer)).sum()
    }

    fn trained_tensors(&self) -> u64 {
        self.layers().map(|layer| self.layer_trained_tensors(layer)).sum()
    }

    fn layer_trained_tensors(&self, layer: usize) -> u64 {
        let division = self.plan.division();
        let parameters = self.model.layers[layer].parameters.iter();
        parameters.filter(|it| it.trainable && self.owns(it) && it.held_in(&division) > 0).count() as u64
    }

    /// Trained values of one layer as this stage holds it.
    fn layer_trained(&self, layer: usize) -> u64 {
        self.count(layer, |it| it.trainable && self.owns(it))
    }

    /// Trained values of one layer that its backward makes gradients of, those of a shared embedding counted.
    fn used_trained(&self, layer: usize) -> u64 {
        self.count(layer, |it| it.trainable)
    }

    /// Whether a parameter is not merely another name of the embedding that the stage holds.
    fn owns(&self, parameter: &Parameter) -> bool {
        !(parameter.tied && self.holds_embedding())
    }

    /// This rank's values in those parameters of a layer that are wanted.
    fn count(&self, layer: usize, wanted: impl Fn(&Parameter) -> bool) -> u64 {
        let division = self.plan.division();
        let parameters = self.model.layers[layer].parameters.iter();
        parameters.filter(|it| wanted(it)).map(|it| it.held_in(&division)).sum()
    }

    /// Bytes of model states that a rank of the stage holds all the time.
    pub(super) fn states(&self) -> StateBytes {
        let states = self.shares().map(|share| {
            let ranks = self.ranks(share);
            state_bytes(self.workload, self.plan.zero, ranks, self.held(share))
        });
        states.fold(StateBytes::default(), StateBytes::plus)
    }
}

/// Groups that a stage's ranks meet in, in the order of their channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// Ranks of the stage.
    Group(Along),
    /// The ranks that share the stage's layers, passing parts round a ring.
    Pieces,
    /// This chunk sends activations to the next one.
    ForwardOut(usize),
    /// This chunk receives activations from the previous one.
    ForwardIn(usize),
    /// This chunk sends gradients to the previous one.
    BackwardOut(usize),
    /// This chunk receives gradients from the next one.
    BackwardIn(usize),
    /// The first and the last stage add their copies' gradients of a shared embedding.
    Embedding,
    /// The stage and the one opposite to it add the gradients of their copies of the same layers.
    Opposite,
    /// The rank alone, with its host.
    Host(HostPath),
}

/// A stage's program and the meetings that its channels stand for.
pub(super) struct StageProgram {
    pub(super) program: Program,
    pub(super) meetings: Vec<Meeting>,
    pub(super) marks: MemoryMarks,
    pub(super) host: HostUse,
    /// Entries of the launch queue that its kernels and collectives take.
    pub(super) entries: u64,
}

struct Streams {
    compute: Stream,
    collective: Stream,
    /// Sums over groups that partition the states, which run beside what happens within them.
    replicas: Stream,
    /// Collectives of tensor parallelism that run beside the compute.
    tensor: Stream,
    /// Of each chunk.
    transfers: Vec<Transfers>,
    /// Keys and values on their way round a ring.
    ring: Stream,
    /// Of what is offloaded.
    host: HostStreams,
}

pub(super) struct StageBuilder<'a> {
    input: &'a StageInput<'a>,
    pricer: Pricer<'a>,
    program: ProgramBuilder,
    streams: Streams,
    meetings: Vec<(Meeting, Channel)>,
    buckets: Vec<(Share, Bucket)>,
    /// Bytes of a stored weight, and of a gradient as it is kept and reduced.
    storage: u64,
    gradient: u64,
    /// Open activations: `[layer - first][micro-batch]` tensors, indexed as the layer's saved tensors.
    open: Vec<Vec<Option<Vec<Option<Tensor>>>>>,
    /// With ZeRO 3, units that are whole and not done with, oldest first.
    gathered: Vec<Gathered>,
    /// Those whose compute has been issued.
    releases: Vec<Release>,
    /// Layers whose gradients have been made and not reduced.
    unsent: Vec<usize>,
    /// In detail, whether the layer at hand is still to make its whole gradients, and those that it has made.
    whole_due: bool,
    whole: Option<Tensor>,
    /// Gradient of a shared embedding as the head has made it, until the embedding has added its own.
    tied_gradient: Option<Tensor>,
    /// What each stream sent last; freed when the next one is sent.
    sent: Vec<(Stream, Tensor)>,
    /// Of each chunk.
    backwards_done: Vec<u32>,
    /// What passes over each layer ask for again and again.
    of_layers: Vec<OfLayer>,
    /// Labels of each layer's tensors, as far as they have been used.
    tensor_labels: Vec<Vec<(&'static str, Label)>>,
    /// By layer, where micro-batches go by one name: labels of its passes, by their kinds.
    pass_labels: Vec<Vec<(&'static str, Label)>>,
    /// The same of what belongs to no layer: name, kind and label.
    fixed_labels: Vec<(&'static str, &'static str, Label)>,
    /// Input batches on the device, by micro-batch.
    batches: Vec<Option<Tensor>>,
    /// Gradients that backward has made, where nothing holds them from step to step.
    grown: Vec<Tensor>,
    /// Masks that loaders made, by micro-batch and chunk.
    masks: Vec<Vec<(usize, Tensor)>>,
    /// When the transfer on the ring arrives, and whether an operation has been issued beside it.
    beside: Option<(Event, bool)>,
    marks: MemoryMarks,
    /// In detail, a layer's output on its way to the next layer.
    handed: Option<Tensor>,
    /// In detail, gradients of weights that are not added up yet, and how many values of the layer at hand they have.
    made: Vec<Tensor>,
    made_elements: u64,
    /// What the host holds.
    host: HostUse,
    /// Activations on their way to the host and back.
    stashes: Stashes,
    /// The text of the label at hand, and the numbers of micro-batches in digits.
    text: String,
    numbers: Vec<String>,
    /// Collectives that have been priced, by [`Along`], kind and bytes; and sends and receives.
    collectives: BTreeMap<(usize, CollectiveKind, u64), Transfer>,
    sends: Vec<(Meeting, u64, Transfer)>,
    /// Copies of buckets that have been priced, by their values and tensors.
    bucket_copies: BTreeMap<(u64, u64), OpCost>,
    /// Passes over layers that can be copied.
    repeats: Repeats,
    /// Passes over chunks that can be written again as they are.
    whole_passes: WholePasses,
    /// Forwards and backwards that are one.
    pairs: Pairs,
    /// Entries of the launch queue so far.
    entries: u64,
}

/// Facts of a layer that do not change from micro-batch to micro-batch.
#[derive(Clone, Copy)]
struct OfLayer {
    /// Routed experts of it that the rank holds.
    experts: u64,
    /// Its trained values as this stage holds them.
    trained: u64,
    /// Where hooks look after parameters: those that the rank holds a part of, and the modules that have any.
    tensors: u64,
    modules: u64,
    /// Adding its gradients to those of earlier micro-batches, once that has been priced.
    accumulation: Option<OpCost>,
}

impl OfLayer {
    fn new(input: &StageInput<'_>, layer: usize, hooked: bool) -> Self {
        let all = input.model.layers[layer].parameters.iter().find_map(|it| it.expert);
        Self {
            experts: all.map_or(0, |place| place.of.div_ceil(input.plan.expert.max(1))),
            trained: input.layer_trained(layer),
            tensors: if hooked { input.tensors(layer, |_| true).count() as u64 } else { 0 },
            modules: if hooked { input.modules(layer) } else { 0 },
            accumulation: None,
        }
    }
}

/// Builds the program of a stage.
pub(super) fn build(input: &StageInput<'_>, pricer: Pricer<'_>) -> Result<StageProgram, PlanError> {
    let name = format!("stage {}", input.stage);
    let mut program = match input.grain {
        Grain::Times => ProgramBuilder::without_memory(&name),
        Grain::Curve | Grain::Blocks | Grain::Sizes => ProgramBuilder::new(&name),
    };
    let compute = program.stream("compute");
    let streams = Streams {
        compute,
        ring: if input.plan.context > 1 { program.stream("ring") } else { compute },
        collective: program.stream("collectives"),
        replicas: if input.plan.shard_copies() > 1 { program.stream("replicas") } else { compute },
        tensor: program.stream("tensor parallel"),
        transfers: transfers(&mut program, input),
        host: HostStreams::open(&mut program, input, compute),
    };
    let stream = input.joins_passes().then(|| program.stream("exchanges"));
    let pairs = Pairs::on(stream);
    let storage = input.workload.parameter_format().bytes();
    let gradient = input.workload.gradients().bytes();
    let cap = input.plan.bucket_cap(input.workload);
    let early = input.plan.zero == ZeroStage::Zero && input.plan.gradient_overlap;
    let first_cap = if early { 1 << 20 } else { cap };
    let buckets = input.buckets(gradient, [first_cap, cap]);
    let micro_batches = input.schedule.micro_batches as usize;
    let hooked = input.hooked();
    let mut builder = StageBuilder {
        input,
        pricer,
        program,
        streams,
        meetings: Vec::new(),
        buckets,
        storage,
        gradient,
        open: vec![vec![None; micro_batches]; input.layers().count()],
        gathered: Vec::new(),
        releases: Vec::new(),
        unsent: Vec::new(),
        whole_due: false,
        whole: None,
        tied_gradient: None,
        of_layers: input.layers().map(|layer| OfLayer::new(input, layer, hooked)).collect(),
        tensor_labels: vec![Vec::new(); input.layers().count()],
        pass_labels: vec![Vec::new(); input.layers().count()],
        fixed_labels: Vec::new(),
        sent: Vec::new(),
        backwards_done: vec![0; input.chunks.len()],
        batches: vec![None; micro_batches],
        grown: Vec::new(),
        masks: vec![Vec::new(); micro_batches],
        beside: None,
        marks: MemoryMarks::default(),
        handed: None,
        made: Vec::new(),
        made_elements: 0,
        host: input.host_use(),
        stashes: Stashes::default(),
        text: String::new(),
        numbers: (0..micro_batches).map(|number| number.to_string()).collect(),
        collectives: BTreeMap::new(),
        sends: Vec::new(),
        bucket_copies: BTreeMap::new(),
        repeats: Repeats::default(),
        whole_passes: WholePasses::default(),
        pairs,
        entries: 0,
    };
    builder.open_channels();
    builder.hold_states();
    builder.marks.first_pass = builder.program.memory_steps();
    builder.passes()?;
    builder.hold_received();
    builder.marks.update = builder.program.memory_steps();
    if input.training() {
        builder.update()?;
    }
    builder.retire_all();
    builder.join_pairs();
    builder.contend();
    let meetings = builder.meetings.iter().map(|&(meeting, _)| meeting).collect();
    let StageBuilder { program, marks, host, entries, .. } = builder;
    Ok(StageProgram { program: program.build()?, meetings, marks, host, entries })
}

impl StageBuilder<'_> {
    /// Allocates a tensor that lives to the end of the step.
    fn hold(&mut self, name: &str, bytes: u64, category: Category) {
        if bytes > 0 {
            let label = self.program.label(name);
            let tensor = self.program.tensor(bytes, category, label);
            self.program.alloc(self.streams.compute, tensor);
        }
    }

    /// What a rank holds from the first moment on.
    fn hold_states(&mut self) {
        let input = self.input;
        let states = input.device_states();
        self.hold("CUDA context", input.cluster.gpu.context.0, classes::CONTEXT);
        if self.detailed() {
            self.hold_pieces();
        } else {
            self.hold("parameters", states.parameters, classes::PARAMETERS);
            if !self.grows_gradients() {
                self.hold("gradients", states.gradients, classes::GRADIENTS);
            }
            self.hold("optimizer states", states.optimizer_states, classes::OPTIMIZER_STATES);
        }
        let stated: Bytes = input.layers().map(|layer| input.model.layers[layer].stated_memory).sum();
        self.hold("component memory as stated", stated.0, classes::PARAMETERS);
        // Megatron-LM makes them in its update.
        if input.training() && input.workload.framework != Framework::Megatron {
            self.hold("32-bit gradients", self.unscaled_gradients(), classes::GRADIENTS);
        }
        self.hold("low-precision weights", input.converted_weights(), classes::BUFFERS);
        self.hold("second copy of parameters", input.second_copy(), classes::PARAMETERS);
        self.hold_library();
        let of_ddp = input.workload.framework == Framework::Nanotron && input.plan.zero <= ZeroStage::One;
        if self.copies_buckets() || self.reduces() && of_ddp {
            for bucket in self.reduced_buckets().collect::<Vec<_>>() {
                self.hold("gradient buckets", bucket.elements * self.storage, classes::BUFFERS);
            }
        }
    }

    /// Whether gradients are copied into buckets of their own for reduction.
    fn copies_buckets(&self) -> bool {
        let plan = self.input.plan;
        // Gradients wider than the weights are added up in buffers that are the buckets.
        let own = self.gradient == self.storage && !self.input.workload.accumulation_fusion;
        self.reduces() && plan.zero == ZeroStage::Zero && !plan.gradient_as_bucket_view && own
    }

    /// Whether there is anybody to reduce gradients with.
    fn reduces(&self) -> bool {
        self.input.shares().any(|share| self.reduces_share(share))
    }

    fn kernel(&mut self, class: Class, label: Label, cost: OpCost) -> Result<(), PlanError> {
        self.kernel_on(self.streams.compute, class, label, cost);
        if cost.host_sync { self.wait_for_device(label) } else { Ok(()) }
    }

    /// The host waits until the compute stream has done everything.
    fn wait_for_device(&mut self, label: Label) -> Result<(), PlanError> {
        self.program.host_sync(self.streams.compute);
        let latency = SimTime::from_seconds(self.input.cluster.host.sync_latency_s)?;
        self.program.host(latency, classes::HOST, label);
        Ok(())
    }

    fn kernel_on(&mut self, stream: Stream, class: Class, label: Label, cost: OpCost) {
        self.entries += cost.launches;
        for (duration, issue) in [Some(cost.first), cost.last].into_iter().flatten() {
            self.program.kernel(stream, class, label, duration, issue);
            if cost.by_memory {
                self.program.limited_by_memory();
            }
        }
    }

    /// An operation of a layer: kernels, or a transfer among the ranks of a group.
    fn operation(&mut self, class: Class, label: Label, cost: Cost) -> Result<(), PlanError> {
        self.pass_ring();
        match cost {
            Cost::Kernel(cost) => self.kernel(class, label, cost),
            Cost::Exchange(exchange) => self.exchange(label, exchange),
            Cost::Ring(ring) => self.ring_of_pieces(class, label, &ring),
            Cost::Done => Ok(()),
        }
    }

    /// What the framework's Python takes the host around the launches of a block's pass.
    fn issue_block(&mut self, layer: usize, pass: Pass, label: Label) -> Result<(), PlanError> {
        if self.input.model.layers[layer].role != LayerRole::Block {
            return Ok(());
        }
        let cost = self.pricer.framework();
        let experts = self.held_experts(layer);
        let routed = if experts > 0 { cost.routing_s } else { 0.0 };
        let one_by_one =
            if self.input.workload.sequential_experts { experts as f64 * cost.expert_s } else { 0.0 };
        let block = match pass {
            Pass::Forward => cost.block_forward_s,
            Pass::Backward => cost.block_backward_s,
        };
        let seconds = block + routed + one_by_one;
        if seconds > 0.0 {
            self.program.host(SimTime::from_seconds(seconds)?, classes::HOST, label);
        }
        Ok(())
    }

    /// Routed experts of a layer that the rank holds.
    fn held_experts(&self, layer: usize) -> u64 {
        self.of_layers[self.input.slot(layer)].experts
    }

    /// Trained values of a layer as this stage holds it.
    fn trained(&self, layer: usize) -> u64 {
        self.of_layers[self.input.slot(layer)].trained
    }
}

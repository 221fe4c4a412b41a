//! Every block that a framework asks its allocator for: states tensor by tensor, temporaries operation by operation.
//!
//! The programs that are played for time hold states in one piece and a layer's temporaries in two, which costs the
//! player little and leaves sums and peaks of bytes right. A caching allocator, though, answers to sizes and their
//! order. Where a stage is built in detail, these functions put the blocks in the place of the pieces.

use steptime_clusters::Framework;
use steptime_core::{Category, Tensor};
use steptime_models::{ExchangeKind, Kernel, LayerRole, Parameter, Pass, Temporary};

use super::{StageBuilder, StageInput};
use crate::bucket::Share;
use crate::classes;
use crate::lower::Grain;
use crate::lower::cost::{Cost, LayerCost};
use crate::zero::ZeroStage;

/// Places in the order of a rank's allocations and frees; see [`steptime_core::ProgramBuilder::memory_steps`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryMarks {
    /// Those before belong to the start of the job, not to a step.
    pub first_pass: usize,
    /// Where the first of the states begins that the optimizer makes in its first update, and where they end: optimizers
    /// of PyTorch make their moments when they first see gradients.
    pub moments: [usize; 2],
    /// Where the update begins.
    pub update: usize,
}

/// How states of parameters lie in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// A block for each parameter.
    Parameter,
    /// One for the parameters of a layer, as FSDP flattens them.
    Layer,
    /// One for all.
    All,
}

/// States of the parameters of a rank.
struct States {
    piece: Piece,
    name: &'static str,
    category: Category,
}

impl StageInput<'_> {
    fn is_detailed(&self) -> bool {
        matches!(self.grain, Grain::Blocks | Grain::Sizes)
    }

    /// For each parameter of a layer that the stage owns: its elements on this rank, the ranks that partition them, and
    /// whether it is trained.
    fn owned(&self, layer: usize) -> &[Owned] {
        let owned = self.owned.get_or_init(|| self.layers().map(|layer| self.owned_in(layer)).collect());
        owned.get(self.slot(layer)).map_or(&[], Vec::as_slice)
    }

    fn owned_in(&self, layer: usize) -> Vec<Owned> {
        let division = self.plan.division();
        let in_block = self.model.layers[layer].role == LayerRole::Block;
        let owned = |parameter: &Parameter| {
            let elements = parameter.held_in(&division);
            let share = self.shares().find(|share| share.contains(parameter, &division));
            let ranks = self.ranks(share.unwrap_or(Share::Common)).max(1);
            let matrix = in_block && parameter.dimensions.len() == 2;
            let persists = self.persists(parameter);
            Owned { elements, ranks, trained: parameter.trainable, matrix, persists }
        };
        let parameters = self.model.layers[layer].parameters.iter();
        parameters.filter(|it| self.owns(it)).map(owned).filter(|it| it.elements > 0).collect()
    }

    /// Elements of a layer's gradients that this rank keeps: one piece, or in detail those of each parameter, unless
    /// FSDP has flattened them.
    pub(super) fn gradient_pieces(&self, layer: usize, partitioned: bool) -> Vec<u64> {
        let each: Vec<u64> = if self.is_detailed() && !partitioned {
            self.owned(layer).iter().filter(|it| it.trained).map(|it| it.elements).collect()
        } else if partitioned {
            vec![self.partitioned_trained(layer)]
        } else {
            vec![self.layer_trained(layer)]
        };
        each.into_iter().filter(|elements| *elements > 0).collect()
    }

    /// How parameters, gradients, copies in 32 bits and moments lie in memory.
    ///
    /// FSDP flattens a layer's; DeepSpeed's ZeRO flattens all; Megatron-LM's buffers hold all gradients, and with the
    /// distributed optimizer all weights (`_ParamAndGradBuffer`), while its states are the parameters' own; nanotron's
    /// gradients and copies are one buffer each (`FP32GradientAccumulator`). Without any of them every parameter has its own.
    fn pieces(&self) -> [Piece; 4] {
        let partitioned = matches!(self.plan.zero, ZeroStage::One | ZeroStage::Two);
        match self.workload.framework {
            _ if self.plan.zero == ZeroStage::Three => [Piece::Layer; 4],
            Framework::Megatron => {
                let weights = if partitioned { Piece::All } else { Piece::Parameter };
                [weights, Piece::All, Piece::Parameter, Piece::Parameter]
            }
            Framework::Nanotron => [Piece::Parameter, Piece::All, Piece::All, Piece::Parameter],
            Framework::PyTorch if partitioned => [Piece::All; 4],
            Framework::PyTorch => [Piece::Parameter; 4],
        }
    }
}

/// A parameter as a rank holds it.
#[derive(Clone, Copy)]
pub(in crate::lower) struct Owned {
    elements: u64,
    /// Among which ZeRO partitions it.
    ranks: u64,
    trained: bool,
    /// Whether it is a matrix of a block, which some optimizers treat by themselves.
    matrix: bool,
    /// Whether its values stay whole.
    persists: bool,
}

impl Owned {
    /// What a rank holds of it when it is partitioned or not.
    fn part(self, partitioned: bool) -> u64 {
        if partitioned { self.elements.div_ceil(self.ranks) } else { self.elements }
    }
}

impl StageBuilder<'_> {
    /// Whether every block is asked for by itself.
    pub(super) fn detailed(&self) -> bool {
        self.input.is_detailed()
    }

    /// What a rank holds from the start on: weights, gradients, copies of the weights; and the moments, which
    /// [`MemoryMarks::moments`] tells from them.
    pub(super) fn hold_pieces(&mut self) {
        let input = self.input;
        let zero = input.plan.zero;
        let training = input.training();
        let [weights, gradients, copies, moments] = input.pieces();
        let storage = self.storage;
        let states = States { piece: weights, name: "parameters", category: classes::PARAMETERS };
        if !input.offloads_parameters() {
            self.hold_state(&states, |it| storage * it.part(zero == ZeroStage::Three && !it.persists));
        }
        if !training {
            return;
        }
        let gradient = self.gradient;
        let trained =
            |it: &Owned, bytes: u64, from| if it.trained { bytes * it.part(zero >= from) } else { 0 };
        let states = States { piece: gradients, name: "gradients", category: classes::GRADIENTS };
        let offloaded = input.offloads_optimizer();
        if (!offloaded || zero < ZeroStage::Two) && !self.grows_gradients() {
            self.hold_state(&states, |it| trained(it, gradient, ZeroStage::Two));
        }
        if input.workload.has_master_copy() && !offloaded {
            let category = classes::OPTIMIZER_STATES;
            let states = States { piece: copies, name: "32-bit copies of the weights", category };
            self.hold_state(&states, |it| trained(it, 4, ZeroStage::One));
        }
        self.marks.moments[0] = self.program.memory_steps();
        let optimizer = input.workload.optimizer;
        let kept = if offloaded { 0 } else { optimizer.moments().max(optimizer.matrix_moments()) };
        for number in 0..kept {
            let bytes = |it: &Owned| {
                let of = if it.matrix { optimizer.matrix_moments() } else { optimizer.moments() };
                if number < of { trained(it, 4, ZeroStage::One) } else { 0 }
            };
            let category = classes::OPTIMIZER_STATES;
            self.hold_state(&States { piece: moments, name: "optimizer states", category }, bytes);
        }
        self.marks.moments[1] = self.program.memory_steps();
    }

    /// Allocates one state of all parameters in its pieces.
    fn hold_state(&mut self, states: &States, bytes: impl Fn(&Owned) -> u64) {
        let mut all = 0;
        for layer in self.input.layers().collect::<Vec<_>>() {
            let each: Vec<u64> = self.input.owned(layer).iter().map(&bytes).collect();
            match states.piece {
                Piece::Parameter => {
                    for bytes in each {
                        self.hold_in(layer, states, bytes);
                    }
                }
                Piece::Layer => self.hold_in(layer, states, each.iter().sum()),
                Piece::All => all += each.iter().sum::<u64>(),
            }
        }
        self.hold(states.name, all, states.category);
    }

    /// Bytes of the lists of an update that makes so many for each value, as the moments lie in memory.
    pub(super) fn update_pieces(&self, each: u64) -> Vec<u64> {
        let input = self.input;
        let partitioned = input.plan.zero >= ZeroStage::One;
        let of_layer = |layer| {
            let owned = input.owned(layer).iter().filter(|it| it.trained);
            owned.map(|it| each * it.part(partitioned)).collect::<Vec<u64>>()
        };
        let layers = input.layers().map(of_layer);
        match input.pieces()[3] {
            Piece::Parameter => layers.flatten().collect(),
            Piece::Layer => layers.map(|each| each.iter().sum()).collect(),
            Piece::All => vec![layers.flatten().sum()],
        }
    }

    fn hold_in(&mut self, layer: usize, states: &States, bytes: u64) {
        if bytes > 0 {
            let label = self.tensor_label(layer, states.name);
            let tensor = self.program.tensor(bytes, states.category, label);
            self.program.alloc(self.streams.compute, tensor);
        }
    }

    /// The short-lived tensors that operation `index` of a pass makes.
    pub(super) fn births<'t>(
        &mut self,
        layer: usize,
        lives: impl Iterator<Item = &'t Temporary>,
        index: usize,
        alive: &mut Vec<Alive>,
    ) {
        if !self.detailed() {
            return;
        }
        for life in lives.filter(|life| life.born == index) {
            if life.pass == Pass::Backward && self.nanotron_gathers(layer, Pass::Backward, index) {
                // Into a buffer that all layers share ([`StageBuilder::hold_library`]).
                continue;
            }
            let label = self.tensor_label(layer, life.name);
            let tensor = self.program.tensor(life.bytes.0, classes::WORKSPACE, label);
            self.program.alloc(self.streams.compute, tensor);
            alive.push(Alive { tensor, born: life.born, freed: life.freed, sent: life.sent });
        }
    }

    /// Whether operation `index` of a pass is one of nanotron's gathers, which it starts and then waits for, computing
    /// what it can meanwhile (`tp_linear_async_communication`). In forward they make an array of their own, in backward
    /// they fill a shared buffer (`MemoryBuffer`).
    pub(super) fn nanotron_gathers(&self, layer: usize, pass: Pass, index: usize) -> bool {
        if self.input.workload.framework != Framework::Nanotron {
            return false;
        }
        let work = &self.input.costs.layer(layer).work;
        let operations = if pass == Pass::Forward { &work.forward } else { &work.backward };
        let gathers =
            |kernel: &Kernel| matches!(kernel, Kernel::Exchange { kind: ExchangeKind::AllGather, .. });
        operations.get(index).is_some_and(|operation| gathers(&operation.kernel))
    }

    /// The same of tensors that backward wants, and that recomputation of modules drops and makes again: they live to
    /// their last reader, those of the attention's core to its end.
    pub(super) fn births_of_dropped(
        &mut self,
        layer: usize,
        cost: &LayerCost,
        index: usize,
        alive: &mut Vec<Alive>,
    ) {
        if !self.detailed() || !self.input.training() || cost.bare.is_some() {
            return;
        }
        let core = cost.work.forward.iter().rposition(steptime_models::Operation::is_attention_core);
        for slot in 0..cost.work.saved.len() {
            let tensor = &cost.work.saved[slot];
            if cost.kept[slot] || tensor.born != index {
                continue;
            }
            if let Some(tensor) = self.activation(layer, tensor.name, tensor.bytes.0) {
                let within = core.filter(|_| cost.work.saved[slot].is_attention_core());
                let freed = within.unwrap_or(cost.work.saved[slot].last_read.max(index));
                alive.push(Alive { tensor, born: index, freed, sent: false });
            }
        }
    }

    /// Frees those that no operation after `index` reads.
    pub(super) fn deaths(&mut self, index: usize, alive: &mut Vec<Alive>) {
        let mut at = 0;
        while at < alive.len() {
            if alive[at].freed == index {
                let life = alive.remove(at);
                self.free_sent(Some(life.tensor), life.sent);
            } else {
                at += 1;
            }
        }
    }

    /// A collective beside the computation is about to start: what it reads and makes is recorded on its stream.
    pub(super) fn sends(index: usize, alive: &mut [Alive]) {
        for life in alive.iter_mut().filter(|life| life.born == index || life.freed == index) {
            life.sent = true;
        }
    }

    /// Frees what is left at the end of a pass.
    pub(super) fn bury(&mut self, alive: Vec<Alive>) {
        for life in alive {
            self.free_sent(Some(life.tensor), life.sent);
        }
    }

    /// Frees a tensor; one that a collective has sent or made is free when the collectives' stream gets past all it was
    /// given (`record_stream`).
    pub(super) fn free_sent(&mut self, tensor: Option<Tensor>, sent: bool) {
        let Some(tensor) = tensor else { return };
        if !(sent && self.detailed()) {
            self.program.free(self.streams.compute, tensor);
            return;
        }
        self.order(self.streams.compute, self.streams.tensor);
        self.program.free(self.streams.tensor, tensor);
    }

    /// The output of a layer's forward, which is the next one's input.
    pub(super) fn hand_on(&mut self, layer: usize, last: bool, bytes: u64) {
        if self.detailed() && self.input.training() && !last && bytes > 0 {
            self.handed = self.activation(layer + 1, "input", bytes);
        }
    }

    /// The gradient of a weight that a backward operation makes, in the format of the weights, before it is added to the
    /// others.
    pub(super) fn made_gradient(&mut self, layer: usize, cost: &LayerCost, index: usize) {
        if !self.makes_gradients() {
            return;
        }
        let operation = &cost.work.backward[index];
        if !operation.makes_weight_gradient() || !matches!(cost.backward[index], Cost::Kernel(_)) {
            return;
        }
        let left = self.trained(layer).saturating_sub(self.made_elements);
        let elements = match operation.kernel {
            Kernel::Gemm { batch, m, n, .. } => (batch * m * n).min(left),
            _ => return,
        };
        self.hold_gradient(layer, elements);
    }

    /// Gradients of the layer's other parameters: of norms, biases and embeddings.
    pub(super) fn other_gradients(&mut self, layer: usize) {
        if self.makes_gradients() {
            let left = self.trained(layer).saturating_sub(self.made_elements);
            self.hold_gradient(layer, left);
        }
        self.made_elements = 0;
    }

    fn hold_gradient(&mut self, layer: usize, elements: u64) {
        self.made_elements += elements;
        let bytes = elements * self.storage;
        if bytes > 0 {
            let label = self.tensor_label(layer, "gradients as they are made");
            let tensor = self.program.tensor(bytes, classes::GRADIENTS, label);
            self.program.alloc(self.streams.compute, tensor);
            self.made.push(tensor);
        }
    }

    /// Whether gradients of weights are tensors of their own before they are added up: not where products add to the
    /// buffer at once, nor where whole gradients are counted layer by layer, nor where the first micro-batch's are kept
    /// as they are.
    pub(super) fn makes_gradients(&self) -> bool {
        let input = self.input;
        let counted = input.plan.zero >= ZeroStage::Two && (self.reduces() || input.offloads_optimizer());
        let kept = self.gradient == self.storage && self.backwards_done.iter().all(|done| *done <= 1);
        self.detailed() && input.training() && !input.workload.accumulation_fusion && !counted && !kept
    }

    /// The gradients as they were made are added up: nanotron does it after the whole backward of a micro-batch
    /// (`FP32GradientAccumulator.backward`), others tensor by tensor.
    pub(super) fn drop_gradients(&mut self, after_all: bool) {
        if after_all || self.input.workload.framework != Framework::Nanotron {
            for tensor in std::mem::take(&mut self.made) {
                self.program.free(self.streams.compute, tensor);
            }
        }
    }
}

/// A short-lived tensor that is there.
pub(super) struct Alive {
    tensor: Tensor,
    born: usize,
    freed: usize,
    sent: bool,
}

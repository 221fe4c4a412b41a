//! Pipeline schedules as data: for each stage the order of its passes.
//!
//! A backward is one pass, or two: the gradients of its inputs, for which the stage before waits, and those of its
//! weights, for which nobody waits and which can fill idle time (Qi et al. 2024, Zero Bubble, section 2). For `p` equal
//! stages, `m` micro-batches, free links and passes that take `F`, `B` (inputs) and `W` (weights), a stage is idle for
//!
//! | schedule | idle time of a stage between its first pass and its last | activations of micro-batches held |
//! | --- | --- | --- |
//! | GPipe | `(p - 1) (F + B + W)` | `m` |
//! | 1F1B | `(p - 1) (F + B + W)` | `min(p - s, m)` |
//! | interleaved 1F1B, `v` chunks | `(p - 1) (F + B + W) / v` | a little more |
//! | ZB-H1 | `(p - 1) (F + B - W)` | `p` |
//! | ZB-H2 | `(p - 1) (F + B - 2 W)`, at least 0 | `2 p - 1` |
//! | ZB-V, DualPipeV | 0 for equal passes | `p`, `p + 1/2` |
//! | DualPipe | `(p/2 - 1) (F&B + B' - 3 W)`, `F&B` a forward and a backward in one, `B' = B + W` | `p + 1` |
//! | Hanayo, `w` waves | less than 1F1B's, the less the more waves | `p` |
//! | V-Half, V-Min | see Qi et al. 2024, Controllable Memory, section 4 | about `p / 2`, `p / 3` |
//!
//! (Huang et al. 2019, section 2.3; Narayanan et al. 2021, section 2.2; Qi et al. 2024, sections 2 and 3.)

mod automatic;
mod building_block;
mod check;
mod classic;
mod timing;
mod v_shape;
mod waves;
mod written;
mod zero_bubble;

use self::automatic::Automatic;
use self::building_block::BuildingBlock;
use self::classic::{Interleaved, gpipe, one_forward_one_backward};
use self::v_shape::{dual_pipe, dual_pipe_v, zero_bubble_v};
use self::waves::waves;
use self::zero_bubble::{eager_forwards, lazy_weights};
pub use check::ScheduleError;
pub use timing::{StageTimes, TimedPass};
pub use written::WrittenScheduleError;

/// What a stage does with a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Forward of one of the stage's chunks of layers.
    Forward {
        /// Chunk, in the order of forward.
        chunk: u32,
        /// Micro-batch.
        micro_batch: u32,
    },
    /// Whole backward of one of the stage's chunks of layers.
    Backward {
        /// Chunk, in the order of forward.
        chunk: u32,
        /// Micro-batch.
        micro_batch: u32,
    },
    /// The part of a backward that the chunk before waits for: gradients of inputs.
    BackwardInput {
        /// Chunk, in the order of forward.
        chunk: u32,
        /// Micro-batch.
        micro_batch: u32,
    },
    /// The rest of a backward: gradients of weights.
    BackwardWeight {
        /// Chunk, in the order of forward.
        chunk: u32,
        /// Micro-batch.
        micro_batch: u32,
    },
}

impl Action {
    const fn forward(chunk: u32, micro_batch: u32) -> Self {
        Self::Forward { chunk, micro_batch }
    }

    const fn backward(chunk: u32, micro_batch: u32) -> Self {
        Self::Backward { chunk, micro_batch }
    }

    const fn input(chunk: u32, micro_batch: u32) -> Self {
        Self::BackwardInput { chunk, micro_batch }
    }

    const fn weight(chunk: u32, micro_batch: u32) -> Self {
        Self::BackwardWeight { chunk, micro_batch }
    }

    /// Chunk that the pass is of.
    pub const fn chunk(self) -> u32 {
        self.parts().0
    }

    /// Micro-batch that the pass is of.
    pub const fn micro_batch(self) -> u32 {
        self.parts().1
    }

    /// The same kind of pass of another chunk and micro-batch.
    const fn at(self, chunk: u32, micro_batch: u32) -> Self {
        match self {
            Self::Forward { .. } => Self::Forward { chunk, micro_batch },
            Self::Backward { .. } => Self::Backward { chunk, micro_batch },
            Self::BackwardInput { .. } => Self::BackwardInput { chunk, micro_batch },
            Self::BackwardWeight { .. } => Self::BackwardWeight { chunk, micro_batch },
        }
    }

    const fn parts(self) -> (u32, u32) {
        match self {
            Self::Forward { chunk, micro_batch }
            | Self::Backward { chunk, micro_batch }
            | Self::BackwardInput { chunk, micro_batch }
            | Self::BackwardWeight { chunk, micro_batch } => (chunk, micro_batch),
        }
    }

    /// Whether the pass makes the gradients of its inputs, which the chunk before takes.
    pub const fn makes_input_gradients(self) -> bool {
        matches!(self, Self::Backward { .. } | Self::BackwardInput { .. })
    }

    /// Whether nothing of the micro-batch's backward is left after the pass.
    pub const fn ends_backward(self) -> bool {
        matches!(self, Self::Backward { .. } | Self::BackwardWeight { .. })
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self {
            Self::Forward { .. } => "forward",
            Self::Backward { .. } => "backward",
            Self::BackwardInput { .. } => "backward (inputs)",
            Self::BackwardWeight { .. } => "backward (weights)",
        };
        write!(f, "{word} of micro-batch {}", self.micro_batch())?;
        if self.chunk() > 0 { write!(f, " in chunk {}", self.chunk()) } else { Ok(()) }
    }
}

/// Named schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleKind {
    /// All forwards, then all backwards.
    GPipe,
    /// One forward, one backward after a warm-up of `p - s - 1` forwards (PipeDream-Flush). With several chunks a
    /// stage, its interleaved form (Narayanan et al. 2021, section 2.2.2).
    OneForwardOneBackward,
    /// 1F1B with gradients of weights `s` micro-batches late on stage `s` (Qi et al. 2024, section 2.2).
    ZeroBubbleH1,
    /// Twice the warm-up, and gradients of weights `2 s` micro-batches late (Qi et al. 2024, section 2.2).
    ZeroBubbleH2,
    /// The best order found for the stages' own times within the activations of `p` micro-batches a stage
    /// (Qi et al. 2024, section 3, ZB-1p).
    ZeroBubbleOne,
    /// The same within `2 p` micro-batches (ZB-2p).
    ZeroBubbleTwo,
    /// Two chunks a stage, the second on the way back (Qi et al. 2024, section 6, and PyTorch's schedule of that name).
    ZeroBubbleV,
    /// Two chunks in V shape in half the memory of 1F1B (Qi et al. 2024, Controllable Memory, section 4.1).
    VHalf,
    /// The same in a third of the memory.
    VMin,
    /// Several chunks a stage, each micro-batch through a chunk before any goes on to the next (Lamy-Poirier 2023,
    /// Breadth-First Pipeline Parallelism): GPipe over chunks.
    LoopedBreadthFirst,
    /// Waves: an even number of chunks a stage, every other one on the way back (Liu et al. 2023, Hanayo).
    Hanayo,
    /// Two chunks in V shape, forwards and backwards in pairs (DeepSeek's DualPipeV).
    DualPipeV,
    /// From both ends at once: each stage holds its share of the layers, and that of the stage opposite to it, and half of
    /// the micro-batches enters at each end (DeepSeek-V3, section 3.2.1).
    DualPipe,
}

impl ScheduleKind {
    /// Chunks a stage, where the schedule prescribes them.
    pub const fn chunks(self) -> Option<u32> {
        match self {
            Self::GPipe | Self::OneForwardOneBackward | Self::LoopedBreadthFirst | Self::Hanayo => None,
            Self::ZeroBubbleH1 | Self::ZeroBubbleH2 | Self::ZeroBubbleOne | Self::ZeroBubbleTwo => Some(1),
            Self::ZeroBubbleV | Self::VHalf | Self::VMin | Self::DualPipeV | Self::DualPipe => Some(2),
        }
    }

    /// In words, why so many stages cannot have the schedule.
    pub fn refused_stages(self, stages: u64) -> Option<&'static str> {
        (self == Self::DualPipe && !stages.is_multiple_of(2))
            .then_some("an even number of stages, each with one opposite to it")
    }

    /// In words, the numbers of chunks a stage that the schedule can have, where `chunks` is none of them.
    pub fn refused_chunks(self, chunks: u32) -> Option<&'static str> {
        match self {
            Self::LoopedBreadthFirst if chunks < 2 => Some("2 or more"),
            Self::Hanayo if chunks == 0 || !chunks.is_multiple_of(2) => {
                Some("2, 4, 6, ...: two for each wave")
            }
            _ => None,
        }
    }

    /// Chunks a stage where a plan does not say.
    pub const fn usual_chunks(self) -> u32 {
        match self {
            Self::LoopedBreadthFirst | Self::Hanayo => 2,
            _ => match self.chunks() {
                Some(chunks) => chunks,
                None => 1,
            },
        }
    }

    /// How virtual stages are laid over the stages.
    pub const fn chunk_order(self) -> ChunkOrder {
        match self {
            Self::ZeroBubbleV | Self::VHalf | Self::VMin | Self::DualPipeV | Self::Hanayo => {
                ChunkOrder::BackAndForth
            }
            Self::DualPipe => ChunkOrder::FromBothEnds,
            _ => ChunkOrder::Around,
        }
    }

    /// Whether forwards and backwards are put next to each other to be one ([`Schedule::joined`]).
    pub const fn has_pairs(self) -> bool {
        matches!(self, Self::DualPipe | Self::DualPipeV)
    }

    /// Whether gradients of weights are passes of their own.
    pub const fn splits_backward(self) -> bool {
        !matches!(self, Self::GPipe | Self::OneForwardOneBackward | Self::LoopedBreadthFirst | Self::Hanayo)
    }
}

/// Which stage has which virtual stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChunkOrder {
    /// Chunk `c` of stage `s` of `p` is the virtual stage `c p + s`: the layers go round the stages.
    #[default]
    Around,
    /// Every other chunk runs from the last stage to the first: with two chunks, a V.
    BackAndForth,
    /// Two pipelines of all layers, the second from the last stage to the first: each stage has a chunk of both, and
    /// half of the micro-batches goes through each.
    FromBothEnds,
}

/// Times and memory of a stage's passes over one micro-batch, in any units that are the same for all stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassCost {
    /// Time of forward.
    pub forward: u64,
    /// Time of the gradients of inputs.
    pub input: u64,
    /// Time of the gradients of weights.
    pub weight: u64,
    /// Memory held from forward to the gradients of inputs.
    pub saved: u64,
    /// Memory of it and of gradients that is held on to the gradients of weights.
    pub kept: u64,
}

impl PassCost {
    /// All passes take as long, and half of the memory is kept for the weights.
    pub const EQUAL: Self = Self { forward: 1, input: 1, weight: 1, saved: 2, kept: 1 };
}

/// What a named schedule is made for.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline<'a> {
    /// Stages.
    pub stages: usize,
    /// Chunks of layers on each stage.
    pub chunks: u32,
    /// Micro-batches.
    pub micro_batches: u32,
    /// Micro-batches that interleaved 1F1B takes through a chunk before the next chunk; as many as stages when absent.
    pub group: Option<u32>,
    /// Costs by stage; all equal when empty. Only automatic schedules look at them.
    pub costs: &'a [PassCost],
    /// Time from the end of a pass to when the neighbour has its result.
    pub transfer: u64,
}

/// The order of work on every stage.
///
/// A stage holds one or more *chunks* of consecutive layers, each a virtual stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Actions of each stage, in order.
    pub stages: Vec<Vec<Action>>,
    /// Chunks of layers on each stage.
    pub chunks: u32,
    /// Micro-batches.
    pub micro_batches: u32,
    /// Which stage has which virtual stage.
    pub chunk_order: ChunkOrder,
}

impl Schedule {
    /// The named schedule for `stages` stages of `chunks` chunks each, and `micro_batches` micro-batches.
    ///
    /// # Errors
    /// As [`Schedule::of`].
    pub fn named(
        kind: ScheduleKind,
        stages: usize,
        chunks: u32,
        micro_batches: u32,
    ) -> Result<Self, ScheduleError> {
        Self::of(kind, &Pipeline { stages, chunks, micro_batches, group: None, costs: &[], transfer: 0 })
    }

    /// The named schedule of a pipeline.
    ///
    /// # Errors
    /// A number of chunks that the schedule is not made for; too few micro-batches; or groups of micro-batches that
    /// interleaved 1F1B cannot take.
    pub fn of(kind: ScheduleKind, pipeline: &Pipeline<'_>) -> Result<Self, ScheduleError> {
        let Pipeline { stages, chunks, micro_batches, .. } = *pipeline;
        if let Some(allowed) = kind.chunks()
            && allowed != chunks
        {
            return Err(ScheduleError::Chunks { allowed, found: chunks });
        }
        if let Some(allowed) = kind.refused_chunks(chunks) {
            return Err(ScheduleError::ManyChunks { allowed, found: chunks });
        }
        let each = |order: &dyn Fn(usize) -> Vec<Action>| (0..stages).map(order).collect::<Vec<_>>();
        let orders = match kind {
            ScheduleKind::GPipe | ScheduleKind::LoopedBreadthFirst => each(&|_| gpipe(chunks, micro_batches)),
            ScheduleKind::Hanayo => waves(stages, chunks, micro_batches),
            ScheduleKind::OneForwardOneBackward if chunks > 1 => {
                let interleaved = Interleaved::new(pipeline)?;
                each(&|stage| interleaved.order(stage))
            }
            ScheduleKind::OneForwardOneBackward => {
                each(&|stage| one_forward_one_backward(stages, stage, micro_batches))
            }
            ScheduleKind::ZeroBubbleH1 => each(&|stage| lazy_weights(stages, stage, micro_batches)),
            ScheduleKind::ZeroBubbleH2 => each(&|stage| eager_forwards(stages, stage, micro_batches)),
            ScheduleKind::ZeroBubbleOne => Automatic::new(pipeline, 1).best(),
            ScheduleKind::ZeroBubbleTwo => Automatic::new(pipeline, 2).best(),
            ScheduleKind::ZeroBubbleV => each(&|stage| zero_bubble_v(stages, stage, micro_batches)),
            ScheduleKind::VHalf => BuildingBlock::half(stages).orders(micro_batches),
            ScheduleKind::VMin => BuildingBlock::min(stages).orders(micro_batches),
            ScheduleKind::DualPipeV | ScheduleKind::DualPipe if (micro_batches as usize) < 2 * stages => {
                let needed = 2 * stages as u64;
                return Err(ScheduleError::TooFew { needed, found: micro_batches });
            }
            ScheduleKind::DualPipe => {
                if let Some(allowed) = kind.refused_stages(stages as u64) {
                    return Err(ScheduleError::Stages { allowed, found: stages });
                }
                if !micro_batches.is_multiple_of(2) {
                    return Err(ScheduleError::Odd { found: micro_batches });
                }
                each(&|stage| dual_pipe(stages, stage, micro_batches))
            }
            ScheduleKind::DualPipeV => each(&|stage| dual_pipe_v(stages, stage, micro_batches)),
        };
        Ok(Self { stages: orders, chunks, micro_batches, chunk_order: kind.chunk_order() })
    }

    /// Forward passes only, for inference: every micro-batch through all chunks before the next.
    pub fn forward_only(stages: usize, chunks: u32, micro_batches: u32) -> Self {
        let forwards = (0..micro_batches)
            .flat_map(|micro_batch| (0..chunks).map(move |chunk| Action::forward(chunk, micro_batch)));
        let chunk_order = ChunkOrder::Around;
        Self { stages: vec![forwards.collect(); stages], chunks, micro_batches, chunk_order }
    }

    /// Virtual stage of a chunk of a stage.
    pub fn virtual_stage(&self, stage: usize, chunk: u32) -> usize {
        let stages = self.stages.len();
        let place = if self.backwards(chunk as usize) { stages - 1 - stage } else { stage };
        chunk as usize * stages + place
    }

    /// Stage and chunk of a virtual stage.
    pub fn place(&self, virtual_stage: usize) -> (usize, usize) {
        let stages = self.stages.len();
        let (chunk, place) = (virtual_stage / stages, virtual_stage % stages);
        (if self.backwards(chunk) { stages - 1 - place } else { place }, chunk)
    }

    /// Whether the chunks of this number run from the last stage to the first.
    fn backwards(&self, chunk: usize) -> bool {
        self.chunk_order != ChunkOrder::Around && !chunk.is_multiple_of(2)
    }

    /// Virtual stages.
    pub fn virtual_stages(&self) -> usize {
        self.stages.len() * self.chunks as usize
    }

    /// Virtual stages that hold all layers once: all, or those of one of two pipelines.
    pub fn layer_stages(&self) -> usize {
        if self.chunk_order == ChunkOrder::FromBothEnds { self.stages.len() } else { self.virtual_stages() }
    }

    /// The virtual stage whose forward a virtual stage waits for; none where micro-batches enter.
    pub fn before(&self, virtual_stage: usize) -> Option<usize> {
        if virtual_stage.is_multiple_of(self.layer_stages().max(1)) {
            None
        } else {
            virtual_stage.checked_sub(1)
        }
    }

    /// The virtual stage that waits for a virtual stage's forward; none where the loss is.
    pub fn after(&self, virtual_stage: usize) -> Option<usize> {
        let next = virtual_stage + 1;
        (!next.is_multiple_of(self.layer_stages().max(1))).then_some(next)
    }

    /// Whether a pass and the one after it can be one: a forward, and a whole backward of the other chunk, which DualPipe
    /// and DualPipeV put next to each other so that the kernels of one run beside the transfers of the other.
    pub fn joined(&self, stage: usize, at: usize) -> bool {
        let Some([first, second]) = self.stages[stage].get(at..at + 2) else { return false };
        let pair = matches!(first, Action::Forward { .. }) && matches!(second, Action::Backward { .. });
        pair && first.chunk() != second.chunk()
    }

    /// Micro-batches that go through the chunks of this number.
    pub fn micro_batches_of(&self, chunk: u32) -> std::ops::Range<u32> {
        match (self.chunk_order, chunk) {
            (ChunkOrder::FromBothEnds, 0) => 0..self.micro_batches / 2,
            (ChunkOrder::FromBothEnds, _) => self.micro_batches / 2..self.micro_batches,
            _ => 0..self.micro_batches,
        }
    }

    /// Most passes of a stage whose forward is done and whose backward (of inputs and weights) is not, a pass for
    /// each chunk.
    pub fn in_flight(&self, stage: usize) -> u64 {
        let mut open = 0_u64;
        let mut most = 0;
        for action in &self.stages[stage] {
            if matches!(action, Action::Forward { .. }) {
                open += 1;
                most = most.max(open);
            } else if action.ends_backward() {
                open = open.saturating_sub(1);
            }
        }
        most
    }
}

//! Pipeline schedules as data: for each stage the order of its forward and backward passes.
//!
//! For `p` equal stages, `m` micro-batches and free links, the idle share of a step is `(p - 1) / (m + p - 1)`
//! for both schedules here (Huang et al. 2019, section 2.3; Narayanan et al. 2021, section 2.2.1, where it is
//! given relative to the ideal time as `(p - 1) / m`). They differ in memory: a stage `s` of GPipe holds all
//! `m` micro-batches, one of 1F1B at most `min(p - s, m)`.

use thiserror::Error;

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
    /// Backward of one of the stage's chunks of layers.
    Backward {
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
}

/// Named schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleKind {
    /// All forwards, then all backwards.
    GPipe,
    /// One forward, one backward after a warm-up of `p - s - 1` forwards (PipeDream-Flush). With several chunks a
    /// stage, its interleaved form (Narayanan et al. 2021, section 2.2.2).
    OneForwardOneBackward,
}

/// The order of work on every stage.
///
/// A stage holds one or more *chunks* of consecutive layers. Chunk `c` of stage `s` of `p` is the virtual stage
/// `c p + s`: the layers go round the stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Actions of each stage, in order.
    pub stages: Vec<Vec<Action>>,
    /// Chunks of layers on each stage.
    pub chunks: u32,
    /// Micro-batches.
    pub micro_batches: u32,
}

/// The first rule that a schedule breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// A pass is missing, there twice, or of a micro-batch that the step does not have.
    #[error(
        "stage {stage}: {action} occurs {count} times; each pass of the step's micro-batches must occur once"
    )]
    Count {
        /// Stage.
        stage: usize,
        /// The pass, in words.
        action: String,
        /// How often it occurs.
        count: usize,
    },
    /// A backward stands before its own forward.
    #[error("stage {stage}: backward of micro-batch {micro_batch} stands before its forward")]
    Order {
        /// Stage.
        stage: usize,
        /// Micro-batch.
        micro_batch: u32,
    },
    /// Interleaved 1F1B cannot group the micro-batches.
    #[error(
        "interleaved 1F1B takes micro-batches in groups of {stages}, one for each stage, but the step has \
         {micro_batches}"
    )]
    Groups {
        /// Stages.
        stages: usize,
        /// Micro-batches of the step.
        micro_batches: u32,
    },
    /// A stage takes the micro-batches of a chunk in another order than the stage before it sends them.
    #[error("stage {stage} takes micro-batch {received} where its neighbour sends micro-batch {sent}")]
    Crossing {
        /// Stage.
        stage: usize,
        /// What the neighbour sends.
        sent: u32,
        /// What the stage is about to take.
        received: u32,
    },
    /// Two stages wait for each other.
    #[error("the schedule cannot run: stage {stage} waits for ever at {action}")]
    Deadlock {
        /// The first stage that cannot go on.
        stage: usize,
        /// What it is about to do, in words.
        action: String,
    },
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (word, chunk, micro_batch) = match self {
            Self::Forward { chunk, micro_batch } => ("forward", chunk, micro_batch),
            Self::Backward { chunk, micro_batch } => ("backward", chunk, micro_batch),
        };
        write!(f, "{word} of micro-batch {micro_batch}")?;
        if *chunk > 0 { write!(f, " in chunk {chunk}") } else { Ok(()) }
    }
}

impl Schedule {
    /// The named schedule for `stages` stages of `chunks` chunks each, and `micro_batches` micro-batches.
    ///
    /// # Errors
    /// Interleaved 1F1B takes micro-batches in groups of as many as there are stages.
    pub fn named(
        kind: ScheduleKind,
        stages: usize,
        chunks: u32,
        micro_batches: u32,
    ) -> Result<Self, ScheduleError> {
        let interleaved = chunks > 1 && kind == ScheduleKind::OneForwardOneBackward;
        if interleaved && !(micro_batches as usize).is_multiple_of(stages) {
            return Err(ScheduleError::Groups { stages, micro_batches });
        }
        let order = |stage: usize| match kind {
            ScheduleKind::GPipe => gpipe(chunks, micro_batches),
            ScheduleKind::OneForwardOneBackward if interleaved => {
                Interleaved { stages, chunks, micro_batches }.order(stage)
            }
            ScheduleKind::OneForwardOneBackward => one_forward_one_backward(stages, stage, micro_batches),
        };
        Ok(Self { stages: (0..stages).map(order).collect(), chunks, micro_batches })
    }

    /// Forward passes only, for inference: every micro-batch through all chunks before the next.
    pub fn forward_only(stages: usize, chunks: u32, micro_batches: u32) -> Self {
        let forwards = (0..micro_batches)
            .flat_map(|micro_batch| (0..chunks).map(move |chunk| Action::forward(chunk, micro_batch)));
        Self { stages: vec![forwards.collect(); stages], chunks, micro_batches }
    }

    /// Virtual stage of a chunk of a stage.
    pub fn virtual_stage(&self, stage: usize, chunk: u32) -> usize {
        chunk as usize * self.stages.len() + stage
    }

    /// Most passes of a stage whose forward is done and whose backward is not, a pass for each chunk.
    pub fn in_flight(&self, stage: usize) -> u64 {
        let mut open = 0_u64;
        let mut most = 0;
        for action in &self.stages[stage] {
            match action {
                Action::Forward { .. } => {
                    open += 1;
                    most = most.max(open);
                }
                Action::Backward { .. } => open = open.saturating_sub(1),
            }
        }
        most
    }

    /// Proves that every pass occurs once, every backward follows its forward, neighbours take the micro-batches of a
    /// chunk in the same order, and the stages can run to the end with forwards flowing down and backwards flowing up.
    ///
    /// # Errors
    /// The first violation, by stage.
    pub fn check(&self) -> Result<(), ScheduleError> {
        for (stage, actions) in self.stages.iter().enumerate() {
            check_counts(stage, actions, self.chunks, self.micro_batches)?;
        }
        self.check_order()?;
        self.check_progress()
    }

    /// What is sent between two virtual stages arrives in the order in which it is sent.
    fn check_order(&self) -> Result<(), ScheduleError> {
        let order = |virtual_stage: usize, forwards: bool| {
            let (stage, chunk) = (virtual_stage % self.stages.len(), virtual_stage / self.stages.len());
            self.stages[stage].iter().filter_map(move |action| match *action {
                Action::Forward { chunk: c, micro_batch } if forwards && c as usize == chunk => {
                    Some(micro_batch)
                }
                Action::Backward { chunk: c, micro_batch } if !forwards && c as usize == chunk => {
                    Some(micro_batch)
                }
                _ => None,
            })
        };
        for virtual_stage in 1..self.stages.len() * self.chunks as usize {
            for forwards in [true, false] {
                let mut pairs = order(virtual_stage - 1, forwards).zip(order(virtual_stage, forwards));
                if let Some((sent, received)) = pairs.find(|(sent, received)| sent != received) {
                    let stage = virtual_stage % self.stages.len();
                    return Err(ScheduleError::Crossing { stage, sent, received });
                }
            }
        }
        Ok(())
    }

    fn check_progress(&self) -> Result<(), ScheduleError> {
        let stages = self.stages.len();
        let last = stages * self.chunks as usize - 1;
        let micro_batches = self.micro_batches as usize;
        let mut position = vec![0_usize; stages];
        let mut forward = vec![vec![false; micro_batches]; last + 1];
        let mut backward = vec![vec![false; micro_batches]; last + 1];
        loop {
            let mut moved = false;
            for (stage, next) in position.iter_mut().enumerate() {
                while let Some(&action) = self.stages[stage].get(*next) {
                    let (Action::Forward { chunk, micro_batch } | Action::Backward { chunk, micro_batch }) =
                        action;
                    let (at, m) = (self.virtual_stage(stage, chunk), micro_batch as usize);
                    let ready = match action {
                        Action::Forward { .. } => at == 0 || forward[at - 1][m],
                        Action::Backward { .. } => forward[at][m] && (at == last || backward[at + 1][m]),
                    };
                    if !ready {
                        break;
                    }
                    match action {
                        Action::Forward { .. } => forward[at][m] = true,
                        Action::Backward { .. } => backward[at][m] = true,
                    }
                    *next += 1;
                    moved = true;
                }
            }
            let stuck = (0..stages).find(|&stage| position[stage] < self.stages[stage].len());
            match (stuck, moved) {
                (None, _) => return Ok(()),
                (Some(stage), false) => {
                    let action = self.stages[stage][position[stage]].to_string();
                    return Err(ScheduleError::Deadlock { stage, action });
                }
                (Some(_), true) => {}
            }
        }
    }
}

fn check_counts(
    stage: usize,
    actions: &[Action],
    chunks: u32,
    micro_batches: u32,
) -> Result<(), ScheduleError> {
    let training = actions.iter().any(|action| matches!(action, Action::Backward { .. }));
    let passes = chunks as usize * micro_batches as usize;
    let (mut forwards, mut backwards) = (vec![0_usize; passes], vec![0_usize; passes]);
    let count_error =
        |action: Action, count| ScheduleError::Count { stage, action: action.to_string(), count };
    for &action in actions {
        let (Action::Forward { chunk, micro_batch } | Action::Backward { chunk, micro_batch }) = action;
        if micro_batch >= micro_batches || chunk >= chunks {
            return Err(count_error(action, 1));
        }
        let pass = chunk as usize * micro_batches as usize + micro_batch as usize;
        match action {
            Action::Forward { .. } => forwards[pass] += 1,
            Action::Backward { .. } if forwards[pass] == 0 => {
                return Err(ScheduleError::Order { stage, micro_batch });
            }
            Action::Backward { .. } => backwards[pass] += 1,
        }
    }
    for chunk in 0..chunks {
        for micro_batch in 0..micro_batches {
            let pass = chunk as usize * micro_batches as usize + micro_batch as usize;
            if forwards[pass] != 1 {
                return Err(count_error(Action::forward(chunk, micro_batch), forwards[pass]));
            }
            if training && backwards[pass] != 1 {
                return Err(count_error(Action::backward(chunk, micro_batch), backwards[pass]));
            }
        }
    }
    Ok(())
}

/// With several chunks every micro-batch goes through the first chunk of all stages before any goes through the second
/// (looped breadth-first without its overlap, Lamy-Poirier 2023).
fn gpipe(chunks: u32, micro_batches: u32) -> Vec<Action> {
    let each = |chunk| (0..micro_batches).map(move |micro_batch| (chunk, micro_batch));
    let forwards = (0..chunks).flat_map(each).map(|(chunk, m)| Action::forward(chunk, m));
    let backwards = (0..chunks).rev().flat_map(each).map(|(chunk, m)| Action::backward(chunk, m));
    forwards.chain(backwards).collect()
}

fn one_forward_one_backward(stages: usize, stage: usize, micro_batches: u32) -> Vec<Action> {
    let warm_up = u32::try_from(stages - stage - 1).unwrap_or(u32::MAX).min(micro_batches);
    let mut actions: Vec<Action> = (0..warm_up).map(|m| Action::forward(0, m)).collect();
    for micro_batch in warm_up..micro_batches {
        actions.push(Action::forward(0, micro_batch));
        actions.push(Action::backward(0, micro_batch - warm_up));
    }
    actions.extend((micro_batches - warm_up..micro_batches).map(|m| Action::backward(0, m)));
    actions
}

/// Interleaved 1F1B (Narayanan et al. 2021, section 2.2.2): groups of as many micro-batches as there are stages go
/// through the chunks one after the other. A stage warms up with `2 (p - s - 1) + (v - 1) p` forwards.
#[derive(Clone, Copy)]
struct Interleaved {
    stages: usize,
    chunks: u32,
    micro_batches: u32,
}

impl Interleaved {
    /// Chunk and micro-batch of the pass with a number; backward takes the chunks from the last.
    fn pass(self, number: u32) -> (u32, u32) {
        let group = self.stages as u32;
        let round = group * self.chunks;
        let micro_batch = number / round * group + number % group;
        (number % round / group, micro_batch)
    }

    fn order(self, stage: usize) -> Vec<Action> {
        let passes = self.micro_batches * self.chunks;
        let stages = self.stages as u32;
        let ahead = 2 * (stages - stage as u32 - 1) + (self.chunks - 1) * stages;
        let warm_up = ahead.min(passes);
        let forward = |number| {
            let (chunk, micro_batch) = self.pass(number);
            Action::forward(chunk, micro_batch)
        };
        let backward = |number| {
            let (chunk, micro_batch) = self.pass(number);
            Action::backward(self.chunks - 1 - chunk, micro_batch)
        };
        let mut actions: Vec<Action> = (0..warm_up).map(forward).collect();
        for number in warm_up..passes {
            actions.push(forward(number));
            actions.push(backward(number - warm_up));
        }
        actions.extend((passes - warm_up..passes).map(backward));
        actions
    }
}

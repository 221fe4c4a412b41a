//! Whether a schedule can be played.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{Action, Schedule};

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
    /// A pass of a chunk or micro-batch that there is not.
    #[error(
        "stage {stage}: {action} is not part of the step, which has {micro_batches} micro-batches and {chunks} chunks"
    )]
    Unknown {
        /// Stage.
        stage: usize,
        /// The pass, in words.
        action: String,
        /// Micro-batches of the step.
        micro_batches: u32,
        /// Chunks of a stage.
        chunks: u32,
    },
    /// A backward stands before its own forward.
    #[error("stage {stage}: backward of micro-batch {micro_batch} stands before its forward")]
    Order {
        /// Stage.
        stage: usize,
        /// Micro-batch.
        micro_batch: u32,
    },
    /// Gradients of weights stand before those of inputs.
    #[error("stage {stage}: {action} stands before its gradients of inputs")]
    WeightsFirst {
        /// Stage.
        stage: usize,
        /// The pass, in words.
        action: String,
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
    /// Interleaved 1F1B cannot take groups of this size.
    #[error(
        "interleaved 1F1B of {stages} stages cannot take {micro_batches} micro-batches in groups of {group}: no group, \
         the last included, may be smaller than the number of stages, nor larger than the step"
    )]
    GroupSize {
        /// Stages.
        stages: usize,
        /// Micro-batches of the step.
        micro_batches: u32,
        /// Micro-batches of a group.
        group: u32,
    },
    /// The schedule is made for another number of chunks.
    #[error("the schedule is made for {allowed} chunk(s) of layers on each stage, but there are {found}")]
    Chunks {
        /// Chunks that it is made for.
        allowed: u32,
        /// Chunks that there are.
        found: u32,
    },
    /// The schedule needs another number of chunks.
    #[error("the schedule cannot have {found} chunk(s) of layers on each stage, allowed: {allowed}")]
    ManyChunks {
        /// How many it can have, in words.
        allowed: &'static str,
        /// Chunks that there are.
        found: u32,
    },
    /// The schedule needs another number of stages.
    #[error("the schedule cannot have {found} stage(s), allowed: {allowed}")]
    Stages {
        /// How many it can have, in words.
        allowed: &'static str,
        /// Stages that there are.
        found: usize,
    },
    /// The schedule halves the micro-batches.
    #[error(
        "the schedule sends half of the micro-batches through each of two pipelines, but the step has {found}"
    )]
    Odd {
        /// Micro-batches of the step.
        found: u32,
    },
    /// The schedule needs more micro-batches.
    #[error(
        "the schedule needs at least {needed} micro-batches, two for each stage, but the step has {found}"
    )]
    TooFew {
        /// Micro-batches that it needs.
        needed: u64,
        /// Micro-batches of the step.
        found: u32,
    },
    /// A written schedule is of another pipeline.
    #[error("the schedule has {found} {what}, but the plan has {expected}")]
    Shape {
        /// What is counted.
        what: &'static str,
        /// How many the schedule has.
        found: u64,
        /// How many the plan has.
        expected: u64,
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

impl Schedule {
    /// Proves that every pass occurs once, every backward follows its forward and gradients of weights those of inputs,
    /// neighbours take the micro-batches of a chunk in the same order, and the stages can run to the end with forwards
    /// flowing down and backwards flowing up.
    ///
    /// # Errors
    /// The first violation, by stage.
    pub fn check(&self) -> Result<(), ScheduleError> {
        for (stage, actions) in self.stages.iter().enumerate() {
            self.check_counts(stage, actions)?;
        }
        self.check_order()?;
        self.check_progress()?;
        self.check_tasks()
    }

    /// Either all stages have backwards, or none.
    fn check_tasks(&self) -> Result<(), ScheduleError> {
        let trains =
            |actions: &[Action]| actions.iter().any(|action| !matches!(action, Action::Forward { .. }));
        let without = self.stages.iter().position(|actions| !trains(actions));
        match without {
            Some(stage) if self.stages.iter().any(|actions| trains(actions)) => {
                let action = Action::backward(0, 0).to_string();
                Err(ScheduleError::Count { stage, action, count: 0 })
            }
            _ => Ok(()),
        }
    }

    fn check_counts(&self, stage: usize, actions: &[Action]) -> Result<(), ScheduleError> {
        let (chunks, micro_batches) = (self.chunks, self.micro_batches);
        let training = actions.iter().any(|action| !matches!(action, Action::Forward { .. }));
        if let Some(action) = self.surely_missing(actions) {
            return Err(ScheduleError::Count { stage, action: action.to_string(), count: 0 });
        }
        let passes = chunks as usize * micro_batches as usize;
        // How often each pass's forward, gradients of inputs and gradients of weights occur.
        let mut seen = vec![[0_usize; 3]; passes];
        let count_error =
            |action: Action, count| ScheduleError::Count { stage, action: action.to_string(), count };
        for &action in actions {
            let (chunk, micro_batch) = (action.chunk(), action.micro_batch());
            if chunk >= chunks || !self.micro_batches_of(chunk).contains(&micro_batch) {
                let action = action.to_string();
                return Err(ScheduleError::Unknown { stage, action, micro_batches, chunks });
            }
            let [forward, input, weight] = &mut seen[self.pass(chunk, micro_batch)];
            match action {
                Action::Forward { .. } => *forward += 1,
                _ if *forward == 0 => return Err(ScheduleError::Order { stage, micro_batch }),
                Action::Backward { .. } => (*input, *weight) = (*input + 1, *weight + 1),
                Action::BackwardInput { .. } => *input += 1,
                Action::BackwardWeight { .. } if *input == 0 => {
                    return Err(ScheduleError::WeightsFirst { stage, action: action.to_string() });
                }
                Action::BackwardWeight { .. } => *weight += 1,
            }
        }
        for chunk in 0..chunks {
            for micro_batch in self.micro_batches_of(chunk) {
                let [forward, input, weight] = seen[self.pass(chunk, micro_batch)];
                if forward != 1 {
                    return Err(count_error(Action::forward(chunk, micro_batch), forward));
                }
                if training && input != 1 {
                    return Err(count_error(Action::backward(chunk, micro_batch), input));
                }
                if training && weight != 1 {
                    return Err(count_error(Action::weight(chunk, micro_batch), weight));
                }
            }
        }
        Ok(())
    }

    /// A forward that is not there, of a stage with far fewer actions than passes: no memory is taken for passes that a
    /// text only names the last of.
    fn surely_missing(&self, actions: &[Action]) -> Option<Action> {
        let passes = u64::from(self.chunks) * u64::from(self.micro_batches);
        // Two pipelines share the micro-batches of a chunk: half as many passes would do.
        if passes <= 64 + 4 * actions.len() as u64 {
            return None;
        }
        let forwards = actions.iter().filter(|action| matches!(action, Action::Forward { .. }));
        let there: BTreeSet<_> = forwards.map(|action| (action.chunk(), action.micro_batch())).collect();
        let mut all =
            (0..self.chunks).flat_map(|chunk| self.micro_batches_of(chunk).map(move |it| (chunk, it)));
        all.find(|pass| !there.contains(pass)).map(|(chunk, micro_batch)| Action::forward(chunk, micro_batch))
    }

    fn pass(&self, chunk: u32, micro_batch: u32) -> usize {
        chunk as usize * self.micro_batches as usize + micro_batch as usize
    }

    /// What is sent between two virtual stages arrives in the order in which it is sent.
    fn check_order(&self) -> Result<(), ScheduleError> {
        // Micro-batches of each virtual stage in the order of its forwards, and in that of its backwards.
        let mut orders = vec![[Vec::new(), Vec::new()]; self.virtual_stages()];
        for (stage, actions) in self.stages.iter().enumerate() {
            for action in actions {
                let [forwards, backwards] = &mut orders[self.virtual_stage(stage, action.chunk())];
                if matches!(action, Action::Forward { .. }) {
                    forwards.push(action.micro_batch());
                } else if action.makes_input_gradients() {
                    backwards.push(action.micro_batch());
                }
            }
        }
        for virtual_stage in (1..self.virtual_stages()).filter(|&at| self.before(at).is_some()) {
            for (sent, received) in orders[virtual_stage - 1].iter().zip(&orders[virtual_stage]) {
                if let Some((&sent, &received)) =
                    sent.iter().zip(received).find(|(sent, received)| sent != received)
                {
                    let (stage, _) = self.place(virtual_stage);
                    return Err(ScheduleError::Crossing { stage, sent, received });
                }
            }
        }
        Ok(())
    }

    fn check_progress(&self) -> Result<(), ScheduleError> {
        let stages = self.stages.len();
        let last = self.virtual_stages().saturating_sub(1);
        let micro_batches = self.micro_batches as usize;
        let mut position = vec![0_usize; stages];
        let mut forward = vec![vec![false; micro_batches]; last + 1];
        let mut backward = vec![vec![false; micro_batches]; last + 1];
        loop {
            let mut moved = false;
            for (stage, next) in position.iter_mut().enumerate() {
                while let Some(&action) = self.stages[stage].get(*next) {
                    let at = self.virtual_stage(stage, action.chunk());
                    let m = action.micro_batch() as usize;
                    let ready = match action {
                        Action::Forward { .. } => self.before(at).is_none_or(|it| forward[it][m]),
                        Action::BackwardWeight { .. } => backward[at][m],
                        _ => forward[at][m] && self.after(at).is_none_or(|it| backward[it][m]),
                    };
                    if !ready {
                        break;
                    }
                    if matches!(action, Action::Forward { .. }) {
                        forward[at][m] = true;
                    } else {
                        backward[at][m] = true;
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

//! Pipeline schedules as data: for each stage the order of its forward and backward passes.
//!
//! For `p` equal stages, `m` micro-batches and free links, the idle share of a step is `(p - 1) / (m + p - 1)`
//! for both schedules here (Huang et al. 2019, section 2.3; Narayanan et al. 2021, section 2.2.1, where it is
//! given relative to the ideal time as `(p - 1) / m`). They differ in memory: a stage `s` of GPipe holds all
//! `m` micro-batches, one of 1F1B at most `min(p - s, m)`.

use thiserror::Error;

/// One pass of a stage over a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Forward of this micro-batch.
    Forward(u32),
    /// Backward of this micro-batch.
    Backward(u32),
}

/// Named schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleKind {
    /// All forwards, then all backwards.
    GPipe,
    /// One forward, one backward after a warm-up of `p - s - 1` forwards (PipeDream-Flush).
    OneForwardOneBackward,
}

/// The order of work on every stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Actions of each stage, in order.
    pub stages: Vec<Vec<Action>>,
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
        match self {
            Self::Forward(m) => write!(f, "forward of micro-batch {m}"),
            Self::Backward(m) => write!(f, "backward of micro-batch {m}"),
        }
    }
}

impl Schedule {
    /// The named schedule for `stages` stages and `micro_batches` micro-batches.
    pub fn named(kind: ScheduleKind, stages: usize, micro_batches: u32) -> Self {
        let order = |stage: usize| match kind {
            ScheduleKind::GPipe => gpipe(micro_batches),
            ScheduleKind::OneForwardOneBackward => one_forward_one_backward(stages, stage, micro_batches),
        };
        Self { stages: (0..stages).map(order).collect(), micro_batches }
    }

    /// Forward passes only, for inference.
    pub fn forward_only(stages: usize, micro_batches: u32) -> Self {
        Self { stages: vec![(0..micro_batches).map(Action::Forward).collect(); stages], micro_batches }
    }

    /// Most micro-batches of a stage whose forward is done and whose backward is not.
    pub fn in_flight(&self, stage: usize) -> u64 {
        let mut open = 0_u64;
        let mut most = 0;
        for action in &self.stages[stage] {
            match action {
                Action::Forward(_) => {
                    open += 1;
                    most = most.max(open);
                }
                Action::Backward(_) => open = open.saturating_sub(1),
            }
        }
        most
    }

    /// Proves that every pass occurs once, every backward follows its forward, and the stages can run to the
    /// end with forwards flowing down and backwards flowing up.
    ///
    /// # Errors
    /// The first violation, by stage.
    pub fn check(&self) -> Result<(), ScheduleError> {
        for (stage, actions) in self.stages.iter().enumerate() {
            check_counts(stage, actions, self.micro_batches)?;
        }
        self.check_progress()
    }

    fn check_progress(&self) -> Result<(), ScheduleError> {
        let stages = self.stages.len();
        let micro_batches = self.micro_batches as usize;
        let mut position = vec![0_usize; stages];
        let mut forward = vec![vec![false; micro_batches]; stages];
        let mut backward = vec![vec![false; micro_batches]; stages];
        loop {
            let mut moved = false;
            for stage in 0..stages {
                while let Some(action) = self.stages[stage].get(position[stage]) {
                    let ready = match *action {
                        Action::Forward(m) => stage == 0 || forward[stage - 1][m as usize],
                        Action::Backward(m) => {
                            forward[stage][m as usize]
                                && (stage + 1 == stages || backward[stage + 1][m as usize])
                        }
                    };
                    if !ready {
                        break;
                    }
                    match *action {
                        Action::Forward(m) => forward[stage][m as usize] = true,
                        Action::Backward(m) => backward[stage][m as usize] = true,
                    }
                    position[stage] += 1;
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

fn check_counts(stage: usize, actions: &[Action], micro_batches: u32) -> Result<(), ScheduleError> {
    let training = actions.iter().any(|action| matches!(action, Action::Backward(_)));
    let mut forwards = vec![0_usize; micro_batches as usize];
    let mut backwards = vec![0_usize; micro_batches as usize];
    let count_error =
        |action: Action, count| ScheduleError::Count { stage, action: action.to_string(), count };
    for &action in actions {
        let (Action::Forward(m) | Action::Backward(m)) = action;
        if m >= micro_batches {
            return Err(count_error(action, 1));
        }
        match action {
            Action::Forward(_) => forwards[m as usize] += 1,
            Action::Backward(_) if forwards[m as usize] == 0 => {
                return Err(ScheduleError::Order { stage, micro_batch: m });
            }
            Action::Backward(_) => backwards[m as usize] += 1,
        }
    }
    for m in 0..micro_batches {
        if forwards[m as usize] != 1 {
            return Err(count_error(Action::Forward(m), forwards[m as usize]));
        }
        if training && backwards[m as usize] != 1 {
            return Err(count_error(Action::Backward(m), backwards[m as usize]));
        }
    }
    Ok(())
}

fn gpipe(micro_batches: u32) -> Vec<Action> {
    (0..micro_batches).map(Action::Forward).chain((0..micro_batches).map(Action::Backward)).collect()
}

fn one_forward_one_backward(stages: usize, stage: usize, micro_batches: u32) -> Vec<Action> {
    let warm_up = u32::try_from(stages - stage - 1).unwrap_or(u32::MAX).min(micro_batches);
    let mut actions: Vec<Action> = (0..warm_up).map(Action::Forward).collect();
    for micro_batch in warm_up..micro_batches {
        actions.push(Action::Forward(micro_batch));
        actions.push(Action::Backward(micro_batch - warm_up));
    }
    actions.extend((micro_batches - warm_up..micro_batches).map(Action::Backward));
    actions
}

//! Schedules written by hand, as text.
//!
//! One line a stage, in order; passes in order, parted by blanks: `F` forward, `B` whole backward, `I` gradients of
//! inputs, `W` gradients of weights, then the micro-batch, and behind a dot the chunk where there are several: `F0 F1.1
//! I0.1 W0.1`. `#` begins a comment. A line `order = v` says that every other chunk runs from the last stage to the
//! first, `order = both` that there are two pipelines, the second (chunk 1) from the last stage to the first, with the
//! second half of the micro-batches; without it the chunks go round the stages.

use thiserror::Error;

use super::{Action, ChunkOrder, Schedule};

/// What cannot be read in a written schedule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WrittenScheduleError {
    /// A word is no pass.
    #[error(
        "line {line}: found `{found}`, allowed: F, B, I or W with a micro-batch and, behind a dot, a chunk, such as F0 or \
         B3.1"
    )]
    Pass {
        /// Line, from 1.
        line: usize,
        /// The word.
        found: String,
    },
    /// A setting has a value that it cannot have.
    #[error("line {line}: found `{found}`, allowed: order = around, order = v, order = both")]
    Setting {
        /// Line, from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// More stages than any pipeline has.
    #[error("line {line}: found more than {MOST_STAGES} stages, allowed: up to {MOST_STAGES}")]
    Stages {
        /// Line of the first one too many, from 1.
        line: usize,
    },
    /// There is no stage.
    #[error("it has no stage; write one line of passes for each stage, such as F0 F1 B0 B1")]
    Empty,
}

/// Chunks and micro-batches that a written schedule may name.
const MOST: u32 = 1 << 16;
/// Stages that it may have: what follows the passes down and up the stages takes the square of them.
const MOST_STAGES: usize = 4096;

impl Schedule {
    /// Reads a written schedule. It is not checked yet.
    ///
    /// # Errors
    /// The first word that is no pass, with its line.
    pub fn parse(text: &str) -> Result<Self, WrittenScheduleError> {
        let mut chunk_order = ChunkOrder::Around;
        let mut stages = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some((key, value)) = line.split_once('=') {
                chunk_order = match (key.trim(), value.trim()) {
                    ("order", "around") => ChunkOrder::Around,
                    ("order", "v") => ChunkOrder::BackAndForth,
                    ("order", "both") => ChunkOrder::FromBothEnds,
                    _ => {
                        let found = line.to_owned();
                        return Err(WrittenScheduleError::Setting { line: line_number, found });
                    }
                };
            } else if !line.is_empty() {
                if stages.len() == MOST_STAGES {
                    return Err(WrittenScheduleError::Stages { line: line_number });
                }
                let read = |word: &str| {
                    let error = || WrittenScheduleError::Pass { line: line_number, found: word.to_owned() };
                    pass(word).ok_or_else(error)
                };
                stages.push(line.split_whitespace().map(read).collect::<Result<Vec<_>, _>>()?);
            }
        }
        let all = || stages.iter().flatten();
        let (Some(chunks), Some(micro_batches)) =
            (all().map(|it| it.chunk() + 1).max(), all().map(|it| it.micro_batch() + 1).max())
        else {
            return Err(WrittenScheduleError::Empty);
        };
        Ok(Self { stages, chunks, micro_batches, chunk_order })
    }

    /// The schedule as text that [`Schedule::parse`] reads.
    pub fn written(&self) -> String {
        let mut text = String::new();
        text += match self.chunk_order {
            ChunkOrder::Around => "",
            ChunkOrder::BackAndForth => "order = v\n",
            ChunkOrder::FromBothEnds => "order = both\n",
        };
        for stage in &self.stages {
            let words: Vec<String> = stage.iter().map(|&action| word(action, self.chunks)).collect();
            text += &words.join(" ");
            text.push('\n');
        }
        text
    }
}

fn pass(word: &str) -> Option<Action> {
    let make: fn(u32, u32) -> Action = match word.chars().next()? {
        'F' => Action::forward,
        'B' => Action::backward,
        'I' => Action::input,
        'W' => Action::weight,
        _ => return None,
    };
    let numbers = word.get(1..)?;
    let (micro_batch, chunk) = numbers.split_once('.').unwrap_or((numbers, "0"));
    let number = |text: &str| text.parse().ok().filter(|&number: &u32| number < MOST);
    Some(make(number(chunk)?, number(micro_batch)?))
}

fn word(action: Action, chunks: u32) -> String {
    let letter = match action {
        Action::Forward { .. } => 'F',
        Action::Backward { .. } => 'B',
        Action::BackwardInput { .. } => 'I',
        Action::BackwardWeight { .. } => 'W',
    };
    let micro_batch = action.micro_batch();
    if chunks > 1 {
        format!("{letter}{micro_batch}.{}", action.chunk())
    } else {
        format!("{letter}{micro_batch}")
    }
}

//! Whole passes over a chunk that are written once.
//!
//! Where a program keeps no account of memory, a chunk's forward or backward is the same records in every micro-batch, with
//! what it receives, sends and reduces. The first is written; the others are the same stretch of the program once more. What
//! a pass depends on is in its [`Key`].

use steptime_core::Passage;

use super::StageBuilder;
use super::pairs::kind;
use crate::error::PlanError;
use crate::lower::Grain;
use crate::schedule::Action;
use crate::zero::ZeroStage;

/// What the records of a whole pass depend on, beside the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    kind: usize,
    chunk: usize,
    /// Whether the micro-batch is smaller than the others.
    short: bool,
    made_elements: u64,
}

/// A pass that has been written.
struct Written {
    key: Key,
    passage: Passage,
    /// Entries of the launch queue that its records stand for.
    entries: u64,
    /// Values with gradients that it leaves.
    made_elements: u64,
}

/// The whole passes that a stage's program has written so far.
#[derive(Default)]
pub(super) struct WholePasses {
    written: Vec<Written>,
}

impl StageBuilder<'_> {
    /// Writes a pass, unless it has been written before.
    pub(super) fn pass(&mut self, action: Action) -> Result<(), PlanError> {
        let Some(key) = self.whole_key(action) else { return self.write_pass(action) };
        if let Some(known) = self.whole_passes.written.iter().find(|it| it.key == key) {
            self.program.repeat_as_it_is(&known.passage);
            self.entries += known.entries;
            self.made_elements = known.made_elements;
            if matches!(action, Action::Backward { .. } | Action::BackwardWeight { .. }) {
                self.next_turn(key.chunk);
            }
            return Ok(());
        }
        let (place, entries) = (self.program.place(), self.entries);
        self.write_pass(action)?;
        if self.beside.is_none() {
            let passage = self.program.passage_in_one(place);
            let (entries, made_elements) = (self.entries - entries, self.made_elements);
            self.whole_passes.written.push(Written { key, passage, entries, made_elements });
        }
        Ok(())
    }

    /// What the pass depends on; None where it depends on more: on parameters that are whole, on transfers that are still
    /// under way, on another pass beside it, on what has been sent to the host, or on whether it is the first or the last
    /// that makes gradients.
    fn whole_key(&self, action: Action) -> Option<Key> {
        let input = self.input;
        let same = input.repeats && input.grain == Grain::Times;
        let plain = self.beside.is_none() && !self.pairs.has_pass() && !input.plan.offload.acts();
        if !(same && plain) || input.plan.zero == ZeroStage::Three {
            return None;
        }
        let (chunk, micro_batch) = (action.chunk() as usize, action.micro_batch());
        if matches!(action, Action::Backward { .. } | Action::BackwardWeight { .. }) {
            let turn = self.turn(chunk, self.backwards_done[chunk] + 1);
            if turn.first || turn.last {
                return None;
            }
        }
        let short = input.short.is_some() || input.workload.last_micro_batch_size.is_some();
        let short = short && micro_batch + 1 == input.schedule.micro_batches;
        Some(Key { kind: kind(action), chunk, short, made_elements: self.made_elements })
    }
}

//! A forward and a backward in one: DualPipe and DualPipeV put a forward of one chunk and a backward of the other next to
//! each other, and the exchanges between ranks of one run beside the kernels of the other (DeepSeek-V3, section 3.2.1,
//! figure 4).
//!
//! The kernels of both take turns on the compute stream: each pass goes on until it has started an exchange, and then the
//! other one does. What a pass waits for is thus hidden as far as the other one has something to do meanwhile.

use steptime_core::{Label, Place, Stream};

use super::{Meeting, StageBuilder, StageInput};
use crate::classes;
use crate::error::PlanError;
use crate::lower::cost::{Cost, Exchange};
use crate::schedule::Action;
use crate::zero::ZeroStage;

/// What is known of pairs while a stage is written.
#[derive(Default)]
pub(super) struct Pairs {
    /// Where exchanges of pairs run; none where passes have no exchanges, or may not be pairs.
    pub(super) stream: Option<Stream>,
    /// Of the pass at hand, where the other may go on; none outside pairs.
    cuts: Option<Vec<Place>>,
    /// Pairs that have been written, the passes of each one after the other.
    written: Vec<[Vec<Place>; 2]>,
}

impl Pairs {
    /// Exchanges of pairs run on a stream, if there are any.
    pub(super) fn on(stream: Option<Stream>) -> Self {
        Self { stream, ..Self::default() }
    }

    /// Whether the pass at hand is one of a pair.
    pub(super) const fn has_pass(&self) -> bool {
        self.cuts.is_some()
    }
}

impl StageInput<'_> {
    /// Whether forwards and backwards of the stage are joined: the schedule has pairs, and passes wait for exchanges. Where
    /// ZeRO gathers parameters or copies go to the host, passes are played one after the other.
    pub(super) fn joins_passes(&self) -> bool {
        let plan = self.plan;
        let in_pairs = plan.schedule.has_pairs();
        let plain = plan.zero != ZeroStage::Three && !plan.offload.activations;
        let waits = |cost: &Cost| matches!(cost, Cost::Exchange(exchange) if !exchange.beside);
        let exchanges = |layer: usize| self.cost(layer, 0).forward.iter().any(waits);
        let wanted = plan.pair_overlap && plan.written.is_none() && self.training();
        wanted && in_pairs && plain && self.layers().any(exchanges)
    }
}

/// Kinds of actions.
const KINDS: usize = 4;

/// The kind of an action.
pub(super) const fn kind(action: Action) -> usize {
    match action {
        Action::Forward { .. } => 0,
        Action::Backward { .. } => 1,
        Action::BackwardInput { .. } => 2,
        Action::BackwardWeight { .. } => 3,
    }
}

impl StageBuilder<'_> {
    /// The passes of the stage, in the order of the schedule.
    pub(super) fn passes(&mut self) -> Result<(), PlanError> {
        let input = self.input;
        let actions = &input.schedule.stages[input.stage];
        let mut at = 0;
        // Records and tensors of the first action of each kind. When they are known there is room for the others: a program that grows
        // by doubling is copied again and again.
        let mut lengths = [None; KINDS];
        let kinds = actions.iter().fold([false; KINDS], |mut kinds, action| {
            kinds[kind(*action)] = true;
            kinds
        });
        let mut roomy = false;
        while let Some(&action) = actions.get(at) {
            let before = (self.program.records(), self.program.tensors());
            match actions.get(at + 1) {
                Some(&second) if self.pairs.stream.is_some() && input.schedule.joined(input.stage, at) => {
                    self.pair([action, second])?;
                    at += 2;
                }
                _ => {
                    self.pass(action)?;
                    at += 1;
                    let [records, tensors] =
                        [self.program.records() - before.0, self.program.tensors() - before.1];
                    lengths[kind(action)].get_or_insert((records, tensors));
                }
            }
            if !roomy && lengths.iter().zip(kinds).all(|(length, wanted)| length.is_some() == wanted) {
                roomy = true;
                let left = actions[at..].iter().filter_map(|action| lengths[kind(*action)]);
                let (records, tensors) = left.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
                self.program.reserve(records + records / 32 + 256, tensors + 64);
            }
        }
        Ok(())
    }

    pub(super) fn write_pass(&mut self, action: Action) -> Result<(), PlanError> {
        let (chunk, micro_batch) = (action.chunk() as usize, action.micro_batch());
        match action {
            Action::Forward { .. } => self.forward(chunk, micro_batch),
            Action::Backward { .. } => self.backward(chunk, micro_batch),
            Action::BackwardInput { .. } => self.backward_input(chunk, micro_batch),
            Action::BackwardWeight { .. } => self.backward_weight(chunk, micro_batch),
        }
    }

    fn pair(&mut self, actions: [Action; 2]) -> Result<(), PlanError> {
        let mut borders = [Vec::new(), Vec::new()];
        for (action, borders) in actions.into_iter().zip(&mut borders) {
            self.pairs.cuts = Some(vec![self.program.place()]);
            self.pass(action)?;
            *borders = self.pairs.cuts.take().unwrap_or_default();
            borders.push(self.program.place());
        }
        self.pairs.written.push(borders);
        Ok(())
    }

    /// An exchange of a pass that is one of a pair: the other pass goes on while it is under way.
    pub(super) fn exchange_in_pair(&mut self, label: Label, exchange: Exchange) -> Result<(), PlanError> {
        let Some(stream) = self.pairs.stream else { return Ok(()) };
        let kinds = (classes::COLLECTIVE, classes::COLLECTIVE_WAIT);
        self.order(self.streams.compute, stream);
        self.meet(stream, Meeting::Group(exchange.along), kinds, label, exchange.transfer)?;
        let arrived = self.program.record(stream);
        let here = self.program.place();
        self.pairs.cuts.get_or_insert_with(Vec::new).push(here);
        self.program.wait(self.streams.compute, arrived);
        Ok(())
    }

    /// Deals out the pairs that have been written.
    pub(super) fn join_pairs(&mut self) {
        let written = std::mem::take(&mut self.pairs.written);
        self.program.interleave(&written);
    }
}

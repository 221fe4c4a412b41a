//! Meetings with other ranks: collectives, sends and receives, and what waits for them.

use steptime_clusters::{CollectiveKind, Transfer, collective};
use steptime_core::{Class, Label, Note, SimTime, Stream};
use steptime_models::Pass;

use super::{Meeting, StageBuilder, StageInput};
use crate::bucket::Share;
use crate::classes::{self, Message};
use crate::error::PlanError;
use crate::lower::placement::Along;

/// Entries of the device's launch queue that a collective takes: its kernel, and four events between the streams of the
/// computation and of the collective, recorded and waited for before and after it (PyTorch's `ProcessGroupNCCL`). With
/// them nanotron's runs on 16 and 32 tensor-parallel ranks hold what was measured, some 60 whole activations whatever the
/// number of layers.
const COLLECTIVE_ENTRIES: u64 = 5;

impl StageBuilder<'_> {
    /// A meeting on a stream, after what the compute stream has been given so far.
    pub(super) fn meet(
        &mut self,
        stream: Stream,
        meeting: Meeting,
        classes: (Class, Class),
        label: Label,
        transfer: Transfer,
    ) -> Result<(), PlanError> {
        let Some(channel) = self.channel(meeting) else { return Ok(()) };
        let launch = self.pricer.issue(Pass::Forward, 1)?;
        let within_layer = [Along::Tensor, Along::Context, Along::Expert, Along::ExpertTensor];
        let issue = if within_layer.into_iter().any(|along| meeting == Meeting::Group(along)) {
            launch.checked_add(SimTime::from_seconds(self.pricer.framework().collective_s)?)?
        } else {
            launch
        };
        self.program.host(issue, classes::HOST, label);
        let fixed = SimTime::from_seconds(transfer.fixed_s)?;
        self.entries += COLLECTIVE_ENTRIES;
        self.program.rendezvous(stream, channel, classes.0, classes.1, label, fixed, transfer.wire_bytes);
        let message = match (meeting, transfer.kind) {
            (_, Some(kind)) => Some(Message::Collective(kind)),
            (Meeting::ForwardOut(_) | Meeting::BackwardOut(_), None) => Some(Message::Send),
            (Meeting::ForwardIn(_) | Meeting::BackwardIn(_), None) => Some(Message::Receive),
            // Parts that go round a ring have no direction.
            _ => None,
        };
        if let Some(message) = message {
            self.program.note(Note { kind: message.number(), bytes: transfer.bytes });
        }
        Ok(())
    }

    /// Makes `later` wait for everything given to `earlier` so far.
    pub(super) fn order(&mut self, earlier: Stream, later: Stream) {
        let event = self.program.record(earlier);
        self.program.wait(later, event);
    }

    pub(super) fn collective(
        &mut self,
        share: Share,
        kind: CollectiveKind,
        name: &str,
        word: &str,
        bytes: u64,
        micro_batch: Option<u32>,
    ) -> Result<(), PlanError> {
        let way = (self.streams.collective, StageInput::copies(share));
        self.collective_along(way, kind, (name, word), bytes, micro_batch)
    }

    /// A collective of a group on a stream.
    pub(super) fn collective_along(
        &mut self,
        (stream, along): (Stream, Along),
        kind: CollectiveKind,
        (name, word): (&str, &str),
        bytes: u64,
        micro_batch: Option<u32>,
    ) -> Result<(), PlanError> {
        let placement = self.input.placements[along as usize];
        let links = self.input.links.along(along);
        let asked = (along as usize, kind, bytes);
        let transfer =
            *self.collectives.entry(asked).or_insert_with(|| collective(links, kind, placement, bytes));
        let label = self.label(name, word, micro_batch);
        let kinds = (classes::COLLECTIVE, classes::COLLECTIVE_WAIT);
        self.meet(stream, Meeting::Group(along), kinds, label, transfer)
    }
}

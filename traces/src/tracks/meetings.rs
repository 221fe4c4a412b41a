//! Which rendezvous a transfer of a stream is, and which sends belong together.

use std::collections::BTreeMap;

use steptime_core::{GroupId, Step};
use steptime_plans::classes::Message;
use steptime_scenarios::Recording;

use super::Arrow;

/// A rendezvous of a stream, in the stream's order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    /// Bytes that the programs asked to move.
    pub(super) bytes: Option<u64>,
    /// Where it is one end of a send.
    pub(super) arrow: Option<Arrow>,
}

/// By rank and stream: its rendezvous in order.
pub(super) fn of(recording: &Recording) -> BTreeMap<(u32, u8), Vec<Met>> {
    let mut all: BTreeMap<(u32, u8), Vec<Met>> = BTreeMap::new();
    // Sends have numbers in the order in which they are first met.
    let mut numbers: BTreeMap<(GroupId, u32), u64> = BTreeMap::new();
    let world = &recording.world;
    for (rank, spec) in world.ranks().iter().enumerate() {
        let program = &world.programs()[spec.program as usize];
        let mut met = vec![0_u32; program.channels().len()];
        for step in program.steps() {
            let Step::Rendezvous { stream, channel, bytes, note, .. } = step else { continue };
            let channel = usize::from(channel.0);
            let meeting = (spec.groups[channel], met[channel]);
            met[channel] += 1;
            let message = note.and_then(|note| Message::of(note.kind));
            let leaves = match message {
                Some(Message::Send) => Some(true),
                Some(Message::Receive) => Some(false),
                _ => None,
            };
            let arrow = leaves.map(|leaves| {
                let next = numbers.len() as u64 + 1;
                Arrow { number: *numbers.entry(meeting).or_insert(next), leaves }
            });
            let bytes = note.map(|note| note.bytes).or(Some(bytes)).filter(|&bytes| bytes > 0);
            all.entry((rank as u32, stream.0)).or_default().push(Met { bytes, arrow });
        }
    }
    all
}

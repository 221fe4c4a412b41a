//! What the engine's opaque classes and categories mean in a lowered program.

use steptime_clusters::CollectiveKind;
use steptime_core::{Category, Class};

/// Kernels of a forward pass.
pub const FORWARD: Class = Class(0);
/// Kernels of a backward pass.
pub const BACKWARD: Class = Class(1);
/// Forward kernels run again for a checkpointed layer.
pub const RECOMPUTE: Class = Class(2);
/// Parameter update.
pub const OPTIMIZER: Class = Class(3);
/// A collective in flight.
pub const COLLECTIVE: Class = Class(4);
/// A collective that waits for its slowest member.
pub const COLLECTIVE_WAIT: Class = Class(5);
/// A pipeline transfer in flight.
pub const TRANSFER: Class = Class(6);
/// A pipeline transfer that waits for the other stage.
pub const TRANSFER_WAIT: Class = Class(7);
/// The host issues work or waits for the device.
pub const HOST: Class = Class(8);
/// Input samples on their way to the device.
pub const INPUT: Class = Class(9);
/// The rank is done, others are not.
pub const TAIL: Class = Class(10);
/// What is kept off the GPU on its way, and the host's update of it.
pub const OFFLOAD: Class = Class(11);

/// Weights.
pub const PARAMETERS: Category = Category(0);
/// Gradients.
pub const GRADIENTS: Category = Category(1);
/// Moments and master copies.
pub const OPTIMIZER_STATES: Category = Category(2);
/// Tensors kept for backward.
pub const ACTIVATIONS: Category = Category(3);
/// Reduction buckets, gathered parameters, pipeline receive and send buffers, input batches.
pub const BUFFERS: Category = Category(4);
/// Short-lived tensors of a pass and library workspaces.
pub const WORKSPACE: Category = Category(5);
/// The CUDA context and loaded kernels, outside the allocator.
pub const CONTEXT: Category = Category(6);

/// Names of the categories, by number.
pub const CATEGORY_NAMES: [&str; 7] =
    ["parameters", "gradients", "optimizer_states", "activations", "buffers", "workspace", "context"];

/// What ranks do when they meet, as programs note it beside a rendezvous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A collective of all members.
    Collective(CollectiveKind),
    /// This rank sends to the other member.
    Send,
    /// This rank receives from it.
    Receive,
}

/// Number of [`Message::Send`]; collectives have the numbers before it.
const SEND: u8 = CollectiveKind::ALL.len() as u8;

impl Message {
    /// Its number in a [`steptime_core::Note`].
    pub fn number(self) -> u8 {
        match self {
            Self::Collective(kind) => CollectiveKind::ALL
                .iter()
                .zip(0..)
                .find(|(it, _)| **it == kind)
                .map_or(0, |(_, number)| number),
            Self::Send => SEND,
            Self::Receive => SEND + 1,
        }
    }

    /// The message of a number.
    pub fn of(number: u8) -> Option<Self> {
        match number {
            SEND => Some(Self::Send),
            it if it == SEND + 1 => Some(Self::Receive),
            it => CollectiveKind::ALL.get(usize::from(it)).map(|&kind| Self::Collective(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_from_their_numbers() {
        let all = CollectiveKind::ALL.map(Message::Collective);
        for message in all.into_iter().chain([Message::Send, Message::Receive]) {
            assert_eq!(Message::of(message.number()), Some(message));
        }
        assert_eq!(Message::of(7), None);
    }
}

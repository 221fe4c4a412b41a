//! What flows from block to block: its shape for one sample.

use std::fmt;

use crate::operation::Dtype;
use crate::tape::{Tape, Tensor, Trace};
use crate::units::{Bytes, product};

/// Tokens of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// As many as the workload's sequences have.
    Sequence,
    /// A fixed number: the patches of an image.
    Fixed(u64),
}

/// What one block hands to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Token ids, before the embedding.
    Ids,
    /// An image as the loader delivers it, in 32-bit floats.
    Pixels { channels: u64, side: u64 },
    /// Tokens, `width` values each.
    Tokens { width: u64, length: Length },
    /// An image or feature map.
    Image { channels: u64, height: u64, width: u64 },
    /// `width` values a sample.
    Vector { width: u64 },
    /// Bytes a sample, of which nothing else is known.
    Opaque { bytes: u64 },
    /// Predictions, or in training their loss: nothing can follow.
    Predictions,
}

impl Flow {
    /// Values of a token, a pixel or a sample, where a linear layer or norm can run over them.
    pub(super) fn width(self) -> Option<u64> {
        match self {
            Self::Tokens { width, .. } | Self::Vector { width } => Some(width),
            Self::Image { channels, .. } => Some(channels),
            Self::Ids | Self::Pixels { .. } | Self::Opaque { .. } | Self::Predictions => None,
        }
    }

    /// The same with another width.
    pub(super) fn with_width(self, width: u64) -> Self {
        match self {
            Self::Tokens { length, .. } => Self::Tokens { width, length },
            Self::Vector { .. } => Self::Vector { width },
            other => other,
        }
    }

    /// Pixels become a feature map of the activations' format when the first block touches them.
    pub(super) fn touched(self) -> Self {
        match self {
            Self::Pixels { channels, side } => Self::Image { channels, height: side, width: side },
            other => other,
        }
    }

    /// Starts a layer that receives this.
    pub(super) fn start(self, trace: Trace<'_>) -> (Tape<'_>, Tensor) {
        let (shape, batch) = (trace.shape, trace.shape.micro_batch);
        let activation = shape.activation.bytes();
        match self {
            Self::Ids => {
                let tokens = product(&[batch, shape.sequence_length]);
                Tape::start(trace, tokens, 1, Dtype::Int64.bytes())
            }
            Self::Pixels { channels, side } => {
                Tape::start(trace, product(&[batch, side, side]), channels, Dtype::Fp32.bytes())
            }
            Self::Tokens { width, length: Length::Sequence } => {
                Tape::start(trace, shape.token_rows(), width, activation)
            }
            Self::Tokens { width, length: Length::Fixed(tokens) } => {
                Tape::start(trace, product(&[batch, tokens]), width, activation)
            }
            Self::Image { channels, height, width } => {
                Tape::start(trace, product(&[batch, height, width]), channels, activation)
            }
            Self::Vector { width } => Tape::start(trace, batch, width, activation),
            Self::Opaque { bytes } => Tape::start(trace, batch, bytes, 1),
            Self::Predictions => Tape::start(trace, 1, 1, Dtype::Fp32.bytes()),
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ids => f.write_str("token ids"),
            Self::Pixels { channels, side: size } => {
                write!(f, "an image of {channels} channels, {size} x {size}")
            }
            Self::Tokens { width, .. } => write!(f, "tokens of width {width}"),
            Self::Image { channels, height, width } => {
                write!(f, "an image of {channels} channels, {height} x {width}")
            }
            Self::Vector { width } => write!(f, "a vector of width {width}"),
            Self::Opaque { bytes } => write!(f, "{} of a component", Bytes(bytes)),
            Self::Predictions => f.write_str("the predictions of a head"),
        }
    }
}

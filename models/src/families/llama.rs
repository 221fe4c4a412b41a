//! Decoders with rotary positions, RMSNorm before each half, grouped queries, SwiGLU, no biases and no dropout.

use super::transformer::Transformer;
use crate::document::Section;
use crate::error::ModelError;

/// Reads the fields of the family `llama`, which are fields of the family `transformer` whose others are at their
/// defaults.
pub(super) fn read(section: &Section) -> Result<Transformer, ModelError> {
    section.only(&[
        "layers",
        "hidden",
        "heads",
        "kv_heads",
        "head_dim",
        "feed_forward",
        "vocabulary",
        "positions",
        "tied",
    ])?;
    Transformer::read(section)
}

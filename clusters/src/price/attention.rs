//! Fused attention (FlashAttention, Dao et al. 2022): the scores never reach memory.

use steptime_models::{AttentionShape, Bytes, Pass};

use super::roofline::{Work, roofline};
use super::{Price, PriceError, arithmetic_of};
use crate::gpu::Gpu;

/// Forward: reads q, k, v, writes the output. Backward: reads those four and the output's gradient, writes
/// three gradients: twice as much.
fn traffic(shape: &AttentionShape) -> Bytes {
    let queries = shape.heads as f64 * shape.query_length as f64;
    let keys = shape.kv_heads as f64 * shape.key_length as f64;
    let row = shape.head_dim as f64 * shape.dtype.bytes() as f64;
    let forward = 2.0 * shape.batch as f64 * (queries + keys) * row;
    Bytes(match shape.pass {
        Pass::Forward => forward,
        Pass::Backward => 2.0 * forward,
    } as u64)
}

/// Roofline with the format's peak and the fraction of it that fused attention reaches in this direction.
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the format.
pub fn attention(gpu: &Gpu, shape: AttentionShape) -> Result<Price, PriceError> {
    let peak = arithmetic_of(gpu, shape.dtype)?.peak.value;
    let work = Work { amount: shape.flops().0 as f64, peak, fraction: gpu.achievable.attention(shape.pass) };
    Ok(roofline(gpu, Some(work), traffic(&shape), gpu.achievable.memory.elementwise))
}

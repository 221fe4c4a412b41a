//! Fused attention (FlashAttention, Dao et al. 2022): the scores never reach memory.

use steptime_models::{Bytes, Dtype, Kernel, Pass};

use super::roofline::{Work, roofline};
use super::{Price, PriceError, arithmetic_of};
use crate::gpu::Gpu;

/// Fused attention over `batch` sequences; the fields are those of [`Kernel::Attention`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Query tokens.
    pub query_length: u64,
    /// Key tokens.
    pub key_length: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// Whether a token sees only itself and earlier ones.
    pub causal: bool,
    /// Direction.
    pub pass: Pass,
    /// Format of the inputs.
    pub dtype: Dtype,
}

impl AttentionShape {
    /// The FLOPs of [`Kernel::flops`].
    pub fn flops(&self) -> f64 {
        let Self { batch, heads, kv_heads, query_length, key_length, head_dim, causal, pass, dtype } = *self;
        let kernel = Kernel::Attention {
            batch,
            heads,
            kv_heads,
            query_length,
            key_length,
            head_dim,
            causal,
            pass,
            dtype,
        };
        kernel.flops().0 as f64
    }

    /// Forward: reads q, k, v, writes the output. Backward: reads those four and the output's gradient, writes
    /// three gradients: twice as much.
    pub fn traffic(&self) -> Bytes {
        let queries = self.heads as f64 * self.query_length as f64;
        let keys = self.kv_heads as f64 * self.key_length as f64;
        let row = self.head_dim as f64 * self.dtype.bytes() as f64;
        let forward = 2.0 * self.batch as f64 * (queries + keys) * row;
        Bytes(match self.pass {
            Pass::Forward => forward,
            Pass::Backward => 2.0 * forward,
        } as u64)
    }
}

/// Roofline with the format's peak and the fraction of it that fused attention reaches in this direction.
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the format.
pub fn attention(gpu: &Gpu, shape: AttentionShape) -> Result<Price, PriceError> {
    let peak = arithmetic_of(gpu, shape.dtype)?.peak.value;
    let work = Work { amount: shape.flops(), peak, fraction: gpu.achievable.attention(shape.pass) };
    Ok(roofline(gpu, Some(work), shape.traffic(), gpu.achievable.memory.elementwise))
}

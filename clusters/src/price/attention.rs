//! Fused attention (FlashAttention, Dao et al. 2022; FlashAttention-2, Dao 2023): the scores never reach memory.

use steptime_models::{AttentionShape, Bytes, FlashGeneration, Pass};

use super::gemm::slowness;
use super::{Price, PriceError, arithmetic_of};
use crate::coefficients::AttentionCoefficients;
use crate::gpu::Gpu;

/// Query rows of a block, and keys that it visits at once (FlashAttention-2, section 3.3: blocks of 64 or 128).
const QUERY_BLOCK: f64 = 128.0;
const KEY_BLOCK: f64 = 64.0;

/// Width of queries' and values' heads together that efficiencies are of: 128 each, as all measured kernels have.
const MEASURED_WIDTHS: f64 = 256.0;
/// Exponentials that a multiprocessor computes in a clock (CUDA C++ Programming Guide, arithmetic instructions, compute capabilities
/// 7.0 to 10.0), and that attention takes one of for each score.
const EXPONENTIALS_A_CLOCK: f64 = 16.0;
/// Share of their time that shows. Published rates of one kernel for heads of 64, 128 and 256 lie on a line whose end, a head of no
/// width, is what shows: FlashAttention-3 forward on an H100 at 16k tokens 497, 648 and 756 TFLOP/s (Shah et al. 2024, figure 5)
/// make it 0.3 of the time at 128, FlashAttention-2 there (324, 370) 0.14, the kernels for Blackwell on a B200 (879, 1330;
/// Dao-AILab/flash-attention pull request 2605) 0.5: 0.70, 0.85 and 0.74 of all exponentials by the clocks that prices take.
/// Backward, of five products for each, shows no less: 299 and 318 by FlashAttention-2 at 8k (pull request 2688).
const SHOWN_EXPONENTIALS: f64 = 0.75;
/// FLOP a clock of a multiprocessor from which on its matrix products are so short that exponentials show beside them: GA100's.
/// Those of the RTX 4090, four times as long, hide them: heads of 64 and 128 have one rate there (apache/tvm,
/// `tl_doc/flash_perf.md`).
const SHORT_PRODUCTS: f64 = 2048.0;

/// Widest head of which the first FlashAttention's kernels hold all in registers.
const NARROW_HEAD: u64 = 64;

/// Forward: reads q, k, v, writes the output. Backward: reads those four and the output's gradient, writes
/// three gradients: twice as much.
pub(crate) fn traffic(shape: &AttentionShape) -> Bytes {
    let queries = shape.heads as f64 * shape.query_length as f64;
    let keys = shape.kv_heads as f64 * shape.key_length as f64;
    // Queries and keys are as wide as their heads, values and the result as theirs.
    let rows = (shape.head_dim as f64 + shape.value_dim as f64) * shape.dtype.bytes() as f64;
    let forward = shape.batch as f64 * (queries + keys) * rows;
    Bytes(match shape.pass {
        Pass::Forward => forward,
        Pass::Backward => 2.0 * forward,
    } as u64)
}

/// Rate of older kernels, of FlashAttention-2's on the same GPU.
///
/// On an A100 those of the first FlashAttention reach 30-50 % of the peak forward and 25-35 % backward, those of
/// FlashAttention-2 50-73 % and up to 63 % (Dao 2023, sections 1 and 4), and more of that for narrow heads; Triton's lie
/// between them (the same, figures 4 to 6: FlashAttention-2 is 1.3-2.5 times as fast). Within these ranges the values
/// follow published training steps of 512 to 65k tokens on A100s.
fn older_kernels(shape: &AttentionShape) -> f64 {
    let narrow = shape.head_dim <= NARROW_HEAD;
    match (shape.generation, shape.pass) {
        (FlashGeneration::Second | FlashGeneration::Current, _) => 1.0,
        (FlashGeneration::Triton, Pass::Forward) => 0.7,
        (FlashGeneration::Triton, Pass::Backward) => 0.58,
        (FlashGeneration::First, Pass::Forward) if narrow => 0.65,
        (FlashGeneration::First, Pass::Backward) if narrow => 0.55,
        (FlashGeneration::First, Pass::Forward) => 0.5,
        (FlashGeneration::First, Pass::Backward) => 0.43,
    }
}

/// Duration by blocks of queries and multiprocessors. Backward does 2.5 times the arithmetic (five products for
/// two) at the lower rate of [`crate::Achievable::attention_backward`].
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the format.
pub fn attention(gpu: &Gpu, shape: AttentionShape) -> Result<Price, PriceError> {
    let peak = arithmetic_of(gpu, shape.dtype)?.peak.value;
    let model = match (&gpu.achievable.portable_attention, shape.generation) {
        (Some(portable), generation) if generation < FlashGeneration::Current => portable,
        _ => &gpu.achievable.attention,
    };
    let peak = peak * pass_rate(gpu, shape.pass) * older_kernels(&shape);
    let seconds = seconds(gpu, peak, &shape, &model.coefficients);
    Ok(model.ground.price(gpu.kernel_latency_s + seconds))
}

/// Rate at which the forward's two products would run, of the peak: backward makes five.
pub(crate) fn pass_rate(gpu: &Gpu, pass: Pass) -> f64 {
    match pass {
        Pass::Forward => 1.0,
        Pass::Backward => gpu.achievable.attention_backward.value / 2.5,
    }
}

/// Time of a score's exponential on a multiprocessor, as far as matrix products do not hide it. An efficiency contains it; the
/// narrower the heads, the larger is its part of the time. Rates of kernels before FlashAttention-2 are stated as they came out,
/// whatever the width ([`older_kernels`]).
fn exponential_seconds(gpu: &Gpu, shape: &AttentionShape) -> f64 {
    let clocks = f64::from(gpu.sms) * gpu.clock_hz;
    // Clocks of data sheets are rounded.
    let shown = gpu.peak(shape.dtype).is_some_and(|peak| peak / clocks > 0.95 * SHORT_PRODUCTS);
    if shown && shape.generation >= FlashGeneration::Second {
        SHOWN_EXPONENTIALS / (EXPONENTIALS_A_CLOCK * gpu.clock_hz)
    } else {
        0.0
    }
}

/// Seconds without the fixed start; `peak` in FLOP/s at which the forward's two products run.
pub(crate) fn seconds(gpu: &Gpu, peak: f64, shape: &AttentionShape, c: &AttentionCoefficients) -> f64 {
    let sms = f64::from(gpu.sms);
    let (queries, keys) = (shape.query_length as f64, shape.key_length as f64);
    let blocks = (queries / QUERY_BLOCK).ceil();
    let longest = (keys / KEY_BLOCK).ceil() * KEY_BLOCK;
    // A causal block sees the keys up to its own diagonal: on average half, and half of its own block.
    let visited = if shape.causal {
        f64::midpoint(keys, QUERY_BLOCK * (keys / queries).min(1.0)).min(longest)
    } else {
        longest
    };
    // A window leaves out the keys beyond it, block by block.
    let visited = match shape.window {
        0 => visited,
        window => {
            let sides = if shape.causal { 1.0 } else { 2.0 };
            visited.min(sides * window as f64 + KEY_BLOCK)
        }
    };
    // One product is as wide as the queries' heads, the other as the values'.
    let widths = shape.head_dim as f64 + shape.value_dim as f64;
    let key_seconds = 2.0 * QUERY_BLOCK * widths * sms / (peak * c.efficiency)
        + QUERY_BLOCK * exponential_seconds(gpu, shape) * (1.0 - widths / MEASURED_WIDTHS).max(0.0);
    let load = shape.batch as f64 * shape.heads as f64 * blocks / sms;
    let bulk = load * (visited + c.fill) * key_seconds;
    let tail = c.tail * (longest + c.fill) * key_seconds;
    let arithmetic = (bulk * bulk + tail * tail).sqrt() * (1.0 + c.imbalance * c.crowd / (c.crowd + load));
    let throttled = arithmetic * (1.0 + c.throttle * arithmetic / (arithmetic + c.throttle_after_s));
    // The kernel before has written queries, keys and values, and the next one reads the result: they stay in the cache
    // where they fit.
    let traffic = traffic(shape).0 as f64;
    let slowness = slowness(traffic, gpu.l2.0 as f64 * c.l2_share, c.l2_speedup);
    throttled + traffic * slowness / (gpu.memory_bandwidth * c.bandwidth)
}

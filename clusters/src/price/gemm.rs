//! Matrix products as libraries run them: the result is cut into tiles, multiprocessors take a tile each, wave
//! after wave; the library picks the tile, and cuts the sums in several parts when tiles are few.
//!
//! Tile and wave quantization, and split sums: NVIDIA Deep Learning Performance, Matrix Multiplication
//! Background User's Guide; Osama et al. 2023 (Stream-K).

use steptime_models::{Bytes, Dtype};

use super::{Price, PriceError, arithmetic_of};
use crate::coefficients::{GemmCoefficients, TILES};
use crate::gpu::Gpu;

/// `batch` products of an `m` x `k` by a `k` x `n` matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmShape {
    /// Independent products.
    pub batch: u64,
    /// Rows of the result.
    pub m: u64,
    /// Columns of the result.
    pub n: u64,
    /// Length of the sums.
    pub k: u64,
    /// Format of the inputs.
    pub dtype: Dtype,
}

impl GemmShape {
    /// 2 b m n k.
    pub fn flops(&self) -> f64 {
        2.0 * self.batch as f64 * self.m as f64 * self.n as f64 * self.k as f64
    }

    /// Whether the rows of the matrices, of n or k values, start at multiples of 16 bytes, or it does not matter: the
    /// product does not run on tensor cores, or it is one of a batch of small ones.
    fn is_aligned(&self) -> bool {
        let bytes = self.dtype.bytes();
        let aligned = |length: u64| length.saturating_mul(bytes).is_multiple_of(ALIGNMENT);
        self.dtype == Dtype::Fp32 || self.batch > 1 || (aligned(self.n) && aligned(self.k))
    }

    /// Both inputs read once and the result written once; results of fp8 inputs are 16 bits wide.
    pub fn traffic(&self) -> Bytes {
        let Operands { activations, weights, .. } = self.operands(1.0);
        Bytes((activations + weights) as u64)
    }

    /// The same by operand: the left one and the result are activations, the right one weights.
    pub(crate) fn operands(&self, turns: f64) -> Operands {
        let (batch, m, n, k) = (self.batch as f64, self.m as f64, self.n as f64, self.k as f64);
        let width = self.dtype.bytes();
        let activations = m * k * width as f64 + m * n * width.max(2) as f64;
        Operands { activations: batch * activations, weights: batch * k * n * width as f64, turns }
    }
}

/// What a product moves, and what passes through the second-level cache before it is touched again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands {
    /// Bytes that the kernel before has written, or the next one reads: only this product's own operands lie between.
    pub(crate) activations: f64,
    /// Bytes of weights.
    pub(crate) weights: f64,
    /// How many weights of this size take turns before the same are read again: 1 where one product is repeated with the same
    /// ones, infinity where all others of a model come first.
    pub(crate) turns: f64,
}

impl Operands {
    /// Of a kernel whose operands are all made by its neighbours.
    pub(crate) fn activations(traffic: Bytes) -> Self {
        Self { activations: traffic.0 as f64, weights: 0.0, turns: 1.0 }
    }
}

/// In a step each weight is read once a pass: all others of the model come before it is read again.
const TURNS_IN_A_STEP: f64 = f64::INFINITY;

/// Parts that a sum over k may be cut into.
const SPLITS: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0];
/// Sums are split to fill multiprocessors that tiles alone leave idle, in the only wave or in the last: beyond this many
/// waves of parts the last one no longer matters.
const SPLIT_WAVES: f64 = 10.0;
/// Tensor cores are done with short parts before the partial sums are written: beyond one wave libraries cut only sums
/// so long that each part keeps this many values.
const SPLIT_LENGTH: f64 = 2048.0;
/// Bytes along k that a pipeline stage takes at once: 16 values of fp32, 32 of 16 bits.
const K_BYTES: f64 = 64.0;
/// Results of the tile that [`GemmCoefficients::resident`] counts.
const RESIDENT_TILE: f64 = 128.0 * 128.0;
/// Results of the largest tile, of which a multiprocessor runs one at a time.
const LARGEST_TILE: f64 = 256.0 * 128.0;
/// Speed of the traffic of partial sums, which stays in the second-level cache, over memory's.
const PARTIAL_SUMS: f64 = 2.5;

/// Share of the rate that products on tensor cores keep where rows of their matrices do not start at multiples of 16
/// bytes: the fast kernels load whole vectors of 16 bytes (NVIDIA Deep Learning Performance, Matrix Multiplication
/// Background, "Tensor Core Requirements"). By training steps of GPT models with a vocabulary of 50,257 against 50,368.
pub(super) const MISALIGNED: f64 = 0.4;
/// Bytes at multiples of which rows start for the fast kernels.
pub(super) const ALIGNMENT: u64 = 16;

/// Duration of the best choice of tile and split, and the fixed start of a kernel.
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the format.
pub fn gemm(gpu: &Gpu, shape: GemmShape) -> Result<Price, PriceError> {
    let arithmetic = arithmetic_of(gpu, shape.dtype)?;
    let model = &arithmetic.model;
    let peak = arithmetic.peak.value * if shape.is_aligned() { 1.0 } else { MISALIGNED };
    let work = Work::new(gpu, peak, &shape, shape.operands(TURNS_IN_A_STEP));
    let coefficients = under_load(gpu, shape.dtype, model.coefficients);
    Ok(model.ground.price(gpu.kernel_latency_s + work.seconds(&coefficients)))
}

/// The coefficients as they are in a job that keeps the GPU at its power limit.
///
/// Some measurements are of cool GPUs or of values that switch few transistors: zeros run at 295 TFLOP/s on an A100 where
/// random values run at 257 (He 2024, "Strangely, matrix multiplications on GPUs run faster when given predictable
/// data"). Of the slow-downs that the measurements of the two 16-bit formats show the larger counts: the same circuits draw
/// the same power.
fn under_load(gpu: &Gpu, dtype: Dtype, own: GemmCoefficients) -> GemmCoefficients {
    let sibling = match dtype {
        Dtype::Bf16 | Dtype::Tf32 => Dtype::Fp16,
        Dtype::Fp16 => Dtype::Bf16,
        _ => return own,
    };
    match gpu.arithmetic(sibling) {
        Some(other) if own.throttle < other.model.coefficients.throttle => {
            let GemmCoefficients { throttle, throttle_after_s, .. } = other.model.coefficients;
            GemmCoefficients { throttle, throttle_after_s, ..own }
        }
        _ => own,
    }
}

/// A product on a GPU, ready to be tried with tiles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    batch: f64,
    m: f64,
    n: f64,
    k: f64,
    k_step: f64,
    tensor_cores: bool,
    operands: Operands,
    sms: f64,
    /// FLOP/s of one multiprocessor.
    peak: f64,
    /// Bytes/s of the memory.
    bandwidth: f64,
    /// Bytes of the second-level cache.
    l2: f64,
}

impl Work {
    /// `peak` in FLOP/s of the whole GPU; `operands` are what moves to and from memory.
    pub(crate) fn new(gpu: &Gpu, peak: f64, shape: &GemmShape, operands: Operands) -> Self {
        let sms = f64::from(gpu.sms);
        Self {
            batch: shape.batch as f64,
            m: shape.m as f64,
            n: shape.n as f64,
            k: shape.k as f64,
            k_step: K_BYTES / shape.dtype.bytes() as f64,
            tensor_cores: shape.dtype != Dtype::Fp32,
            operands,
            sms,
            peak: peak / sms,
            bandwidth: gpu.memory_bandwidth,
            l2: gpu.l2.0 as f64,
        }
    }

    /// Seconds without the fixed start: arithmetic and memory time of each candidate, joined by a 4-norm because
    /// they overlap, and a part that does not; the best candidate counts. Partial sums are added up when all are there, by
    /// a kernel of its own.
    pub(crate) fn seconds(&self, c: &GemmCoefficients) -> f64 {
        let bandwidth = self.bandwidth * c.bandwidth;
        let operands = self.operand_seconds(c, bandwidth);
        let mut best = f64::INFINITY;
        for (rows, columns, class) in TILES {
            let (rows, columns) = (f64::from(rows), f64::from(columns));
            let tiles = self.batch * (self.m / rows).ceil() * (self.n / columns).ceil();
            let step = 2.0 * rows * columns / (self.peak * c.tiles[class]);
            let resident = (c.resident * RESIDENT_TILE / (rows * columns)).max(1.0);
            for split in SPLITS {
                let parts = tiles * split / self.sms;
                if split > 1.0 && parts > self.split_waves(split) {
                    break;
                }
                let steps = (self.k / split / self.k_step).ceil() * self.k_step;
                let waves = waves(parts, LARGEST_TILE / (rows * columns), c);
                let mut arithmetic = (waves * steps + (waves / resident).max(1.0) * c.fill) * step;
                arithmetic *= 1.0 + c.throttle * arithmetic / (arithmetic + c.throttle_after_s);
                let adding = if split > 1.0 {
                    let partial = 8.0 * split * self.batch * self.m * self.n;
                    c.split_s + partial / (bandwidth * PARTIAL_SUMS)
                } else {
                    0.0
                };
                if arithmetic.max(operands) + adding < best {
                    let joined = (fourth_power(arithmetic) + fourth_power(operands)).sqrt().sqrt();
                    best = best.min(joined + c.serial * arithmetic.min(operands) + adding);
                }
            }
        }
        best
    }

    /// The most waves of parts for which a library cuts sums into so many.
    fn split_waves(&self, split: f64) -> f64 {
        let short = self.tensor_cores && self.k / split < SPLIT_LENGTH;
        if short { 1.0 } else { SPLIT_WAVES }
    }

    /// Operands and result, each once; faster where they stay in the second-level cache between kernels.
    fn operand_seconds(&self, c: &GemmCoefficients, bandwidth: f64) -> f64 {
        let Operands { activations, weights, turns } = self.operands;
        let kept = activations * self.slowness(c, activations + weights);
        // Without weights there is nothing to take turns, however often.
        let read =
            if weights > 0.0 { weights * self.slowness(c, activations + turns * weights) } else { 0.0 };
        (kept + read) / bandwidth
    }

    /// Time to move data, of what memory takes for it, when `between` bytes pass through the second-level cache from one use
    /// to the next: those that fit stay, and the edge is that of a cache which is not quite least-recently-used.
    pub(crate) fn slowness(&self, c: &GemmCoefficients, between: f64) -> f64 {
        slowness(between, self.l2 * c.l2_share, c.l2_speedup)
    }
}

/// Time to move data, of what memory takes, when `between` bytes pass through a cache of `cache` bytes from one use to the next;
/// `speedup` is that of data in the cache.
pub(super) fn slowness(between: f64, cache: f64, speedup: f64) -> f64 {
    1.0 - in_cache(between, cache) * (1.0 - 1.0 / speedup)
}

/// Share of data that is still in a cache of `cache` bytes after `between` bytes have passed through it.
pub(super) fn in_cache(between: f64, cache: f64) -> f64 {
    let filled = between / cache;
    1.0 / (1.0 + fourth_power(filled) * fourth_power(filled))
}

fn fourth_power(x: f64) -> f64 {
    (x * x) * (x * x)
}

/// Waves that tiles for `parts` times all multiprocessors take. The first is never less than one, and an incomplete one
/// after it costs between its share and a whole one, as persistent kernels balance it or not.
///
/// Of tiles that are smaller than the largest a multiprocessor runs `group` at once; they share its tensor cores and end
/// together, and a library that could trim the last wave with them takes the largest tile all the same: on an A100,
/// products of 1.04 to 1.5 waves of 256x128 take exactly two of these, and not three of 128x128. Two tiles of a group
/// of four fill half of it.
pub(super) fn waves(parts: f64, group: f64, c: &GemmCoefficients) -> f64 {
    if parts <= 1.0 {
        return 1.0;
    }
    let whole = parts.ceil();
    let grouped = if parts > group { (parts / group).ceil() * group } else { power_of_two(whole) };
    parts + c.remainder * (whole - parts) + c.together * (grouped - whole)
}

/// The least power of two that is not below a whole number.
fn power_of_two(whole: f64) -> f64 {
    (whole as u64).next_power_of_two() as f64
}

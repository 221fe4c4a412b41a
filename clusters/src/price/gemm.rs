//! Matrix products.

use steptime_models::{Bytes, Dtype};

use super::roofline::{Work, roofline};
use super::{Price, PriceError, arithmetic_of};
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

    /// Both inputs read once and the result written once; results of fp8 inputs are 16 bits wide.
    pub fn traffic(&self) -> Bytes {
        let (batch, m, n, k) = (self.batch as f64, self.m as f64, self.n as f64, self.k as f64);
        let width = self.dtype.bytes();
        let inputs = (m * k + k * n) * width as f64;
        let result = m * n * width.max(2) as f64;
        Bytes((batch * (inputs + result)) as u64)
    }
}

/// Roofline with the format's peak and the fraction of it that large products reach.
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the format.
pub fn gemm(gpu: &Gpu, shape: GemmShape) -> Result<Price, PriceError> {
    let arithmetic = arithmetic_of(gpu, shape.dtype)?;
    let work = Work { amount: shape.flops(), peak: arithmetic.peak.value, fraction: arithmetic.gemm };
    Ok(roofline(gpu, Some(work), shape.traffic(), gpu.achievable.memory.elementwise))
}

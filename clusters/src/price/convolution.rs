//! Convolutions.

use steptime_models::ConvolutionShape;

use super::roofline::{Work, roofline};
use super::{Price, PriceError, arithmetic_of};
use crate::gpu::Gpu;

/// Roofline with the format's peak and the fraction of it that convolutions reach.
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the format.
pub fn convolution(gpu: &Gpu, shape: ConvolutionShape) -> Result<Price, PriceError> {
    let peak = arithmetic_of(gpu, shape.dtype)?.peak.value;
    let work = Work { amount: shape.flops().0 as f64, peak, fraction: gpu.achievable.convolution };
    Ok(roofline(gpu, Some(work), shape.traffic, gpu.achievable.memory.elementwise))
}

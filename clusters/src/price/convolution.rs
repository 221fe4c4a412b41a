//! Convolutions.

use steptime_models::{ConvolutionShape, MemoryBoundKind};

use super::gemm::{GemmShape, Work};
use super::memory::memory_seconds;
use super::{Ground, Price, PriceError, arithmetic_of};
use crate::gpu::Gpu;

/// Implicit GEMM (Chetlur et al. 2014): each output position of each image is a row, each output channel a column,
/// and the sum runs over the filter's channels and positions; groups are a batch. Its rate is the share
/// [`crate::Achievable::convolution`] of the matrix product's. Memory traffic is the operation's own: the
/// unfolded input is never written. A depthwise convolution has sums too short for tiles and is bound by memory.
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the format.
pub fn convolution(gpu: &Gpu, shape: ConvolutionShape) -> Result<Price, PriceError> {
    let arithmetic = arithmetic_of(gpu, shape.dtype)?;
    let groups = shape.groups.max(1);
    let ground = Ground::of(gpu.achievable.convolution, arithmetic.model.ground.error);
    if groups > 1 && groups == shape.in_channels {
        let seconds = memory_seconds(gpu, shape.traffic, MemoryBoundKind::Elementwise);
        return Ok(ground.price(gpu.kernel_latency_s + seconds));
    }
    let positions = shape.batch.saturating_mul(shape.out_height).saturating_mul(shape.out_width);
    let filter = shape.kernel_height.saturating_mul(shape.kernel_width);
    let product = GemmShape {
        batch: groups,
        m: positions,
        n: shape.out_channels.div_ceil(groups),
        k: (shape.in_channels / groups).max(1).saturating_mul(filter),
        dtype: shape.dtype,
    };
    let peak = arithmetic.peak.value * gpu.achievable.convolution.value;
    let seconds = Work::new(gpu, peak, &product, shape.traffic).seconds(&arithmetic.model.coefficients);
    Ok(ground.price(gpu.kernel_latency_s + seconds))
}

//! Convolutions.

use steptime_models::{ConvolutionPass, ConvolutionShape, Dtype, MemoryFormat};

use super::gemm::{ALIGNMENT, GemmShape, MISALIGNED, Operands, Work};
use super::{Price, PriceError, arithmetic_of};
use crate::coefficients::ConvolutionCoefficients;
use crate::gpu::Gpu;

/// Implicit GEMM (Chetlur et al. 2014) at a share of the matrix product's rate, each group a product of its own. Memory
/// traffic is the operation's own: the unfolded input is never written. Tensor cores read channels last: tensors that
/// are contiguous are copied into that layout and back around the kernel (NVIDIA Convolutional Layers User's Guide,
/// "Tensor Layouts"). A depthwise convolution has sums too short for tiles: multiply-adds on the CUDA cores, in 32 bits
/// whatever the format, and traffic. In 32-bit floats 3x3 filters without stride run as products of transformed tiles
/// (Winograd).
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the format.
pub fn convolution(gpu: &Gpu, shape: ConvolutionShape) -> Result<Price, PriceError> {
    let arithmetic = arithmetic_of(gpu, shape.dtype)?;
    let model = &gpu.achievable.convolution;
    let c = &model.coefficients;
    if shape.groups > 1 && shape.groups == shape.in_channels {
        let peak = gpu.peak(Dtype::Fp32).unwrap_or(arithmetic.peak.value);
        let seconds = depthwise_seconds(gpu, peak, &shape, c);
        return Ok(model.ground.price(gpu.kernel_latency_s + seconds));
    }
    let (rate, copied) = match shape.pass {
        ConvolutionPass::Forward => (c.forward, c.layout_forward),
        ConvolutionPass::GradInput | ConvolutionPass::GradWeight => (c.backward, c.layout_backward),
    };
    let rate = if shape.groups > 1 { rate * c.grouped } else { rate };
    let rate = if is_winograd(&shape) { rate * WINOGRAD } else { rate };
    let product = implicit_product(&shape);
    let peak = arithmetic.peak.value * if is_aligned(&shape) { 1.0 } else { MISALIGNED };
    let work = Work::new(gpu, peak, &product, Operands::activations(shape.traffic));
    let mut seconds = gpu.kernel_latency_s + work.seconds(&arithmetic.model.coefficients) / rate;
    if shape.format == MemoryFormat::Contiguous && on_tensor_cores(shape.dtype) {
        let copied = if shape.dtype == Dtype::Tf32 { copied * c.layout_tf32 } else { copied };
        seconds += 2.0 * gpu.kernel_latency_s + copied * shape.traffic.0 as f64 / gpu.memory_bandwidth;
    }
    Ok(model.ground.price(seconds))
}

/// Speed of 3x3 convolutions by minimal filtering F(2x2, 3x3) over those by direct products: 2.25 times fewer
/// multiplications, of which the transformations of tiles leave 1.5 to 2 (Lavin and Gray 2015, Fast Algorithms for
/// Convolutional Neural Networks, sections 4.1 and 6).
const WINOGRAD: f64 = 1.6;
/// Fewest channels on either side for which the transformations pay.
const WINOGRAD_CHANNELS: u64 = 32;

/// Whether cuDNN filters minimally: 32-bit floats, 3x3, no stride, one group, enough channels. On tensor cores direct
/// products are faster.
const fn is_winograd(shape: &ConvolutionShape) -> bool {
    matches!(shape.dtype, Dtype::Fp32)
        && shape.kernel_height == 3
        && shape.kernel_width == 3
        && shape.stride == 1
        && shape.groups == 1
        && shape.in_channels >= WINOGRAD_CHANNELS
        && shape.out_channels >= WINOGRAD_CHANNELS
}

const fn on_tensor_cores(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Tf32 | Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp8)
}

/// Most channels of images, whose convolutions have kernels of their own: no more than are padded in passing (NVIDIA
/// Convolutional Layers User's Guide, "Channels In And Out").
const IMAGE_CHANNELS: u64 = 4;

/// Whether a pixel's channels fill whole vectors of 16 bytes, 8 of 16 bits or 4 of 32, or it does not matter: tensor cores
/// run efficiently only then (the same guide, "Quick Start Checklist").
fn is_aligned(shape: &ConvolutionShape) -> bool {
    let whole = |channels: u64| channels.saturating_mul(shape.dtype.bytes()).is_multiple_of(ALIGNMENT);
    let (from, to) = (shape.in_channels, shape.out_channels);
    !on_tensor_cores(shape.dtype) || whole(to) && (from <= IMAGE_CHANNELS || whole(from))
}

fn depthwise_seconds(gpu: &Gpu, peak: f64, shape: &ConvolutionShape, c: &ConvolutionCoefficients) -> f64 {
    let memory = shape.traffic.0 as f64 / (gpu.memory_bandwidth * c.depthwise_bandwidth);
    memory + shape.flops().0 as f64 / (peak * c.depthwise_arithmetic)
}

/// The matrix product that a pass amounts to. Forward: positions of the result by channels out, sums over channels in
/// and the filter. Gradient of the input: its positions by channels in; a filter that moves by s pixels meets each of
/// them in one position of s^2. Gradient of the filter: its values, sums over the positions of the result.
fn implicit_product(shape: &ConvolutionShape) -> GemmShape {
    let groups = shape.groups.max(1);
    let positions = shape.batch.saturating_mul(shape.out_height).saturating_mul(shape.out_width);
    let filter = shape.kernel_height.saturating_mul(shape.kernel_width);
    let (from, to) = ((shape.in_channels / groups).max(1), shape.out_channels.div_ceil(groups));
    let (m, n, k) = match shape.pass {
        ConvolutionPass::Forward => (positions, to, from.saturating_mul(filter)),
        ConvolutionPass::GradInput => {
            let skipped = shape.stride.saturating_mul(shape.stride).clamp(1, filter.max(1));
            (positions.saturating_mul(skipped), from, to.saturating_mul(filter).div_ceil(skipped))
        }
        ConvolutionPass::GradWeight => (to, from.saturating_mul(filter), positions),
    };
    GemmShape { batch: groups, m, n, k, dtype: shape.dtype }
}

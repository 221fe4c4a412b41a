//! Convolutions.

use steptime_models::{Bytes, Dtype, Kernel};

use super::roofline::{Work, roofline};
use super::{Price, PriceError, arithmetic_of};
use crate::gpu::Gpu;

/// Two-dimensional convolution; the fields are those of [`Kernel::Convolution`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvolutionShape {
    /// Images.
    pub batch: u64,
    /// Channels in.
    pub in_channels: u64,
    /// Channels out.
    pub out_channels: u64,
    /// Rows of the output.
    pub out_height: u64,
    /// Columns of the output.
    pub out_width: u64,
    /// Rows of the filter.
    pub kernel_height: u64,
    /// Columns of the filter.
    pub kernel_width: u64,
    /// Filter groups.
    pub groups: u64,
    /// Bytes read and written.
    pub traffic: Bytes,
    /// Format of the inputs.
    pub dtype: Dtype,
}

impl ConvolutionShape {
    /// The FLOPs of [`Kernel::flops`].
    pub fn flops(&self) -> f64 {
        let kernel = Kernel::Convolution {
            batch: self.batch,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            out_height: self.out_height,
            out_width: self.out_width,
            kernel_height: self.kernel_height,
            kernel_width: self.kernel_width,
            groups: self.groups,
            traffic: self.traffic,
            dtype: self.dtype,
        };
        kernel.flops().0 as f64
    }
}

/// Roofline with the format's peak and the fraction of it that convolutions reach.
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the format.
pub fn convolution(gpu: &Gpu, shape: ConvolutionShape) -> Result<Price, PriceError> {
    let peak = arithmetic_of(gpu, shape.dtype)?.peak.value;
    let work = Work { amount: shape.flops(), peak, fraction: gpu.achievable.convolution };
    Ok(roofline(gpu, Some(work), shape.traffic, gpu.achievable.memory.elementwise))
}

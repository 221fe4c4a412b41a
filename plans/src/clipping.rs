//! How gradients are clipped between backward and the update.

/// Clipping of all gradients together to a largest norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clipping {
    /// None.
    #[default]
    None,
    /// Norm and scaling stay on the device: every gradient is multiplied by a factor of at most 1 (PyTorch's
    /// `clip_grad_norm_` from 1.10 on).
    Device,
    /// The host reads the norm first, and so waits for backward: Megatron-LM, DeepSpeed, Apex, PyTorch before 1.10.
    Host,
}

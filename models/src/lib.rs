//! Architectures as the simulator sees them: exact parameters, the operations of forward and backward, and the
//! tensors kept between the two.
//!
//! A [`Model`] comes from the embedded catalogue ([`Model::from_catalogue`]) or from a user's file of the same
//! form ([`Model::from_toml`]). It is a list of [`Layer`]s; [`Model::work`] expands one of them for a micro-batch
//! into a [`LayerWork`]: operations described by shape, never by time. What an operation costs is the business
//! of whoever knows the hardware.
//!
//! **Invariant**: this crate knows no hardware, no parallelism and no clock, and does no input or output; the
//! catalogue is part of the binary.
//!
//! ```
//! use steptime_models::{AttentionKind, Dtype, Fusion, Model, Overrides, TensorParallel, WorkShape};
//!
//! let model = Model::from_catalogue("gpt2", &Overrides::none())?;
//! assert_eq!(model.parameters(), 124_439_808);
//! let shape = WorkShape {
//!     micro_batch: 4,
//!     sequence_length: 1024,
//!     compute: Dtype::Bf16,
//!     activation: Dtype::Bf16,
//!     attention: AttentionKind::Flash,
//!     training: true,
//!     tensor: TensorParallel::NONE,
//!     fusion: Fusion::None,
//!     ..WorkShape::default()
//! };
//! let block = model.work(1, &shape);
//! assert!(block.backward_flops() > block.forward_flops());
//! # Ok::<(), steptime_models::ModelError>(())
//! ```

mod blocks;
mod catalogue;
mod component;
mod division;
mod document;
mod error;
mod families;
mod model;
mod operation;
mod overrides;
mod parameter;
mod quantity;
mod shape;
mod tape;
mod trainable;
mod units;
mod work_shape;

pub use catalogue::{catalogue_names, is_in_catalogue};
pub use component::{Component, ComponentGraph, Partition};
pub use division::{ContextMethod, ContextParallel, Division, ExpertParallel};
pub use error::{ModelError, Place};
pub use families::Family;
pub use model::{Layer, LayerRole, Model, Sample};
pub use operation::{
    Dtype, ExchangeGroup, ExchangeKind, Kernel, LayerWork, MemoryBoundKind, Operation, Pass, SavedTensor,
    Temporary, WeightGradients,
};
pub use overrides::{FieldValue, Overrides};
pub use parameter::{ExpertPlace, Parameter, Split};
pub use quantity::{Dimension, UnitError, parse_quantity};
pub use shape::{AttentionShape, ConvolutionPass, ConvolutionShape, FlashGeneration, MemoryFormat};
pub use trainable::{Lora, Trainable};
pub use units::{Bytes, Flops};
pub use work_shape::{
    AttentionKind, Convolutions, CrossEntropy, Formats, Fusion, Modules, Scaling, TensorParallel, WorkShape,
};

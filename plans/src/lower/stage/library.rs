//! What libraries hold for themselves as long as the process runs: workspaces, buffers that all layers share, gradients
//! that stand for others, and inputs of stages that nobody lets go.

use steptime_clusters::{Framework, GpuArchitecture};
use steptime_models::{LayerRole, Modules, Parameter};

use super::{Chunk, StageBuilder, StageInput};
use crate::classes;
use crate::workload::Checkpointing;
use crate::zero::ZeroStage;

const MIB: u64 = 1 << 20;

/// Streams over which Transformer Engine spreads the products of a grouped linear layer, each with a workspace of its own
/// (`get_multi_stream_cublas_workspace`).
const GROUPED_STREAMS: usize = 4;

/// Workspace that PyTorch gives cuBLAS for each handle and stream (`getChosenWorkspaceSize`, `CUDABlas.cpp`): 32 MiB from
/// Hopper on, before that `:4096:2:16:8`, two of 4 MiB and eight of 16 KiB. With deterministic algorithms it is set by the
/// user: `:4096:8`, eight of 4 MiB.
fn blas_workspace(architecture: GpuArchitecture, deterministic: bool) -> u64 {
    match architecture {
        _ if deterministic => 8 * 4 * MIB,
        GpuArchitecture::Hopper | GpuArchitecture::Blackwell => 32 * MIB,
        _ => (2 << 22) + (8 << 14),
    }
}

/// Workspace that Transformer Engine gives cuBLAS (`get_cublas_workspace_size_bytes`).
fn engine_workspace(architecture: GpuArchitecture) -> u64 {
    match architecture {
        GpuArchitecture::Hopper | GpuArchitecture::Blackwell => 32 * MIB,
        _ => 4 * MIB,
    }
}

impl StageInput<'_> {
    fn uses_engine(&self) -> bool {
        self.workload.modules == Modules::TransformerEngine
    }

    /// By handle.
    fn workspaces(&self) -> Vec<u64> {
        let architecture = self.cluster.gpu.architecture;
        // The thread of backward has a handle of its own.
        let handles = if self.training() { 2 } else { 1 };
        let streams = match (self.uses_engine(), self.model.experts() > 0) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => 1 + GROUPED_STREAMS,
        };
        let mut workspaces = vec![blas_workspace(architecture, self.workload.deterministic); handles];
        workspaces.resize(handles + streams, engine_workspace(architecture));
        workspaces
    }

    /// Megatron-LM's global buffer of the tensor-parallel group: scores that its own attention writes, and the tokens that
    /// its own linear layers gather under sequence parallelism (those of the head, where Transformer Engine has the
    /// others).
    fn global_buffer(&self) -> u64 {
        let scores = self.layers().map(|layer| self.costs.layer(layer).work.shared_buffer.0).max();
        let gathers = self.plan.tensor > 1 && self.plan.sequence_parallel;
        let own = self.workload.modules == Modules::MegatronLocal;
        let gathering = self.layers().filter(|&layer| match self.model.layers[layer].role {
            LayerRole::Block => own,
            LayerRole::Head => self.workload.modules.sequence_first(),
            LayerRole::Embedding | LayerRole::Component => false,
        });
        let part = gathering.map(|layer| self.costs.layer(layer).work.input.0).max();
        let gathered = if gathers { part.unwrap_or(0) * self.plan.tensor } else { 0 };
        scores.unwrap_or(0).max(gathered)
    }

    /// Where products add to the gradients of weights at once, autograd still wants a gradient to hand on: Transformer
    /// Engine keeps an uninitialized one for each shape of a weight (`get_dummy_wgrad`, since 2.8).
    fn stand_in_gradients(&self) -> u64 {
        let fused = self.training() && self.workload.accumulation_fusion;
        if !fused || !self.uses_engine() || self.plan.zero == ZeroStage::Three {
            return 0;
        }
        // Blocks are alike: what the largest has are the shapes that there are; of experts one.
        let wanted = |it: &Parameter| {
            it.trainable && it.dimensions.len() == 2 && it.expert.is_none_or(|place| place.number == 0)
        };
        let blocks = self.layers().filter(|&layer| self.model.layers[layer].role == LayerRole::Block);
        let values = blocks.map(|layer| self.count(layer, wanted)).max().unwrap_or(0);
        values * self.workload.parameter_format().bytes()
    }
}

impl StageBuilder<'_> {
    /// Allocates what libraries hold from the first step on.
    pub(super) fn hold_library(&mut self) {
        let input = self.input;
        for workspace in input.workspaces() {
            self.hold("cuBLAS workspace", workspace, classes::WORKSPACE);
        }
        self.hold("global memory buffer", input.global_buffer(), classes::BUFFERS);
        self.hold("stand-in gradients", input.stand_in_gradients(), classes::BUFFERS);
        let gathers = input.plan.tensor > 1 && input.plan.sequence_parallel && input.training();
        if gathers && input.workload.framework == Framework::Nanotron {
            // Buffers that all layers gather into in turn, one forward and one backward (nanotron's `MemoryBuffer`).
            let gather = |role| matches!(role, LayerRole::Block | LayerRole::Head);
            let layers = input.layers().filter(|&layer| gather(input.model.layers[layer].role));
            let part = layers.map(|layer| input.costs.layer(layer).work.input.0).max().unwrap_or(0);
            for _ in 0..2 {
                self.hold("gathered activations", part * input.plan.tensor, classes::BUFFERS);
            }
        }
    }

    /// Megatron-LM's stages name what they received last (`set_input_tensor`), and with it its gradient, until the next
    /// forward.
    pub(super) fn hold_received(&mut self) {
        let input = self.input;
        if input.workload.framework != Framework::Megatron || !input.training() {
            return;
        }
        let last = input.schedule.micro_batches.saturating_sub(1);
        let received = input.chunks.iter().filter(|chunk| chunk.crosses[0].is_some());
        let bytes: u64 = received.map(|chunk| self.boundary(chunk.layers.start, last)).sum();
        self.hold("input of the stage", bytes, classes::BUFFERS);
        self.hold("gradient of the stage's input", bytes, classes::BUFFERS);
    }

    /// Megatron-LM widens gradients of 16 bits for its update and lets the wide ones go when the next step begins
    /// (`_copy_model_grads_to_main_grads`).
    pub(super) fn hold_wide_gradients(&mut self, share: u64) {
        let workload = self.input.workload;
        let wide = workload.gradients().bytes() >= 4 || !workload.has_master_copy();
        if workload.framework == Framework::Megatron && !wide {
            self.hold("32-bit gradients", 4 * share, classes::GRADIENTS);
        }
    }

    /// The mask that the loader makes, where a stage that gets a batch begins a chunk's forward.
    pub(super) fn make_mask(&mut self, chunk: usize, micro_batch: u32) {
        let input = self.input;
        let Chunk { layers, .. } = &input.chunks[chunk];
        let batch = layers.start == 0 || layers.end == input.model.layers.len();
        if !input.workload.attention_mask || !batch {
            return;
        }
        let length = input.workload.sequence_length;
        let part = length.div_ceil(input.plan.context.max(1));
        let bytes = input.samples(micro_batch).saturating_mul(part).saturating_mul(length);
        let label = self.program.label("attention mask");
        let mask = self.program.tensor(bytes, classes::BUFFERS, label);
        self.program.alloc(self.streams.compute, mask);
        self.masks[micro_batch as usize].push((chunk, mask));
    }

    /// Checkpoints of whole blocks keep it for backward; otherwise nobody wants it when forward has ended.
    pub(super) fn drop_mask(&mut self, chunk: usize, micro_batch: u32, backward: bool) {
        let kept = self.input.training() && self.input.workload.checkpointing == Checkpointing::Full;
        if kept != backward {
            return;
        }
        let masks = &mut self.masks[micro_batch as usize];
        if let Some(at) = masks.iter().position(|(of, _)| *of == chunk) {
            let (_, mask) = masks.remove(at);
            self.free(Some(mask));
        }
    }
}

//! States and activations that are kept in the host or on drives: their way there and back, and the host's update.
//!
//! Traffic of a rank's part of `n` trained values, `s` bytes each as stored, over a step of `M` micro-batches (DeepSpeed,
//! `stage_1_and_2.py`, `stage3.py`):
//!
//! | stage | to the host | to the device |
//! | --- | --- | --- |
//! | 1 | `4 n` | `s n` |
//! | 2 | `4 n + (M - 1) s n` | `s n + (M - 1) s n` |
//! | 3 | `4 n + M s n` | `s n + M s n`; `M s n` where parameters are offloaded as well |
//!
//! Gradients cross in 32 bits when the step's are complete, before that as they are stored: ZeRO 3 takes every
//! micro-batch's back to the device, which adds faster. The host converts updated values before they cross: up to ZeRO 2
//! into a page-locked buffer, with ZeRO 3 into memory that is not page-locked. Offloaded parameters cross once for each
//! pass over their layer.

use std::collections::BTreeMap;

use steptime_clusters::{Cluster, Framework, HOST_ADAM_TRAFFIC};
use steptime_core::{Event, Label, ProgramBuilder, SimTime, Stream, Tensor};
use steptime_models::{LayerRole, Model, Pass};

use super::data_parallel::copied;
use super::passes::Turn;
use super::{Meeting, StageBuilder, StageInput};
use crate::bucket::Share;
use crate::classes;
use crate::error::PlanError;
use crate::lower::host_ports::HostPath;
use crate::offload::{HostTensor, HostUse, Stashed, Store, page_locked};
use crate::plan::Plan;
use crate::workload::{OptimizerKind, Task, Workload};
use crate::zero::{StateBytes, ZeroStage};

/// Bytes of a value in 32 bits.
const WIDE: u64 = 4;
/// Traffic with the host's memory of unscaling and clipping a gradient: read and written.
const UNSCALE_TRAFFIC: u64 = 2 * WIDE;

/// Streams on which a rank's host works beside its GPU. They are the computation's where nothing is offloaded.
#[derive(Clone, Copy)]
pub(super) struct HostStreams {
    to_host: Stream,
    to_device: Stream,
    processor: Stream,
    reads: Stream,
    writes: Stream,
}

impl HostStreams {
    /// Those that a stage needs.
    pub(super) fn open(program: &mut ProgramBuilder, input: &StageInput<'_>, compute: Stream) -> Self {
        let mut stream = |wanted: bool, name| if wanted { program.stream(name) } else { compute };
        let offload = &input.plan.offload;
        let drives = offload.uses_drives();
        Self {
            to_host: stream(offload.acts(), "copies to host"),
            to_device: stream(offload.acts(), "copies to device"),
            processor: stream(input.offloads_optimizer(), "host optimizer"),
            reads: stream(drives, "drive reads"),
            writes: stream(drives, "drive writes"),
        }
    }
}

/// Activations of blocks in the host, and on their way.
#[derive(Default)]
pub(super) struct Stashes {
    /// Copied beside the computation and still on the device: layer, micro-batch, when the copy is done.
    leaving: Vec<(usize, u32, Event)>,
    /// What has been copied of a layer and micro-batch.
    away: BTreeMap<(usize, u32), Away>,
    /// When what was asked for is back.
    back: BTreeMap<(usize, u32), Event>,
    /// What the host holds.
    held: u64,
}

/// Activations of a layer and micro-batch that the host has.
struct Away {
    /// Tensors and their sizes in bytes. Where times alone are lowered all tensors are one, and only sizes tell them apart.
    kept: Vec<(Tensor, u64)>,
    /// What they take there, bytes.
    bytes: u64,
    /// When they were copied, where that is beside the computation.
    copied: Option<Event>,
}

/// Whether what a plan offloads can be.
pub(in crate::lower) fn check_offload(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
) -> Result<(), PlanError> {
    let offload = &plan.offload;
    if !offload.acts() {
        return Ok(());
    }
    let optimizer = offload.optimizer != Store::Device;
    let training = workload.task == Task::Training;
    let fault = match cluster.host.backing {
        _ if model.components().is_some() => Some("component models have no states that could be offloaded"),
        None => Some("the cluster does not say what its hosts' memory and processors can do"),
        Some(backing) if offload.uses_drives() && backing.drives.is_none() => {
            Some("the cluster's nodes have no NVMe drives, allowed: \"cpu\"")
        }
        _ if !training && (optimizer || offload.activations) => {
            Some("inference has neither optimizer states nor saved activations")
        }
        _ if optimizer && plan.zero == ZeroStage::Zero => {
            Some("an offloaded optimizer needs zero_stage = 1, 2 or 3")
        }
        _ if offload.optimizer == Store::Drive && plan.zero != ZeroStage::Three => {
            Some("optimizer states on drives need zero_stage = 3, allowed below: \"cpu\"")
        }
        _ if offload.parameters != Store::Device && plan.zero != ZeroStage::Three => {
            Some("offloaded parameters need zero_stage = 3")
        }
        _ if training && offload.parameters != Store::Device && !optimizer => {
            Some("offloaded parameters need an offloaded optimizer, as in DeepSpeed")
        }
        _ if optimizer && plan.pipeline > 1 => Some("an offloaded optimizer needs pipeline = 1"),
        _ if optimizer && workload.framework == Framework::Nanotron => {
            Some("nanotron offloads no optimizer; allowed frameworks: pytorch, megatron")
        }
        _ if optimizer && !matches!(workload.optimizer, OptimizerKind::Adam | OptimizerKind::AdamW) => {
            Some("the host updates with Adam only; allowed optimizers: adam, adamw")
        }
        _ => None,
    };
    fault.map_or(Ok(()), |message| Err(PlanError::Offload { message: message.to_owned() }))
}

impl StageInput<'_> {
    /// Whether the host holds and updates optimizer states.
    pub(super) fn offloads_optimizer(&self) -> bool {
        self.training() && self.plan.offload.optimizer != Store::Device
    }

    /// Whether partitioned parameters are fetched before use.
    pub(super) fn offloads_parameters(&self) -> bool {
        self.plan.offload.parameters != Store::Device
    }

    /// Whether what forward keeps of a layer goes to the host.
    fn offloads_activations(&self, layer: usize) -> bool {
        let block = self.model.layers[layer].role == LayerRole::Block;
        block && self.training() && self.plan.offload.activations
    }

    /// Bytes of model states that a rank holds on its GPU all the time.
    pub(in crate::lower) fn device_states(&self) -> StateBytes {
        let mut states = self.states();
        if self.offloads_optimizer() {
            states.optimizer_states = 0;
            if self.plan.zero >= ZeroStage::Two {
                states.gradients = 0;
            }
        }
        if self.offloads_parameters() {
            states.parameters = 0;
        }
        states
    }

    /// Trained values whose states this rank has, in the groups in which the host updates them.
    ///
    /// ZeRO 3 cuts each tensor into equal parts, and closes a group at the tensor with which its parts reach the size
    /// (`_create_fp16_sub_groups` in DeepSpeed's `stage3.py`): there are no more groups than tensors, however small it is.
    fn own_trained(&self) -> Vec<u64> {
        if self.plan.zero != ZeroStage::Three {
            return vec![
                self.shares().map(|share| self.held(share).trained.div_ceil(self.ranks(share))).sum(),
            ];
        }
        let (division, size) = (self.plan.division(), self.plan.offload.sub_group);
        let mut groups = Vec::new();
        for share in self.shares() {
            let mut open = 0;
            for parameter in self.layers().flat_map(|layer| self.model.layers[layer].parameters.iter()) {
                if !parameter.trainable || !self.owns(parameter) || !share.contains(parameter, &division) {
                    continue;
                }
                open += parameter.held_in(&division).div_ceil(self.ranks(share));
                if open >= size {
                    groups.push(std::mem::take(&mut open));
                }
            }
            groups.push(open);
        }
        groups.retain(|&values| values > 0);
        groups
    }

    /// Ways through the host that the stage takes.
    pub(super) fn host_ways(&self) -> Vec<(Meeting, &'static str)> {
        let offload = &self.plan.offload;
        let optimizer = self.offloads_optimizer();
        let drives = offload.uses_drives();
        let ways = [
            (HostPath::ToHost, "copies to host", optimizer || offload.activations),
            (HostPath::ToDevice, "copies to device", offload.acts()),
            (HostPath::UnpinnedToDevice, "unpinned copies to device", optimizer),
            (HostPath::Processor, "host processor", optimizer),
            (HostPath::DriveRead, "drive reads", drives),
            (HostPath::DriveWrite, "drive writes", drives),
        ];
        let wanted = ways.into_iter().filter(|(_, _, wanted)| *wanted);
        wanted.map(|(way, name, _)| (Meeting::Host(way), name)).collect()
    }

    /// What the host of a rank holds from the first moment on.
    pub(super) fn host_use(&self) -> HostUse {
        let (offload, mut host) = (&self.plan.offload, HostUse::default());
        let storage = self.workload.parameter_format().bytes();
        let three = self.plan.zero == ZeroStage::Three;
        if self.offloads_optimizer() {
            let groups = self.own_trained();
            let trained: u64 = groups.iter().sum();
            let locked =
                |each: u64| -> u64 { groups.iter().map(|&group| offload.copied(group * each)).sum() };
            let moments = WIDE * self.workload.optimizer.moments() * trained;
            let largest = groups.iter().copied().max().unwrap_or(0);
            let pinned = offload.pin_memory;
            if offload.optimizer == Store::Drive {
                let buffers = offload.optimizer_buffers * page_locked(largest * WIDE);
                let sets = if offload.drive_pipeline { 2 } else { 1 };
                host.hold("buffers of optimizer states", sets * buffers, true);
                host.drive_bytes += 2 * WIDE * trained + moments;
            } else {
                host.hold("master weights", locked(WIDE), pinned);
                host.hold("moments", moments, false);
                host.hold("gradients in 32 bits", locked(WIDE), pinned);
            }
            if !three && storage < WIDE {
                host.hold("updated parameters", offload.copied(storage * trained), pinned);
            }
            let between = self.plan.zero == ZeroStage::Two && self.schedule.micro_batches > 1;
            if three || between {
                let bytes = offload.copied(self.workload.gradients().bytes() * trained);
                host.hold("gradients as made", bytes, pinned);
            }
        }
        if self.offloads_parameters() {
            let part = |share| self.held(share).parameters.div_ceil(self.ranks(share));
            let parameters: u64 = self.shares().map(part).sum();
            if offload.parameters == Store::Drive {
                let (count, values) = offload.parameter_buffers;
                host.hold("buffers of parameters", count * page_locked(values * storage), true);
                host.drive_bytes += storage * parameters;
            } else {
                // One buffer (`_create_param_groups_fp16_flat_cpu_memory` in DeepSpeed's `stage3.py`).
                host.hold("parameters", offload.copied(parameters * storage), offload.pin_memory);
            }
        }
        host
    }
}

impl HostUse {
    fn hold(&mut self, name: &'static str, bytes: u64, pinned: bool) {
        if bytes > 0 {
            self.held.push(HostTensor { name, bytes, pinned });
        }
    }
}

impl StageBuilder<'_> {
    /// Bytes over a way through the host, in the order of a stream.
    fn through_host(
        &mut self,
        stream: Stream,
        way: HostPath,
        label: Label,
        bytes: u64,
    ) -> Result<(), PlanError> {
        let Some(channel) = self.channel(Meeting::Host(way)) else { return Ok(()) };
        if bytes == 0 {
            return Ok(());
        }
        let issue = self.pricer.issue(Pass::Forward, 1)?;
        self.program.host(issue, classes::HOST, label);
        let start = match way {
            HostPath::ToHost | HostPath::ToDevice | HostPath::UnpinnedToDevice => {
                SimTime::from_seconds(self.input.cluster.gpu.kernel_latency_s)?
            }
            HostPath::Processor | HostPath::DriveRead | HostPath::DriveWrite => SimTime::ZERO,
        };
        let kind = classes::OFFLOAD;
        self.program.rendezvous(stream, channel, kind, kind, label, start, bytes);
        Ok(())
    }

    /// A rank's part of gradients, reduced, goes to the host.
    pub(super) fn part_to_host(
        &mut self,
        name: &str,
        elements: u64,
        micro_batch: Option<u32>,
        turn: Turn,
    ) -> Result<(), PlanError> {
        let input = self.input;
        if !input.offloads_optimizer() || elements == 0 {
            return Ok(());
        }
        let HostStreams { to_host, to_device, writes, .. } = self.streams.host;
        let source = if self.reduces() { self.streams.collective } else { self.streams.compute };
        self.order(source, to_host);
        let down = self.label(name, "to_host", micro_batch);
        let up = self.label(name, "to_device", micro_batch);
        let made = elements * self.gradient;
        let three = input.plan.zero == ZeroStage::Three;
        let recalls = !turn.first && input.plan.zero >= ZeroStage::Two;
        if recalls {
            self.through_host(to_device, HostPath::ToDevice, up, made)?;
            self.order(to_device, to_host);
        }
        if three || input.plan.zero == ZeroStage::Two && !turn.last {
            self.through_host(to_host, HostPath::ToHost, down, made)?;
        }
        if three && !recalls {
            self.order(to_host, to_device);
            self.through_host(to_device, HostPath::ToDevice, up, made)?;
            self.order(to_device, to_host);
        }
        if turn.last {
            if self.gradient < WIDE {
                let cost = self.pricer.kernel(copied(made, elements * WIDE), 1, Pass::Backward)?;
                self.kernel_on(to_host, classes::OFFLOAD, down, cost);
            }
            self.through_host(to_host, HostPath::ToHost, down, elements * WIDE)?;
            if input.plan.offload.optimizer == Store::Drive {
                self.order(to_host, writes);
                let label = self.label(name, "drive_write", micro_batch);
                self.through_host(writes, HostPath::DriveWrite, label, elements * WIDE)?;
            }
        }
        Ok(())
    }

    /// This rank's part of a layer's parameters comes to the device; the collectives go on when it is there.
    pub(super) fn fetch_part(
        &mut self,
        layer: usize,
        parts: &[(Share, u64)],
        micro_batch: u32,
    ) -> Result<Option<Event>, PlanError> {
        let input = self.input;
        if !input.offloads_parameters() {
            return Ok(None);
        }
        let part: u64 = parts.iter().map(|&(share, elements)| elements.div_ceil(input.ranks(share))).sum();
        let (bytes, name) = (part * self.storage, input.model.layers[layer].name.as_str());
        let HostStreams { to_device, reads, .. } = self.streams.host;
        if input.plan.offload.parameters == Store::Drive {
            let label = self.label(name, "drive_read", Some(micro_batch));
            self.through_host(reads, HostPath::DriveRead, label, bytes)?;
            self.order(reads, to_device);
        }
        let label = self.label(name, "to_device", Some(micro_batch));
        self.through_host(to_device, HostPath::ToDevice, label, bytes)?;
        let fetched = self.program.record(to_device);
        self.program.wait(self.streams.collective, fetched);
        Ok(Some(fetched))
    }

    /// The computation, and then the thread of the host, wait for all that a stream was given.
    fn hold_up(&mut self, stream: Stream) {
        let done = self.program.record(stream);
        self.program.wait(self.streams.compute, done);
        self.program.host_wait(done);
    }

    /// Gradients are on the host: it updates its states, and the parameters come back.
    ///
    /// The thread that issues kernels runs Adam, group by group, when the norm of all gradients is known.
    pub(super) fn update_on_host(&mut self) -> Result<(), PlanError> {
        let input = self.input;
        let offload = input.plan.offload;
        let HostStreams { to_host, to_device, processor, reads, writes } = self.streams.host;
        let on_drive = offload.optimizer == Store::Drive;
        let label = self.label("optimizer", "host_optimizer", None);
        self.hold_up(to_host);
        if on_drive {
            self.hold_up(writes);
        }
        let latency = SimTime::from_seconds(input.cluster.host.sync_latency_s)?;
        self.program.host(latency, classes::HOST, label);
        let groups = input.own_trained();
        let moments = input.workload.optimizer.moments();
        let mut written: Option<Event> = None;
        for (number, &group) in groups.iter().enumerate() {
            if on_drive {
                // One set of buffers, or two that take turns.
                if let Some(written) = written.take() {
                    self.program.wait(reads, written);
                }
                if number == 0 || !offload.drive_pipeline {
                    self.read_group(group)?;
                }
                self.order(reads, processor);
                if let (true, Some(&next)) = (offload.drive_pipeline, groups.get(number + 1)) {
                    self.read_group(next)?;
                }
            }
            let traffic = group * (HOST_ADAM_TRAFFIC + UNSCALE_TRAFFIC);
            self.through_host(processor, HostPath::Processor, label, traffic)?;
            self.return_group(group)?;
            if on_drive {
                self.order(processor, writes);
                let label = self.label("optimizer states", "drive_write", None);
                self.through_host(writes, HostPath::DriveWrite, label, group * WIDE * (1 + moments))?;
                written = Some(self.program.record(writes));
            }
            self.hold_up(processor);
        }
        for stream in [to_device, writes] {
            self.hold_up(stream);
        }
        let label = self.label("optimizer", "optimizer", None);
        self.gather_updated(label)
    }

    /// States and gradients of a group come from the drives.
    fn read_group(&mut self, group: u64) -> Result<(), PlanError> {
        let label = self.label("optimizer states", "drive_read", None);
        let states = 2 + self.input.workload.optimizer.moments();
        self.through_host(self.streams.host.reads, HostPath::DriveRead, label, group * WIDE * states)
    }

    /// Updated parameters of a group go to where they are kept.
    fn return_group(&mut self, group: u64) -> Result<(), PlanError> {
        let HostStreams { to_device, processor, writes, .. } = self.streams.host;
        let parameters = self.input.plan.offload.parameters;
        if self.storage < WIDE || parameters != Store::Device {
            let label = self.label("parameters", "convert", None);
            self.through_host(processor, HostPath::Processor, label, group * (WIDE + self.storage))?;
        }
        match parameters {
            Store::Host => Ok(()),
            Store::Drive => {
                self.order(processor, writes);
                let label = self.label("parameters", "drive_write", None);
                self.through_host(writes, HostPath::DriveWrite, label, group * self.storage)
            }
            Store::Device => {
                self.order(processor, to_device);
                let unpinned = self.storage < WIDE && self.input.plan.zero == ZeroStage::Three;
                let way = if unpinned { HostPath::UnpinnedToDevice } else { HostPath::ToDevice };
                let label = self.label("parameters", "to_device", None);
                self.through_host(to_device, way, label, group * self.storage)
            }
        }
    }

    /// What forward has kept of a block goes to the host.
    pub(super) fn stash(
        &mut self,
        layer: usize,
        micro_batch: u32,
        saved: &[Option<Tensor>],
    ) -> Result<(), PlanError> {
        let input = self.input;
        if !input.offloads_activations(layer) {
            return Ok(());
        }
        // By its label the copy is found again when the host has no room, whatever the grain.
        let text = format!("{}|to_host|{micro_batch}", input.model.layers[layer].name.replace('|', "/"));
        let label = self.program.label(&text);
        let sizes = input.cost(layer, micro_batch).work.saved.iter().map(|tensor| tensor.bytes.0);
        let kept: Vec<(Tensor, u64)> =
            saved.iter().zip(sizes).filter_map(|(tensor, bytes)| Some(((*tensor)?, bytes))).collect();
        let offload = input.plan.offload;
        let bytes: u64 = kept.iter().map(|&(_, bytes)| offload.copied(bytes)).sum();
        self.stashes.held += bytes;
        self.host.stashed.push(Stashed { label: text, held: self.stashes.held, bytes });
        if offload.overlap_activations {
            let to_host = self.streams.host.to_host;
            self.order(self.streams.compute, to_host);
            for &(_, bytes) in &kept {
                self.through_host(to_host, HostPath::ToHost, label, bytes)?;
            }
            let copied = self.program.record(to_host);
            self.stashes.away.insert((layer, micro_batch), Away { kept, bytes, copied: Some(copied) });
            self.stashes.leaving.push((layer, micro_batch, copied));
            if self.stashes.leaving.len() > 1 {
                let (layer, micro_batch, copied) = self.stashes.leaving.remove(0);
                self.program.wait(self.streams.compute, copied);
                self.leave_device(layer, micro_batch);
            }
            return Ok(());
        }
        let latency = SimTime::from_seconds(input.cluster.host.sync_latency_s)?;
        for &(_, bytes) in &kept {
            self.through_host(self.streams.compute, HostPath::ToHost, label, bytes)?;
            self.program.host_sync(self.streams.compute);
            self.program.host(latency, classes::HOST, label);
        }
        self.stashes.away.insert((layer, micro_batch), Away { kept, bytes, copied: None });
        self.leave_device(layer, micro_batch);
        Ok(())
    }

    fn leave_device(&mut self, layer: usize, micro_batch: u32) {
        if let Some(Away { kept, .. }) = self.stashes.away.get(&(layer, micro_batch)) {
            for &(tensor, _) in kept {
                self.program.free(self.streams.compute, tensor);
            }
        }
    }

    /// Where copies run beside the computation, a block's activations are asked for while the block behind it is worked on.
    pub(super) fn recall_ahead(&mut self, layer: usize, micro_batch: u32) -> Result<(), PlanError> {
        if !self.input.plan.offload.overlap_activations {
            return Ok(());
        }
        let stream = self.streams.host.to_device;
        self.recall(layer, micro_batch, stream)
    }

    fn recall(&mut self, layer: usize, micro_batch: u32, stream: Stream) -> Result<(), PlanError> {
        let input = self.input;
        let Some(Away { kept, bytes, copied }) = self.stashes.away.remove(&(layer, micro_batch)) else {
            return Ok(());
        };
        self.stashes.held -= bytes;
        let here =
            self.stashes.leaving.iter().position(|&(it, number, _)| (it, number) == (layer, micro_batch));
        if let Some(here) = here {
            // It is still on the device.
            self.stashes.leaving.remove(here);
            return Ok(());
        }
        if let Some(copied) = copied {
            self.program.wait(stream, copied);
        }
        let label = self.label(&input.model.layers[layer].name, "to_device", Some(micro_batch));
        for (tensor, bytes) in kept {
            self.program.alloc(self.streams.compute, tensor);
            self.through_host(stream, HostPath::ToDevice, label, bytes)?;
        }
        if stream != self.streams.compute {
            let back = self.program.record(stream);
            self.stashes.back.insert((layer, micro_batch), back);
        }
        Ok(())
    }

    /// What a block needs for its backward is on the device, or comes there first.
    pub(super) fn await_recalled(&mut self, layer: usize, micro_batch: u32) -> Result<(), PlanError> {
        if let Some(back) = self.stashes.back.remove(&(layer, micro_batch)) {
            self.program.wait(self.streams.compute, back);
        }
        self.recall(layer, micro_batch, self.streams.compute)
    }
}

//! Forward and backward of a stage over one micro-batch: kernels in order, activations born and freed.

use steptime_core::{Label, Tensor};
use steptime_models::{Bytes, LayerWork, Pass};

use super::data_parallel::Pending;
use super::repeat::Part;
use super::{Chunk, Meeting, StageBuilder};
use crate::classes;
use crate::error::PlanError;
use crate::lower::cost::{LayerCost, Short};
use crate::lower::overlap::Move;
use crate::recompute::Recomputed;

impl StageBuilder<'_> {
    pub(super) fn forward(&mut self, chunk: usize, micro_batch: u32) -> Result<(), PlanError> {
        let input = self.input;
        let Chunk { layers, crosses, .. } = &input.chunks[chunk];
        if layers.start == 0 {
            self.load_input(micro_batch)?;
        }
        if let Some(crosses) = crosses[0] {
            let bytes = self.boundary(layers.start, micro_batch);
            let stream = self.streams.transfers[chunk].forward_in;
            self.receive(stream, Meeting::ForwardIn(chunk), crosses, bytes, micro_batch)?;
        }
        self.make_mask(chunk, micro_batch);
        // In training each layer keeps its own input; without, one activation flows from layer to layer.
        let mut flowing = self.flowing((layers.start, micro_batch), "input", |work| work.input);
        for layer in layers.clone() {
            let last = layer + 1 == layers.end;
            self.fetch(layer, layer + 1..layers.end, micro_batch, Pass::Forward)?;
            let output = self.flowing((layer, micro_batch), "output", |work| work.output);
            self.layer_forward(layer, micro_batch, last)?;
            self.free(flowing);
            flowing = output;
            self.release(layer, micro_batch, Pass::Forward);
        }
        self.free(flowing);
        self.drop_mask(chunk, micro_batch, false);
        if layers.end == input.model.layers.len() {
            let label = self.label("loss", "forward", Some(micro_batch));
            self.check_loss(label)?;
        }
        self.issue_chunk()?;
        if let Some(crosses) = crosses[1] {
            let bytes = self.boundary(layers.end, micro_batch);
            let stream = self.streams.transfers[chunk].forward_out;
            self.send(stream, Meeting::ForwardOut(chunk), crosses, bytes, micro_batch)?;
        }
        if !input.training() && layers.start == 0 {
            let batch = self.batches[micro_batch as usize].take();
            self.free(batch);
        }
        Ok(())
    }

    /// Without training, the activation that enters or leaves a layer.
    fn flowing(
        &mut self,
        (layer, micro_batch): (usize, u32),
        name: &'static str,
        bytes: fn(&LayerWork) -> Bytes,
    ) -> Option<Tensor> {
        if self.input.training() {
            return None;
        }
        let bytes = bytes(&self.input.cost(layer, micro_batch).work);
        self.activation(layer, name, bytes.0)
    }

    /// Allocates short-lived memory of a pass: its largest tensor by itself, the others in one piece.
    fn temporary(&mut self, layer: usize, what: &'static str, short: Short) -> [Option<Tensor>; 2] {
        if self.detailed() {
            return [None; 2];
        }
        let (name, large) = short.largest.unwrap_or((what, 0));
        [(name, large), (what, short.bytes - large)].map(|(name, bytes)| {
            if bytes == 0 {
                return None;
            }
            let label = self.tensor_label(layer, name);
            let tensor = self.program.tensor(bytes, classes::WORKSPACE, label);
            self.program.alloc(self.streams.compute, tensor);
            Some(tensor)
        })
    }

    fn free_both(&mut self, tensors: [Option<Tensor>; 2]) {
        for tensor in tensors {
            self.free(tensor);
        }
    }

    pub(super) fn free(&mut self, tensor: Option<Tensor>) {
        if let Some(tensor) = tensor {
            self.program.free(self.streams.compute, tensor);
        }
    }

    fn layer_forward(&mut self, layer: usize, micro_batch: u32, last: bool) -> Result<(), PlanError> {
        let label = self.layer_label(layer, "forward", micro_batch);
        self.pass_over_layer(Part::Forward, (layer, micro_batch), last, [label; 2], |this| {
            this.write_forward((layer, micro_batch), last, label)
        })
    }

    fn write_forward(
        &mut self,
        (layer, micro_batch): (usize, u32),
        last: bool,
        label: Label,
    ) -> Result<(), PlanError> {
        let cost = self.input.cost(layer, micro_batch);
        self.issue_block(layer, Pass::Forward, label)?;
        let mut saved = vec![None; cost.work.saved.len()];
        let (mut entered, mut alive) = (self.handed.take(), Vec::new());
        if let Some(slot) = (0..saved.len()).find(|&it| cost.work.saved[it].is_layer_input() && cost.kept[it])
        {
            saved[slot] = entered.take();
        }
        for (index, op) in cost.forward.iter().enumerate() {
            if index + 1 == cost.forward.len() {
                self.hand_on(layer, last, cost.work.output.0);
            }
            self.births(layer, cost.forward_lives(), index, &mut alive);
            self.births_of_dropped(layer, cost, index, &mut alive);
            if self.detailed() && self.nanotron_gathers(layer, Pass::Forward, index) {
                Self::sends(index, &mut alive);
            }
            self.save(layer, cost, index, &mut saved, |kept| kept);
            let temporary = if index == cost.forward_temporary.at {
                self.temporary(layer, "forward temporaries", cost.forward_temporary)
            } else {
                [None; 2]
            };
            self.operation(classes::FORWARD, label, *op)?;
            self.free_both(temporary);
            self.deaths(index, &mut alive);
        }
        self.await_ring();
        self.bury(alive);
        self.free(entered);
        self.stash(layer, micro_batch, &saved)?;
        self.open[self.input.slot(layer)][micro_batch as usize] = Some(saved);
        Ok(())
    }

    pub(super) fn activation(&mut self, layer: usize, name: &'static str, bytes: u64) -> Option<Tensor> {
        if bytes == 0 {
            return None;
        }
        let label = self.tensor_label(layer, name);
        let tensor = self.program.tensor(bytes, classes::ACTIVATIONS, label);
        self.program.alloc(self.streams.compute, tensor);
        Some(tensor)
    }

    /// Allocates the saved tensors that forward operation `index` makes and that `wanted` selects by whether
    /// checkpointing keeps them.
    pub(super) fn save(
        &mut self,
        layer: usize,
        cost: &LayerCost,
        index: usize,
        saved: &mut [Option<Tensor>],
        wanted: impl Fn(bool) -> bool,
    ) {
        if !self.input.training() {
            return;
        }
        for (slot, tensor) in cost.work.saved.iter().enumerate() {
            if tensor.born == index && saved[slot].is_none() && wanted(cost.kept[slot]) {
                saved[slot] = self.activation(layer, tensor.name, tensor.bytes.0);
            }
        }
    }

    /// Whole backward of a chunk.
    pub(super) fn backward(&mut self, chunk: usize, micro_batch: u32) -> Result<(), PlanError> {
        self.receive_gradients(chunk, micro_batch)?;
        let turn = self.next_turn(chunk);
        let mut pending = Pending::default();
        self.over_layers_back(chunk, micro_batch, |this, layer| {
            let early = if this.detailed() { None } else { this.transient_gradients(layer) };
            this.whole_due = early.is_none();
            this.layer_backward(layer, micro_batch, Extent::Whole)?;
            let gradients = early.or_else(|| this.whole_made(layer));
            this.join_tied_gradient(layer);
            this.release(layer, micro_batch, Pass::Backward);
            this.fetch_after(layer, micro_batch)?;
            this.add_gradients(layer, micro_batch, turn, gradients, &mut pending)
        })?;
        pending.free_all(&mut self.program, self.streams.collective);
        self.drop_gradients(true);
        self.send_gradients(chunk, micro_batch)
    }

    /// The part of a chunk's backward for which the chunk before waits.
    pub(super) fn backward_input(&mut self, chunk: usize, micro_batch: u32) -> Result<(), PlanError> {
        self.receive_gradients(chunk, micro_batch)?;
        self.over_layers_back(chunk, micro_batch, |this, layer| {
            this.layer_backward(layer, micro_batch, Extent::WithoutWeights)?;
            this.release(layer, micro_batch, Pass::Backward);
            this.fetch_after(layer, micro_batch)
        })?;
        self.send_gradients(chunk, micro_batch)
    }

    /// Goes through a chunk's layers from the last to the first, each with its parameters gathered.
    ///
    /// Collectives run in the order of issue: the next layer's parameters are asked for before this layer's gradients
    /// are sent, or they would wait for them (FSDP's backward prefetch).
    fn over_layers_back(
        &mut self,
        chunk: usize,
        micro_batch: u32,
        mut each: impl FnMut(&mut Self, usize) -> Result<(), PlanError>,
    ) -> Result<(), PlanError> {
        let layers = self.input.chunks[chunk].layers.clone();
        self.recall_ahead(layers.end - 1, micro_batch)?;
        for layer in layers.clone().rev() {
            self.fetch(layer, (layers.start..layer).rev(), micro_batch, Pass::Backward)?;
            if layer > layers.start {
                self.recall_ahead(layer - 1, micro_batch)?;
            }
            each(self, layer)?;
        }
        Ok(())
    }

    /// The rest of it: gradients of weights, which are then added to those of earlier micro-batches and reduced.
    pub(super) fn backward_weight(&mut self, chunk: usize, micro_batch: u32) -> Result<(), PlanError> {
        let layers = self.input.chunks[chunk].layers.clone();
        let turn = self.next_turn(chunk);
        let mut pending = Pending::default();
        for layer in layers.rev() {
            let gradients = self.transient_gradients(layer);
            self.layer_weights(layer, micro_batch)?;
            self.join_tied_gradient(layer);
            self.add_gradients(layer, micro_batch, turn, gradients, &mut pending)?;
        }
        pending.free_all(&mut self.program, self.streams.collective);
        self.drop_gradients(true);
        Ok(())
    }

    fn receive_gradients(&mut self, chunk: usize, micro_batch: u32) -> Result<(), PlanError> {
        let Chunk { layers, crosses, .. } = &self.input.chunks[chunk];
        let Some(crosses) = crosses[1] else { return Ok(()) };
        let bytes = self.boundary(layers.end, micro_batch);
        let stream = self.streams.transfers[chunk].backward_in;
        self.receive(stream, Meeting::BackwardIn(chunk), crosses, bytes, micro_batch)
    }

    fn send_gradients(&mut self, chunk: usize, micro_batch: u32) -> Result<(), PlanError> {
        self.issue_chunk()?;
        let Chunk { layers, crosses, .. } = &self.input.chunks[chunk];
        self.drop_mask(chunk, micro_batch, true);
        if layers.start == 0 {
            let batch = self.batches[micro_batch as usize].take();
            self.free(batch);
        }
        let Some(crosses) = crosses[0] else { return Ok(()) };
        let bytes = self.boundary(layers.start, micro_batch);
        let stream = self.streams.transfers[chunk].backward_out;
        self.send(stream, Meeting::BackwardOut(chunk), crosses, bytes, micro_batch)
    }

    /// Counts a backward of the chunk.
    pub(super) fn next_turn(&mut self, chunk: usize) -> Turn {
        self.backwards_done[chunk] += 1;
        self.turn(chunk, self.backwards_done[chunk])
    }

    /// The chunk's backward of a number, counted from 1.
    pub(super) fn turn(&self, chunk: usize, number: u32) -> Turn {
        let last = self.input.schedule.micro_batches_of(chunk as u32).len();
        Turn { first: number == 1, last: number as usize == last }
    }

    /// What happens to a layer's gradients once they are made.
    fn add_gradients(
        &mut self,
        layer: usize,
        micro_batch: u32,
        turn: Turn,
        gradients: Option<Tensor>,
        pending: &mut Pending,
    ) -> Result<(), PlanError> {
        if turn.first {
            self.grow_gradients(layer);
        }
        self.other_gradients(layer);
        self.accumulate(layer, micro_batch, turn.first)?;
        self.drop_gradients(false);
        self.reduce(layer, micro_batch, turn, gradients, pending)
    }

    /// Whether a layer's forward is made again together with that of its neighbours.
    fn recomputes_in_group(&self, layer: usize, micro_batch: u32) -> bool {
        self.is_inner(layer, micro_batch) || self.is_inner(layer + 1, micro_batch)
    }

    /// Whether a layer of the stage is made again from the input of one before.
    fn is_inner(&self, layer: usize, micro_batch: u32) -> bool {
        let input = self.input;
        layer < input.model.layers.len()
            && input.chunks.iter().any(|chunk| chunk.layers.contains(&layer))
            && input.cost(layer, micro_batch).recomputes == Recomputed::Inner
    }

    /// The last layer of a group that is recomputed together makes forward again for all of them.
    fn recompute_group(&mut self, layer: usize, micro_batch: u32) -> Result<(), PlanError> {
        if !self.recomputes_in_group(layer, micro_batch) || self.is_inner(layer + 1, micro_batch) {
            return Ok(());
        }
        let mut first = layer;
        while first > 0 && self.is_inner(first, micro_batch) {
            first -= 1;
        }
        for layer in first..=layer {
            let label = self.layer_label(layer, "recompute", micro_batch);
            self.recompute_layer((layer, micro_batch), label)?;
        }
        Ok(())
    }

    /// What forward of a layer has left for backward. Where there are no tensors, copies of passes leave nothing.
    fn take_saved(&mut self, (layer, micro_batch): (usize, u32)) -> Vec<Option<Tensor>> {
        let input = self.input;
        let mut saved = self.open[input.slot(layer)][micro_batch as usize].take().unwrap_or_default();
        let tensors = input.cost(layer, micro_batch).work.saved.len();
        if saved.len() < tensors {
            saved.resize(tensors, None);
        }
        saved
    }

    /// Runs again what backward of a layer needs of its forward.
    fn recompute_layer(&mut self, (layer, micro_batch): (usize, u32), label: Label) -> Result<(), PlanError> {
        let input = self.input;
        let cost = input.cost(layer, micro_batch);
        if cost.recomputed.is_empty() {
            return Ok(());
        }
        let place = (input.slot(layer), micro_batch as usize);
        let mut saved = self.take_saved((layer, micro_batch));
        if cost.recomputed.len() == cost.forward.len() {
            self.issue_block(layer, Pass::Forward, label)?;
        }
        let mut alive = Vec::new();
        for &index in &cost.recomputed {
            self.save(layer, cost, index, &mut saved, |kept| !kept);
            self.births(layer, cost.lives(Pass::Forward), index, &mut alive);
            let fullest = index == cost.again_temporary.at;
            let temporary = if fullest {
                self.temporary(layer, "forward temporaries", cost.again_temporary)
            } else {
                [None; 2]
            };
            self.operation(classes::RECOMPUTE, label, cost.forward[index])?;
            self.free_both(temporary);
            self.deaths(index, &mut alive);
        }
        self.bury(alive);
        self.open[place.0][place.1] = Some(saved);
        Ok(())
    }

    fn layer_backward(&mut self, layer: usize, micro_batch: u32, extent: Extent) -> Result<(), PlanError> {
        self.await_recalled(layer, micro_batch)?;
        self.recompute_group(layer, micro_batch)?;
        let backward = self.layer_label(layer, "backward", micro_batch);
        let recomputes = !self.input.cost(layer, micro_batch).recomputed.is_empty();
        let again = if recomputes { self.layer_label(layer, "recompute", micro_batch) } else { backward };
        let part = if extent == Extent::Whole { Part::Backward } else { Part::Input };
        self.pass_over_layer(part, (layer, micro_batch), false, [again, backward], |this| {
            this.write_backward((layer, micro_batch), extent, [again, backward])
        })
    }

    fn write_backward(
        &mut self,
        (layer, micro_batch): (usize, u32),
        extent: Extent,
        [again, label]: [Label; 2],
    ) -> Result<(), PlanError> {
        let input = self.input;
        let cost = input.cost(layer, micro_batch);
        if !self.recomputes_in_group(layer, micro_batch) {
            self.recompute_layer((layer, micro_batch), again)?;
        }
        let mut saved = self.take_saved((layer, micro_batch));
        self.issue_block(layer, Pass::Backward, label)?;
        let later = extent == Extent::WithoutWeights;
        let short = if later { cost.split_temporary } else { cost.backward_temporary };
        let mut short = Some(short);
        let late = &cost.work.weight_gradients;
        let mut alive = Vec::new();
        for &step in &cost.order {
            let (Move::Run(index) | Move::Start(index) | Move::Join(index)) = step;
            // Collectives that run beside others may change places: the first to reach the moment counts.
            let temporary = match short.take_if(|short| index >= short.at) {
                Some(short) => self.temporary(layer, "backward temporaries", short),
                None => [None; 2],
            };
            if later && deferred(cost, index) {
                self.free_both(temporary);
                continue;
            }
            if !matches!(step, Move::Join(_)) {
                self.births(layer, cost.lives(Pass::Backward), index, &mut alive);
                if cost.work.backward[index].makes_weight_gradient() {
                    self.make_whole(layer);
                }
                self.made_gradient(layer, cost, index);
            }
            match step {
                Move::Run(_) => self.operation(classes::BACKWARD, label, cost.backward[index])?,
                Move::Start(_) => {
                    Self::sends(index, &mut alive);
                    self.start_exchange(label, cost.backward[index])?;
                    self.free_both(temporary);
                    continue;
                }
                Move::Join(_) => self.order(self.streams.tensor, self.streams.compute),
            }
            self.free_both(temporary);
            for (slot, tensor) in cost.work.saved.iter().enumerate() {
                if tensor.freed == index && !(later && late.saved.contains(&slot)) {
                    self.free_sent(saved[slot].take(), tensor.sent);
                }
            }
            self.deaths(index, &mut alive);
        }
        self.await_ring();
        self.bury(alive);
        if later {
            // What the weights need stays: inputs of products, and the gradients of their results.
            let kept = |(slot, tensor): (usize, &mut Option<Tensor>)| {
                if late.saved.contains(&slot) { None } else { tensor.take() }
            };
            let done: Vec<Option<Tensor>> = saved.iter_mut().enumerate().map(kept).collect();
            for tensor in done {
                self.free(tensor);
            }
            saved.push(self.activation(layer, "gradients kept for weights", late.gradients.0));
            self.open[input.slot(layer)][micro_batch as usize] = Some(saved);
            return Ok(());
        }
        for tensor in saved {
            self.free(tensor);
        }
        Ok(())
    }

    /// The gradients of weights that the layer's backward has left.
    fn layer_weights(&mut self, layer: usize, micro_batch: u32) -> Result<(), PlanError> {
        let label = self.layer_label(layer, "weights", micro_batch);
        self.pass_over_layer(Part::Weights, (layer, micro_batch), false, [label; 2], |this| {
            this.write_weights((layer, micro_batch), label)
        })
    }

    fn write_weights(&mut self, (layer, micro_batch): (usize, u32), label: Label) -> Result<(), PlanError> {
        let input = self.input;
        let cost = input.cost(layer, micro_batch);
        for &index in &cost.work.weight_gradients.operations {
            self.made_gradient(layer, cost, index);
            self.operation(classes::BACKWARD, label, cost.backward[index])?;
        }
        for tensor in self.open[input.slot(layer)][micro_batch as usize].take().unwrap_or_default() {
            self.free(tensor);
        }
        Ok(())
    }
}

/// How much of a layer's backward is done in one go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All of it.
    Whole,
    /// All but the products that make gradients of weights.
    WithoutWeights,
}

/// Which of the step's backwards of a chunk it is.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub(super) first: bool,
    pub(super) last: bool,
}

/// Whether a backward operation can wait.
pub(in crate::lower) fn deferred(cost: &LayerCost, index: usize) -> bool {
    cost.work.weight_gradients.operations.contains(&index)
}

//! Passes over layers that do the same are written once.
//!
//! A layer's forward or backward is the same list of operations in every micro-batch and in every layer of its kind; only
//! tensors and labels have other names. The first is written operation by operation, the others are copies of its records
//! ([`steptime_core::ProgramBuilder::repeat`]). What a pass depends on is in its [`Key`]: passes with equal keys that find
//! tensors in the same places do the same.

use steptime_core::{Label, Passage, Place, Tensor};
use steptime_models::LayerRole;

use super::StageBuilder;
use crate::error::PlanError;
use crate::lower::Grain;
use crate::zero::ZeroStage;

/// Which pass over a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Forward,
    /// Whole backward.
    Backward,
    /// Backward without what makes gradients of weights.
    Input,
    /// The rest of it.
    Weights,
}

/// What the records of a pass depend on, beside the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    part: Part,
    /// The layer's costs, of which equal layers have one set.
    costs: *const super::LayerCost,
    /// Whether it is the last layer of its chunk.
    last: bool,
    /// What its block of Python code and its gradients are.
    block: bool,
    experts: u64,
    trained: u64,
    makes_gradients: bool,
    made_elements: u64,
}

/// What a pass leaves to later ones.
#[derive(Clone, Debug)]
struct Left {
    open: Option<Vec<Option<Source>>>,
    handed: Option<Source>,
    made: Vec<Source>,
    made_elements: u64,
}

/// Where a copy of a pass has a tensor from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// It makes it: the n-th of its own.
    Made(u32),
    /// It found it there, at this place.
    Found(usize),
    /// It is the same for all.
    Same(Tensor),
}

impl Source {
    /// Of a tensor of a pass that made those from `first` on.
    fn of(tensor: Tensor, first: u32, found: &[Option<Tensor>]) -> Self {
        if let Some(number) = tensor.0.checked_sub(first) {
            return Self::Made(number);
        }
        let place = found.iter().position(|it| *it == Some(tensor));
        place.map_or(Self::Same(tensor), Self::Found)
    }

    /// The tensor of a copy that found others and made those from `first` on. `of` is the pass' own, for where the copy has
    /// found nothing.
    fn tensor(self, first: u32, found: &[Option<Tensor>], of: &[Option<Tensor>]) -> Option<Tensor> {
        match self {
            Self::Made(number) => Some(Tensor(first + number)),
            Self::Found(place) => found[place].or(of[place]),
            Self::Same(tensor) => Some(tensor),
        }
    }
}

/// A pass that has been written.
struct Written {
    key: Key,
    passage: Passage,
    /// Labels of its records.
    spans: [Label; 2],
    /// Tensors that it found.
    found: Vec<Option<Tensor>>,
    left: Left,
    /// What its tensors are called: whether they belong to the layer after its own, and what they are.
    names: Vec<(bool, &'static str)>,
    /// By tensor that it makes: which of the names it has.
    name_of: Vec<usize>,
    /// Entries of the launch queue that its records stand for.
    entries: u64,
    /// By layer of the stage: the labels that these names have there.
    labels: Vec<Option<Vec<Label>>>,
    /// Where there are no tensors, by layer of the stage: the pass over that layer, which all others over it equal, and
    /// the labels of its records.
    copies: Vec<Option<(Passage, [Label; 2])>>,
}

/// The passes that a stage's program has written so far.
#[derive(Default)]
pub(super) struct Repeats {
    written: Vec<Written>,
}

impl StageBuilder<'_> {
    /// Writes a pass over a layer with `write`, unless it has been written before. `spans` are the labels of its records.
    pub(super) fn pass_over_layer(
        &mut self,
        part: Part,
        (layer, micro_batch): (usize, u32),
        last: bool,
        spans: [Label; 2],
        write: impl FnOnce(&mut Self) -> Result<(), PlanError>,
    ) -> Result<(), PlanError> {
        let Some(key) = self.key(part, (layer, micro_batch), last) else { return write(self) };
        let slot = self.input.slot(layer);
        let found = match part {
            _ if self.input.grain == Grain::Times => Vec::new(),
            Part::Forward => vec![self.handed],
            _ => self.open[slot][micro_batch as usize].take().unwrap_or_default(),
        };
        let alike = |it: &Option<Tensor>, other: &Option<Tensor>| it.is_some() == other.is_some();
        let known = self.repeats.written.iter().position(|it| {
            it.key == key
                && it.found.len() == found.len()
                && it.found.iter().zip(&found).all(|(a, b)| alike(a, b))
        });
        if let Some(known) = known {
            self.write_again(known, (layer, micro_batch), spans, &found);
            return Ok(());
        }
        if part != Part::Forward && self.input.grain != Grain::Times {
            self.open[slot][micro_batch as usize] = Some(found.clone());
        }
        let (place, made) = (self.program.place(), self.made.len());
        let entries = self.entries;
        write(self)?;
        self.learn(key, (layer, micro_batch), (place, made, entries), spans, found);
        Ok(())
    }

    /// What the pass depends on; None where it depends on more: on transfers that are still under way, on another pass
    /// beside it, or on what has been sent to the host.
    fn key(&self, part: Part, (layer, micro_batch): (usize, u32), last: bool) -> Option<Key> {
        let input = self.input;
        let plain = self.beside.is_none() && !self.pairs.has_pass() && !input.plan.offload.acts();
        let handed = part == Part::Forward || self.handed.is_none();
        // Whole gradients that are yet to be made are the layer's own.
        let plain = plain && !(self.whole_due && self.detailed() && input.plan.zero >= ZeroStage::Two);
        (input.repeats && plain && handed).then(|| Key {
            part,
            costs: input.cost(layer, micro_batch),
            last,
            block: input.model.layers[layer].role == LayerRole::Block,
            experts: self.held_experts(layer),
            trained: self.trained(layer),
            makes_gradients: part != Part::Forward && self.makes_gradients(),
            made_elements: self.made_elements,
        })
    }

    /// Keeps a pass that has just been written.
    fn learn(
        &mut self,
        key: Key,
        (layer, micro_batch): (usize, u32),
        (place, made, entries): (Place, usize, u64),
        spans: [Label; 2],
        found: Vec<Option<Tensor>>,
    ) {
        let slot = self.input.slot(layer);
        let passage = self.program.passage(place);
        let mut names: Vec<(bool, &'static str)> = Vec::new();
        let mut name_of = Vec::with_capacity(passage.tensors().len());
        for tensor in passage.tensors() {
            let Some(name) = self.name_of(layer, Tensor(tensor)) else { return };
            let known = names.iter().position(|it| *it == name);
            name_of.push(known.unwrap_or(names.len()));
            if known.is_none() {
                names.push(name);
            }
        }
        if self.beside.is_some() {
            return;
        }
        let first = passage.tensors().start;
        let source = |tensor: Tensor| Source::of(tensor, first, &found);
        let saved = |open: &Vec<Option<Tensor>>| open.iter().map(|it| it.map(source)).collect();
        let left = Left {
            open: self.open[slot][micro_batch as usize].as_ref().map(saved),
            handed: self.handed.map(source),
            made: self.made[made..].iter().map(|it| source(*it)).collect(),
            made_elements: self.made_elements,
        };
        let labels = vec![None; self.open.len()];
        let mut copies = vec![None; self.open.len()];
        copies[slot] = Some((passage.clone(), spans));
        let entries = self.entries - entries;
        self.repeats.written.push(Written {
            key,
            passage,
            spans,
            found,
            left,
            names,
            name_of,
            entries,
            labels,
            copies,
        });
    }

    /// What a tensor of a layer, or of the layer after it, is called.
    fn name_of(&self, layer: usize, tensor: Tensor) -> Option<(bool, &'static str)> {
        let (label, slot) = (self.program.tensor_label(tensor)?, self.label_slot(layer));
        let of = |slot: usize| {
            let known = self.tensor_labels.get(slot)?;
            known.iter().find(|(_, it)| *it == label).map(|(name, _)| *name)
        };
        of(slot).map(|name| (false, name)).or_else(|| of(slot + 1).map(|name| (true, name)))
    }

    fn write_again(
        &mut self,
        known: usize,
        (layer, micro_batch): (usize, u32),
        spans: [Label; 2],
        found: &[Option<Tensor>],
    ) {
        let slot = self.input.slot(layer);
        if self.input.grain == Grain::Times {
            self.write_times_again(known, slot, spans);
        } else {
            self.write_tensors_again(known, (layer, micro_batch), spans, found);
        }
    }

    /// Where there are no tensors, all passes over a layer have the same records but for their events.
    fn write_times_again(&mut self, known: usize, slot: usize, spans: [Label; 2]) {
        let it = &mut self.repeats.written[known];
        match &it.copies[slot] {
            Some((passage, labels)) if *labels == spans => self.program.repeat_as_it_is(passage),
            _ => {
                let place = self.program.place();
                let span = |label: Label| if label == it.spans[0] { spans[0] } else { spans[1] };
                self.program.repeat(&it.passage, span, |_| Label(0), |tensor| tensor);
                it.copies[slot] = Some((self.program.passage(place), spans));
            }
        }
        self.made_elements = it.left.made_elements;
        self.entries += it.entries;
    }

    fn write_tensors_again(
        &mut self,
        known: usize,
        (layer, micro_batch): (usize, u32),
        spans: [Label; 2],
        found: &[Option<Tensor>],
    ) {
        let (slot, labelled) = (self.input.slot(layer), self.label_slot(layer));
        if self.repeats.written[known].labels[labelled].is_none() {
            let names = self.repeats.written[known].names.clone();
            let labels = names.iter().map(|&(next, name)| self.tensor_label(layer + usize::from(next), name));
            self.repeats.written[known].labels[labelled] = Some(labels.collect());
        }
        let it = &self.repeats.written[known];
        let labels = it.labels[labelled].as_deref().unwrap_or_default();
        let span = |label: Label| if label == it.spans[0] { spans[0] } else { spans[1] };
        let outer = |tensor: Tensor| {
            let place = it.found.iter().position(|found| *found == Some(tensor));
            place.and_then(|place| found[place]).unwrap_or(tensor)
        };
        let named = |number: usize| labels[it.name_of[number]];
        let first = self.program.repeat(&it.passage, span, named, outer);
        let tensor = |source: Source| source.tensor(first, found, &it.found);
        let saved = |open: &Vec<Option<Source>>| open.iter().map(|it| it.and_then(tensor)).collect();
        self.open[slot][micro_batch as usize] = it.left.open.as_ref().map(saved);
        self.handed = it.left.handed.and_then(tensor);
        self.made.extend(it.left.made.iter().filter_map(|it| tensor(*it)));
        self.made_elements = it.left.made_elements;
        self.entries += it.entries;
    }
}

//! What records and tensors of a stage's program are called.

use steptime_core::Label;

use super::StageBuilder;
use crate::lower::Grain;

impl StageBuilder<'_> {
    /// Label of a layer's tensor. The same few are asked for in every micro-batch.
    pub(super) fn tensor_label(&mut self, layer: usize, what: &'static str) -> Label {
        if self.input.grain == Grain::Times {
            // There are no tensors.
            return Label(0);
        }
        let slot = self.label_slot(layer);
        let known = &self.tensor_labels[slot];
        // Most are asked for by the same words.
        let same = known.iter().find(|(name, _)| std::ptr::eq(*name, what));
        if let Some((_, label)) = same.or_else(|| known.iter().find(|(name, _)| *name == what)) {
            return *label;
        }
        let label = if self.input.grain == Grain::Sizes {
            self.program.label(what)
        } else {
            // Layers have names of their own.
            self.program.new_label([self.input.model.layers[layer].name.as_str(), " ", what].concat())
        };
        self.tensor_labels[slot].push((what, label));
        label
    }

    /// Where labels of a layer's tensors are: where they do not name their layers, those of all are in one place.
    pub(super) fn label_slot(&self, layer: usize) -> usize {
        if self.input.grain == Grain::Sizes { 0 } else { self.input.slot(layer) }
    }

    /// A span's label: name, kind and micro-batch, parted by `|`. Where nobody looks at spans, passes over a layer go by
    /// one name.
    pub(super) fn label(&mut self, name: &str, kind: &str, micro_batch: Option<u32>) -> Label {
        self.write_label(name, kind, micro_batch);
        self.program.label(&self.text)
    }

    /// The same of a pass over a layer: where the stage has several chunks, the layer's is a fourth part.
    fn chunk_label(&mut self, layer: usize, kind: &str, micro_batch: u32) -> Label {
        let input = self.input;
        self.write_label(&input.model.layers[layer].name, kind, Some(micro_batch));
        if let (true, Some(chunk)) = (input.chunks.len() > 1, input.chunk_of(layer)) {
            self.text.push('|');
            self.text.push_str(&chunk.to_string());
        }
        self.program.label(&self.text)
    }

    fn write_label(&mut self, name: &str, kind: &str, micro_batch: Option<u32>) {
        let micro_batch = micro_batch.filter(|_| self.input.grain.has_spans());
        let text = &mut self.text;
        text.clear();
        for (number, part) in name.split('|').enumerate() {
            text.push_str(if number > 0 { "/" } else { "" });
            text.push_str(part);
        }
        for part in ["|", kind, "|"] {
            text.push_str(part);
        }
        match micro_batch {
            Some(number) => text.push_str(self.numbers[number as usize].as_str()),
            None => text.push('-'),
        }
    }

    /// Label of a pass over a layer.
    pub(super) fn layer_label(&mut self, layer: usize, kind: &'static str, micro_batch: u32) -> Label {
        if self.input.grain.has_spans() {
            return self.chunk_label(layer, kind, micro_batch);
        }
        let name = self.input.model.layers[layer].name.as_str();
        let slot = self.input.slot(layer);
        if let Some((_, label)) = self.pass_labels[slot].iter().find(|(known, _)| *known == kind) {
            return *label;
        }
        let label = self.label(name, kind, None);
        self.pass_labels[slot].push((kind, label));
        label
    }

    /// Label of something that comes in every micro-batch and belongs to no layer.
    pub(super) fn fixed_label(&mut self, name: &'static str, kind: &'static str, micro_batch: u32) -> Label {
        if self.input.grain.has_spans() {
            return self.label(name, kind, Some(micro_batch));
        }
        let same = |it: &&(&str, &str, Label)| (it.0, it.1) == (name, kind);
        if let Some((.., label)) = self.fixed_labels.iter().find(same) {
            return *label;
        }
        let label = self.label(name, kind, None);
        self.fixed_labels.push((name, kind, label));
        label
    }

    /// Label of a buffer that belongs to no layer.
    pub(super) fn buffer_label(&mut self, name: &'static str) -> Label {
        // Where there are no tensors nobody asks for it.
        if self.input.grain == Grain::Times { Label(0) } else { self.program.label(name) }
    }
}

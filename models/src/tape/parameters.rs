//! The list of parameters that a tape keeps beside the work.

use super::Tape;
use crate::parameter::{ExpertPlace, Parameter, Split};
use crate::trainable::Lora;
use crate::units::product;

impl Tape<'_> {
    /// Names the parameter `module.leaf` of the given dimensions, whole whatever part of it this rank holds; returns
    /// whether it is trained. A name used again is the same parameter and listed once.
    pub(crate) fn weight(&mut self, module: &str, leaf: &str, dimensions: &[u64], split: Split) -> bool {
        let trainable = self.trains();
        self.list(module, leaf, dimensions, &Parameter { trainable, split, ..Parameter::default() });
        trainable
    }

    /// Names a parameter whose values are the embedding's; returns whether it is trained.
    pub(crate) fn tied_weight(&mut self, module: &str, dimensions: &[u64], split: Split) -> bool {
        let trainable = self.trains();
        let parameter = Parameter { trainable, split, tied: true, ..Parameter::default() };
        self.list(module, "weight", dimensions, &parameter);
        trainable
    }

    /// Names a parameter that is trained (an adapter's) or frozen (a reference copy), whatever of the model is.
    pub(crate) fn own_weight(&mut self, module: &str, leaf: &str, dimensions: &[u64], trainable: bool) {
        self.list(module, leaf, dimensions, &Parameter { trainable, ..Parameter::default() });
    }

    /// Whether parameters are listed; names need not be built otherwise.
    pub(crate) fn lists_parameters(&self) -> bool {
        self.trace.lists_parameters
    }

    /// Whether the parameters named now are trained: the model's own, or those of an addition to it.
    pub(crate) fn trains(&self) -> bool {
        self.added.unwrap_or(self.trace.trainable.trains_base())
    }

    /// The low-rank adapter beside a linear layer, if it has one.
    pub(crate) fn adapter(&self, module: &str, output: bool) -> Option<&Lora> {
        if self.added.is_some() { None } else { self.trace.trainable.adapter(module, output) }
    }

    /// Records modules added to the model: trained or frozen whatever of the model is, and without adapters.
    pub(crate) fn as_added<R>(&mut self, trained: bool, record: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.added.replace(trained);
        let result = record(self);
        self.added = before;
        result
    }

    /// Records routed experts, `experts` in all, of which a token uses `used`: the parameters named inside are theirs, of
    /// the first unless [`Tape::expert_number`] says otherwise.
    pub(crate) fn as_expert<R>(&mut self, experts: u64, used: u64, record: impl FnOnce(&mut Self) -> R) -> R {
        self.routing = (experts, used);
        self.within_experts = Some(ExpertPlace { number: 0, of: experts });
        let result = record(self);
        self.within_experts = None;
        result
    }

    /// The parameters named from now on belong to the expert of this number.
    pub(crate) fn expert_number(&mut self, number: u64) {
        self.within_experts = self.within_experts.map(|place| ExpertPlace { number, ..place });
    }

    fn list(&mut self, module: &str, leaf: &str, dimensions: &[u64], flags: &Parameter) {
        if !self.trace.lists_parameters {
            return;
        }
        let name = if leaf.is_empty() { module.to_owned() } else { format!("{module}.{leaf}") };
        if !self.listed.insert(name.clone()) {
            return;
        }
        let (count, expert) = (product(dimensions), self.within_experts);
        let dimensions = dimensions.to_vec();
        self.parameters.push(Parameter { name, count, dimensions, expert, ..flags.clone() });
    }
}

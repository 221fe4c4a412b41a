//! Parameter tensors.

use crate::division::Division;

/// How a parameter is divided among the ranks of a tensor-parallel group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Split {
    /// Every rank holds all of it.
    #[default]
    Whole,
    /// Each rank holds an equal part.
    Tensor,
    /// Each rank holds as many of this number of equal pieces (heads of keys and values), whole ones: where there are
    /// fewer than ranks, several ranks hold the same.
    Pieces(u64),
}

/// One of several routed experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExpertPlace {
    /// Its number, from 0.
    pub number: u64,
    /// Experts that there are.
    pub of: u64,
}

/// One parameter tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameter {
    /// Name within the layer, as the framework prints it.
    pub name: String,
    /// Number of values.
    pub count: u64,
    /// Sizes of its dimensions, as the framework stores them; their product is `count`.
    pub dimensions: Vec<u64>,
    /// Shares its values with the embedding: counted once in the model, held again where a later pipeline
    /// stage needs it.
    pub tied: bool,
    /// Whether it gets a gradient.
    pub trainable: bool,
    /// The routed expert that it belongs to.
    pub expert: Option<ExpertPlace>,
    /// How a tensor-parallel group divides it.
    pub split: Split,
}

impl Parameter {
    /// Values that the first rank of a stage holds, rounded up: of experts that are spread over ranks, the first ones.
    pub fn held_in(&self, division: &Division) -> u64 {
        match (self.expert, division.expert) {
            (Some(place), Some(spread)) if place.number >= place.of.div_ceil(spread.ways()) => 0,
            (Some(_), Some(spread)) => self.held_by_rank(spread.tensor_ways()),
            _ => self.held_by_rank(division.tensor),
        }
    }

    /// Values that a rank of a tensor-parallel group of `ranks` holds, rounded up.
    pub fn held_by_rank(&self, ranks: u64) -> u64 {
        match self.split {
            Split::Whole => self.count,
            Split::Tensor => self.count.div_ceil(ranks.max(1)),
            Split::Pieces(pieces) => {
                let pieces = pieces.max(1);
                (self.count / pieces).saturating_mul(pieces.div_ceil(ranks.max(1)))
            }
        }
    }
}

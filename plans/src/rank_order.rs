//! Which rank of the job does what, and on which GPU each rank sits.

/// A dimension of parallelism along which ranks are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Ranks that share layers.
    Tensor,
    /// Ranks that share sequences.
    Context,
    /// Replicas.
    Data,
    /// Stages.
    Pipeline,
}

/// How ranks are counted and laid on GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankOrder {
    /// Dimensions, the one in which neighbouring ranks differ first; tensor, context, data, pipeline when absent.
    pub order: Option<[Dimension; 4]>,
    /// The GPU of each rank, counted over the nodes: rank `r` on GPU `r` when absent.
    pub gpus: Option<Vec<u32>>,
}

impl RankOrder {
    /// Megatron-LM's default, `tp-cp-ep-dp-pp`.
    pub const USUAL: [Dimension; 4] =
        [Dimension::Tensor, Dimension::Context, Dimension::Data, Dimension::Pipeline];

    /// Whether ranks sit as without any of this.
    pub fn is_usual(&self) -> bool {
        self.order.is_none_or(|order| order == Self::USUAL) && self.gpus.is_none()
    }

    /// Number of the rank at these places along tensor, context, data and pipeline, of so many each.
    pub(crate) fn rank(&self, places: [u64; 4], sizes: [u64; 4]) -> u64 {
        let order = self.order.unwrap_or(Self::USUAL);
        let along = |dimension: &Dimension| *dimension as usize;
        let outermost_first = order.iter().rev().map(along);
        outermost_first.fold(0, |rank, at| rank * sizes[at] + places[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_dimension_counts_fastest() {
        let sizes = [2, 3, 4, 5];
        let usual = RankOrder::default();
        assert_eq!(usual.rank([1, 2, 3, 4], sizes), ((4 * 4 + 3) * 3 + 2) * 2 + 1);
        // Megatron-LM's `tp-cp-pp-dp`: stages before replicas.
        let order = [Dimension::Tensor, Dimension::Context, Dimension::Pipeline, Dimension::Data];
        let other = RankOrder { order: Some(order), gpus: None };
        assert_eq!(other.rank([1, 2, 3, 4], sizes), ((3 * 5 + 4) * 3 + 2) * 2 + 1);
        assert!(usual.is_usual() && !other.is_usual());
    }
}

//! How many tokens the router sends to each expert.

use libm::pow;
use steptime_models::ExpertParallel;

/// Shares of the tokens that the experts get. They lie on the ranks in the order of their numbers.
///
/// The rank with the most tokens sets the pace: an all-to-all ends when its slowest member has received, and memory is
/// fullest there. Every rank is played as that one.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Router {
    /// As many for every expert: what a balancing loss or bias aims at.
    #[default]
    Uniform,
    /// The expert of rank r gets a share in proportion to 1 / r^s (Zipf); the most popular first.
    Zipf(f64),
    /// Shares in these proportions, repeated if there are more experts.
    Histogram(Vec<f64>),
}

impl Router {
    /// Tokens that the busiest of `ranks` ranks gets, over those of a balanced router, in millionths. A
    /// single rank has all experts, and no more tokens however they are spread.
    pub fn load_millionths(&self, experts: u64, ranks: u64) -> u64 {
        let balanced = ExpertParallel::BALANCED;
        if ranks <= 1 || experts == 0 || *self == Self::Uniform {
            return balanced;
        }
        let each = experts.div_ceil(ranks);
        let (mut all, mut most, mut here) = (0.0, 0.0_f64, 0.0);
        for expert in 0..experts {
            let weight = self.weight(expert);
            all += weight;
            here += weight;
            if (expert + 1).is_multiple_of(each) {
                most = most.max(here);
                here = 0.0;
            }
        }
        if all > 0.0 { (most / all * ranks as f64 * balanced as f64).round() as u64 } else { balanced }
    }

    fn weight(&self, expert: u64) -> f64 {
        match self {
            Self::Uniform => 1.0,
            Self::Zipf(exponent) => pow((expert + 1) as f64, -exponent),
            Self::Histogram(weights) if weights.is_empty() => 1.0,
            Self::Histogram(weights) => weights.get(expert as usize % weights.len()).copied().unwrap_or(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_rank_sets_the_load() {
        assert_eq!(Router::Uniform.load_millionths(64, 8), 1_000_000);
        // 1 + 1/2 of 1 + 1/2 + 1/3 + 1/4 = 25/12: 18/25 of the tokens on one of two ranks.
        assert_eq!(Router::Zipf(1.0).load_millionths(4, 2), 1_440_000);
        assert_eq!(Router::Zipf(0.0).load_millionths(4, 2), 1_000_000);
        assert_eq!(Router::Histogram(vec![1.0, 1.0, 3.0, 3.0]).load_millionths(4, 2), 1_500_000);
        assert_eq!(Router::Histogram(vec![1.0, 3.0]).load_millionths(4, 2), 1_000_000);
        assert_eq!(Router::Zipf(1.0).load_millionths(64, 1), 1_000_000);
    }
}

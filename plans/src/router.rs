//! How many tokens the router sends to each expert.

use libm::{exp, lgamma, log, pow};
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
    /// Shares drawn from a symmetric Dirichlet distribution with this concentration: the smaller, the more uneven. The
    /// busiest rank has the expected maximum over the draws.
    Dirichlet(f64),
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
        if let Self::Dirichlet(concentration) = *self {
            let load = expected_maximum(ranks, concentration * each as f64);
            return (load * balanced as f64).round() as u64;
        }
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
            Self::Uniform | Self::Dirichlet(_) => 1.0,
            Self::Zipf(exponent) => pow((expert + 1) as f64, -exponent),
            Self::Histogram(weights) if weights.is_empty() => 1.0,
            Self::Histogram(weights) => weights.get(expert as usize % weights.len()).copied().unwrap_or(1.0),
        }
    }
}

/// Expected largest of the shares of `ranks` ranks, over an equal share, where each rank's experts together draw theirs from
/// a symmetric Dirichlet distribution of concentration `shape` a rank.
///
/// Such shares are independent gamma variables over their sum, and the sum is independent of the shares (Lukacs 1955): the
/// expected largest share is the expected largest variable over the expected sum, `ranks * shape`. Of `n` variables with
/// the distribution function `P` the largest is in the mean the integral of `1 - P(x)^n`. A shape of 1 makes them
/// exponential, and the largest in the mean the harmonic number of `n`.
fn expected_maximum(ranks: u64, shape: f64) -> f64 {
    // Far beyond the mean of the largest: some standard deviations of a variable, and the tail of an exponential one.
    let end = shape + 12.0 * libm::sqrt(shape) + 12.0 + 3.0 * log(ranks as f64);
    let above = |x: f64| 1.0 - pow(lower_gamma(shape, x), ranks as f64);
    // Simpson's rule; substituted so that small shapes, whose density has no limit at 0, are smooth there.
    let at = |index: u32| {
        let t = f64::from(index) / f64::from(STEPS);
        let (x, slope) = (end * t * t * t * t, 4.0 * end * t * t * t);
        let weight = match index {
            0 | STEPS => 1.0,
            _ if index % 2 == 1 => 4.0,
            _ => 2.0,
        };
        weight * above(x) * slope
    };
    let sum: f64 = (0..=STEPS).map(at).sum();
    sum / f64::from(3 * STEPS) / shape
}

/// Intervals of the integral, an even number.
const STEPS: u32 = 1024;

/// Share of a gamma variable of this shape that lies below `x`: the regularized lower incomplete gamma function, by its
/// series below the mean and its continued fraction above (Abramowitz and Stegun, 6.5.29 and 6.5.31).
fn lower_gamma(shape: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let front = exp(shape * log(x) - x - lgamma(shape));
    if x < shape + 1.0 {
        let (mut term, mut sum) = (1.0 / shape, 1.0 / shape);
        for n in 1..TERMS {
            term *= x / (shape + f64::from(n));
            sum += term;
            if term < sum * 1e-16 {
                break;
            }
        }
        return (front * sum).clamp(0.0, 1.0);
    }
    // Lentz's method.
    let mut b = x + 1.0 - shape;
    let mut c = 1e300;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for n in 1..TERMS {
        let a = -f64::from(n) * (f64::from(n) - shape);
        b += 2.0;
        d = 1.0 / (a * d + b);
        c = b + a / c;
        fraction *= c * d;
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    (1.0 - front * fraction).clamp(0.0, 1.0)
}

/// Most terms of a series.
const TERMS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The busiest of `R` ranks has the `E / R` most popular experts: `R H(E/R, s) / H(E, s)`, with the generalized
    /// harmonic numbers `H(n, s)`, the sum of `1 / k^s`.
    #[test]
    fn zipf_loads_are_ratios_of_harmonic_numbers() {
        let harmonic = |n: u64, s: f64| (1..=n).map(|k| pow(k as f64, -s)).sum::<f64>();
        for (experts, ranks) in [(8, 2), (8, 8), (64, 8), (128, 16), (256, 64)] {
            for s in [0.2, 0.5, 1.0, 1.5] {
                let expected = ranks as f64 * harmonic(experts / ranks, s) / harmonic(experts, s);
                let found = Router::Zipf(s).load_millionths(experts, ranks) as f64 / 1e6;
                assert!((found - expected).abs() < 1e-6, "{experts} {ranks} {s}: {found} {expected}");
            }
        }
    }

    #[test]
    fn dirichlet_loads_are_expected_maxima() {
        let load = |experts, ranks, concentration| {
            Router::Dirichlet(concentration).load_millionths(experts, ranks) as f64 / 1e6
        };
        // One expert a rank and concentration 1: the harmonic number of 8, and of 64.
        assert!((load(8, 8, 1.0) - 2.717_857).abs() < 1e-5, "{}", load(8, 8, 1.0));
        assert!((load(64, 64, 1.0) - 4.743_891).abs() < 1e-5, "{}", load(64, 64, 1.0));
        // Two ranks of shape 2: shares are Beta(2, 2), whose larger half is 11/16 in the mean.
        assert!((load(4, 2, 1.0) - 1.375).abs() < 1e-5, "{}", load(4, 2, 1.0));
        // Beta(1/2, 1/2): 1/2 + 1/pi.
        assert!((load(2, 2, 0.5) - 1.636_620).abs() < 1e-5, "{}", load(2, 2, 0.5));
        // Ever more even, ever closer to equal shares; a single expert cannot have more than all.
        assert!(load(64, 8, 100.0) < 1.06 && load(64, 8, 0.1) > load(64, 8, 1.0));
        assert!((load(8, 8, 1e-3) - 8.0).abs() < 0.1, "{}", load(8, 8, 1e-3));
        assert_eq!(Router::Dirichlet(1.0).load_millionths(64, 1), 1_000_000);
    }

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

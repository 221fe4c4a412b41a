//! How many tokens the router sends to each expert.

use libm::{exp, lgamma, log, pow};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};
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
    /// What has been drawn for every layer of the model: tokens that the rank that is played gets there, over those of a
    /// balanced router, in millionths.
    Drawn(Vec<u64>),
}

impl Router {
    /// Tokens that the busiest of `ranks` ranks gets, over those of a balanced router, in millionths. A
    /// single rank has all experts, and no more tokens however they are spread.
    pub fn load_millionths(&self, experts: u64, ranks: u64) -> u64 {
        let balanced = ExpertParallel::BALANCED;
        if ranks <= 1 || experts == 0 || *self == Self::Uniform {
            return balanced;
        }
        if let Self::Dirichlet(concentration) = *self {
            let each = experts.div_ceil(ranks);
            let load = expected_maximum(ranks, concentration * each as f64);
            return (load * balanced as f64).round() as u64;
        }
        self.loads_millionths(experts, ranks).into_iter().max().unwrap_or(balanced)
    }

    /// The same of the rank that is played, in one layer of the model.
    pub fn layer_load_millionths(&self, layer: usize, experts: u64, ranks: u64) -> u64 {
        match self {
            Self::Drawn(loads) => loads.get(layer).copied().unwrap_or(ExpertParallel::BALANCED),
            _ => self.load_millionths(experts, ranks),
        }
    }

    /// The same of every one of `ranks` ranks that together have all experts.
    pub(crate) fn loads_millionths(&self, experts: u64, ranks: u64) -> Vec<u64> {
        let balanced = ExpertParallel::BALANCED;
        let each = experts.div_ceil(ranks.max(1)).max(1);
        let weights: Vec<f64> = (0..experts).map(|expert| self.weight(expert)).collect();
        let all: f64 = weights.iter().sum();
        if all <= 0.0 {
            return vec![balanced; ranks as usize];
        }
        let of_rank = |held: &[f64]| {
            let here: f64 = held.iter().sum();
            (here / all * ranks as f64 * balanced as f64).round() as u64
        };
        weights.chunks(each as usize).map(of_rank).collect()
    }

    /// What it does in one step: shares drawn from its distribution, or its shares for experts in another order. One that
    /// is uniform stays so.
    pub(crate) fn drawn(&self, experts: u64, stream: &mut ChaCha8Rng) -> Self {
        match self {
            Self::Uniform | Self::Drawn(_) => self.clone(),
            Self::Dirichlet(concentration) => {
                let logarithms: Vec<f64> =
                    (0..experts).map(|_| log_gamma_variable(*concentration, stream)).collect();
                // Small shapes draw numbers below what a double holds; only ratios count.
                let most = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                Self::Histogram(logarithms.into_iter().map(|it| exp(it - most)).collect())
            }
            Self::Zipf(_) | Self::Histogram(_) => {
                let mut weights: Vec<f64> = (0..experts).map(|expert| self.weight(expert)).collect();
                for last in (1..weights.len()).rev() {
                    // 64 bits over some hundred experts: none is favoured by more than 2^-50.
                    weights.swap(last, (stream.next_u64() % (last as u64 + 1)) as usize);
                }
                Self::Histogram(weights)
            }
        }
    }

    fn weight(&self, expert: u64) -> f64 {
        match self {
            Self::Uniform | Self::Dirichlet(_) | Self::Drawn(_) => 1.0,
            Self::Zipf(exponent) => pow((expert + 1) as f64, -exponent),
            Self::Histogram(weights) if weights.is_empty() => 1.0,
            Self::Histogram(weights) => weights.get(expert as usize % weights.len()).copied().unwrap_or(1.0),
        }
    }
}

/// Logarithm of a gamma variable of this shape: of one of shape + 1 by the method of Marsaglia and Tsang (2000, ACM TOMS
/// 26(3), section 2), times `U^(1 / shape)` (their section 6), whose logarithm is an exponential variable over the shape.
fn log_gamma_variable(shape: f64, stream: &mut ChaCha8Rng) -> f64 {
    let d = shape + 1.0 - 1.0 / 3.0;
    let c = 1.0 / libm::sqrt(9.0 * d);
    let fall: f64 = Exp1.sample(stream);
    loop {
        let x: f64 = StandardNormal.sample(stream);
        let exponential: f64 = Exp1.sample(stream);
        let v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
        // -ln U of a uniform variable is exponential.
        if v > 0.0 && -exponential < 0.5 * x * x + d - d * v + d * log(v) {
            return log(d * v) - fall / shape;
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
    use rand_chacha::rand_core::SeedableRng;

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

    fn draws(router: &Router, count: u64, experts: u64, ranks: u64) -> Vec<f64> {
        let draw = |number| {
            let mut stream = ChaCha8Rng::seed_from_u64(7);
            stream.set_stream(number);
            router.drawn(experts, &mut stream).load_millionths(experts, ranks) as f64 / 1e6
        };
        (0..count).map(draw).collect()
    }

    /// The mean of what steps draw is the expectation that a single step is played with.
    #[test]
    fn drawn_shares_have_the_expected_maximum() {
        for (experts, ranks, concentration) in
            [(8, 8, 1.0), (64, 8, 0.1), (64, 8, 10.0), (16, 4, 0.01), (8, 2, 0.5)]
        {
            let router = Router::Dirichlet(concentration);
            let expected = router.load_millionths(experts, ranks) as f64 / 1e6;
            let loads = draws(&router, 20_000, experts, ranks);
            let mean = loads.iter().sum::<f64>() / loads.len() as f64;
            let variance = loads.iter().map(|it| (it - mean) * (it - mean)).sum::<f64>() / loads.len() as f64;
            let error = 4.0 * libm::sqrt(variance / loads.len() as f64);
            assert!((mean - expected).abs() < error, "{concentration}: {mean} +- {error}, not {expected}");
        }
    }

    /// With an expert on every rank the busiest has the most popular one in every order; with more, the order matters, and
    /// no order is worse than the one in which a rank has the most popular ones.
    #[test]
    fn shares_are_dealt_to_experts_in_another_order() {
        let zipf = Router::Zipf(1.0);
        let worst = |ranks| zipf.load_millionths(8, ranks) as f64 / 1e6;
        assert!(draws(&zipf, 50, 8, 8).iter().all(|load| (load - worst(8)).abs() < 2e-6));
        let loads = draws(&zipf, 2_000, 8, 4);
        assert!(loads.iter().all(|load| *load <= worst(4) + 2e-6));
        // The second expert is one of seven to be with the first.
        let together = loads.iter().filter(|load| (*load - worst(4)).abs() < 2e-6).count() as f64 / 2_000.0;
        assert!((together - 1.0 / 7.0).abs() < 0.03, "{together}");
        assert_eq!(Router::Uniform.drawn(8, &mut ChaCha8Rng::seed_from_u64(0)), Router::Uniform);
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

//! Times between failures.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// Lives of a kind of part: Weibull, with the exponential as shape 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Life {
    mean_s: f64,
    shape: f64,
    /// `mean / Gamma(1 + 1 / shape)`.
    scale_s: f64,
}

impl Life {
    pub(super) fn new(mean_s: f64, shape: f64) -> Self {
        Self { mean_s, shape, scale_s: mean_s / libm::tgamma(1.0 + 1.0 / shape) }
    }

    pub(super) fn mean_s(self) -> f64 {
        self.mean_s
    }

    /// Whether age does not matter.
    pub(super) fn is_exponential(self) -> bool {
        self.shape.total_cmp(&1.0).is_eq()
    }

    /// Seconds until a new part fails: the inverse of the distribution at a uniform number.
    pub(super) fn draw(self, random: &mut ChaCha8Rng) -> f64 {
        let stretch = exponential(random);
        if self.is_exponential() {
            self.mean_s * stretch
        } else {
            self.scale_s * libm::pow(stretch, 1.0 / self.shape)
        }
    }
}

/// A number of mean 1, from 53 random bits; never zero.
pub(super) fn exponential(random: &mut ChaCha8Rng) -> f64 {
    let uniform = ((random.next_u64() >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0;
    -libm::log(uniform)
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// Means of 200,000 draws are within four of their standard errors, `sd / sqrt(n)`, of the mean.
    #[test]
    fn lives_have_their_mean() {
        // Standard deviations over the mean: 1 for the exponential; sqrt(Gamma(1 + 2/k) / Gamma(1 + 1/k)^2 - 1) else.
        for (shape, deviation) in [(1.0, 1.0), (0.7, 1.4624), (2.0, 0.5227)] {
            let life = Life::new(1000.0, shape);
            let mut random = ChaCha8Rng::seed_from_u64(5);
            let count = 200_000;
            let mean = (0..count).map(|_| life.draw(&mut random)).sum::<f64>() / f64::from(count);
            let error = 1000.0 * deviation / f64::from(count).sqrt();
            assert!((mean - 1000.0).abs() < 4.0 * error, "shape {shape}: {mean}");
        }
    }
}

//! The Mersenne Twister MT19937 of Matsumoto and Nishimura (1998), as NumPy's `RandomState` seeds and reads it: the
//! source draws its stability scores from it, so that its plans can be had only with the same numbers.

const WORDS: usize = 624;
const AHEAD: usize = 397;

/// A generator of numbers from 0 to 1.
pub(super) struct Mersenne {
    state: [u32; WORDS],
    next: usize,
}

impl Mersenne {
    /// `numpy.random.RandomState(seed)`.
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [0; WORDS];
        state[0] = seed;
        for index in 1..WORDS {
            let before: u32 = state[index - 1];
            state[index] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(index as u32);
        }
        Self { state, next: WORDS }
    }

    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            for index in 0..WORDS {
                let mixed =
                    (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % WORDS] & 0x7fff_ffff);
                let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[index] = self.state[(index + AHEAD) % WORDS] ^ (mixed >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// `random_sample()`: 53 bits, from 0 up to but not 1.
    pub(super) fn sample(&mut self) -> f64 {
        let (high, low) = (f64::from(self.word() >> 5), f64::from(self.word() >> 6));
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// A whole number below `count`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        ((self.sample() * count as f64) as usize).min(count.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.random.RandomState(42).random_sample(3)`, as NumPy's documentation and countless notebooks print it.
    #[test]
    fn numbers_are_those_of_numpy() {
        let mut random = Mersenne::new(42);
        for expected in [0.37454012, 0.95071431, 0.73199394] {
            assert!((random.sample() - expected).abs() < 5e-9);
        }
    }
}

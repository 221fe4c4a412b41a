//! Dimensioned values at the borders of the crates; plain numbers inside hot loops.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// An amount of memory or traffic, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// An amount of arithmetic: floating-point operations, a multiply-add counting two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flops(pub u64);

/// Product of sizes that stops at `u64::MAX`: a user can ask for a batch of 10^18, and must get a large number
/// and not a wrapped one.
pub(crate) fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(factor))
}

/// Sum of sizes that stops at `u64::MAX`.
pub(crate) fn total(terms: &[u64]) -> u64 {
    terms.iter().fold(0, |sum: u64, &term| sum.saturating_add(term))
}

impl Bytes {
    /// In binary gibibytes.
    pub fn gib(self) -> f64 {
        self.0 as f64 / f64::from(1 << 30)
    }
}

impl Flops {
    /// In units of 10^12.
    pub fn tera(self) -> f64 {
        self.0 as f64 / 1e12
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self(0), Self::add)
    }
}

impl Add for Flops {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Flops {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Flops {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self(0), Self::add)
    }
}

impl fmt::Display for Bytes {
    /// Binary prefixes with three significant decimals: `1.500 GiB`, `820 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.3} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_with_binary_prefixes() {
        assert_eq!(Bytes(820).to_string(), "820 B");
        assert_eq!(Bytes(1536 << 20).to_string(), "1.500 GiB");
        assert_eq!(Bytes(u64::MAX).to_string(), "16384.000 PiB");
    }

    #[test]
    fn sums_and_products_stop_at_the_largest_number() {
        assert_eq!(Bytes(u64::MAX) + Bytes(1), Bytes(u64::MAX));
        assert_eq!([Flops(2), Flops(3)].into_iter().sum::<Flops>(), Flops(5));
        assert_eq!(product(&[1 << 40, 1 << 40]), u64::MAX);
        assert_eq!(product(&[1 << 40, 1 << 40, 0]), 0);
    }
}

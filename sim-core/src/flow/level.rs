//! Rates as whole numbers of a small unit, so that sums and differences of them are exact.

/// A rate in whole units.
pub(super) type Level = u128;

/// No level: of what never happens.
pub(super) const NEVER: Level = Level::MAX;

/// Units that a link may keep to itself once it counts as saturated.
///
/// A link is saturated at level `t` when `left - t open < ROOM`. What is left over is the same before and after
/// others of its flows froze at `t`, so which links saturate at a level does not depend on an order among them. As
/// long as the weights on a link stay below this, its flows never exceed it.
const ROOM: Level = 1 << 24;

/// The unit: a power of two, so that capacities are whole numbers of it exactly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    per_byte: f64,
    bytes: f64,
}

impl Unit {
    /// Such that the largest of these capacities, bytes/s, is somewhere between 2^118 and 2^120 units.
    pub(super) fn of(capacities: &[f64]) -> Self {
        let largest = capacities.iter().copied().fold(1.0, f64::max);
        // The exponent of the number's binary form; finite numbers above 1 have one from 0 to 1023.
        let exponent = (largest.to_bits() >> 52 & 0x7ff).saturating_sub(1023).min(1023);
        let power = |exponent: u64| f64::from_bits(exponent << 52);
        Self { per_byte: power(1023 + 119 - exponent), bytes: power(1023 + exponent - 119) }
    }

    pub(super) fn whole(self, bytes_per_second: f64) -> Level {
        (bytes_per_second * self.per_byte) as Level
    }

    pub(super) fn bytes_per_second(self, level: Level) -> f64 {
        level as f64 * self.bytes
    }
}

/// The level at which a link saturates that has so much left for flows of weight `open` > 0.
pub(super) fn saturation(left: Level, open: u64) -> Level {
    left.saturating_sub(ROOM) / Level::from(open) + 1
}

/// Whether a link is saturated at a level.
pub(super) fn is_saturated(left: Level, open: u64, level: Level) -> bool {
    left.saturating_sub(level * Level::from(open)) < ROOM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_are_whole_numbers_of_the_unit() {
        for capacities in [[1e15, 3.0], [12.0, 7.0], [49e9, 1e-6], [1.0, 1e-9]] {
            let unit = Unit::of(&capacities);
            for capacity in capacities {
                let again = unit.bytes_per_second(unit.whole(capacity));
                assert!((again / capacity - 1.0).abs() < 1e-15, "{capacity}: {again}");
            }
        }
    }

    #[test]
    fn a_share_is_the_quotient_to_the_last_bit() {
        for capacity in [50e9, 25e9, 900e9, 12.5e9 / 3.0, 1.0] {
            let unit = Unit::of(&[capacity]);
            for weight in 1..2_000_u64 {
                let share = unit.bytes_per_second(saturation(unit.whole(capacity), weight));
                assert_eq!(share.to_bits(), (capacity / weight as f64).to_bits(), "{capacity} / {weight}");
            }
        }
    }

    #[test]
    fn a_link_saturates_at_its_level_and_no_earlier() {
        for (left, open) in [(1 << 80, 3), ((1 << 80) + 12_345, 7), (1 << 100, 255)] {
            let level = saturation(left, open);
            assert!(is_saturated(left, open, level) && !is_saturated(left, open, level - 1));
            assert!(level * Level::from(open) <= left);
        }
    }
}

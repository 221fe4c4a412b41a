//! Simulated time: whole picoseconds, never wrapped.

use std::fmt;

use thiserror::Error;

/// A moment or a duration in picoseconds since the start of the simulation.
///
/// Sixty-four bits of picoseconds are 213 days. Arithmetic that would leave them is an error, never a wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimTime(pub u64);

/// A time that cannot be represented.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum TimeError {
    /// The result is past [`SimTime::MAX`].
    #[error("simulated time overflows 64 bits of picoseconds (213 days)")]
    Overflow,
    /// The result lies before time zero.
    #[error("simulated time would be negative")]
    Negative,
    /// A number of seconds that is negative, infinite, not a number or too large.
    #[error("{0} s is not a simulated time: it must be from 0 up to 1.8e7 s")]
    Seconds(f64),
}

/// Picoseconds in a second.
pub(crate) const PICOS_PER_SECOND: f64 = 1e12;

impl SimTime {
    /// Time zero, the empty duration.
    pub const ZERO: Self = Self(0);
    /// The largest representable time. No simulation reaches it: its last moment is one picosecond before.
    pub const MAX: Self = Self(u64::MAX);

    /// A time of `picos` picoseconds.
    pub const fn from_picos(picos: u64) -> Self {
        Self(picos)
    }

    /// A time of `nanos` nanoseconds; 32 bits of them always fit.
    pub const fn from_nanos(nanos: u32) -> Self {
        Self(nanos as u64 * 1_000)
    }

    /// A time of `micros` microseconds; 32 bits of them always fit.
    pub const fn from_micros(micros: u32) -> Self {
        Self(micros as u64 * 1_000_000)
    }

    /// A time of `seconds`, rounded to the nearest picosecond.
    ///
    /// # Errors
    /// [`TimeError::Seconds`] for a negative, infinite, undefined or too large number.
    pub fn from_seconds(seconds: f64) -> Result<Self, TimeError> {
        // 2^64 as f64; every smaller float converts without loss of range.
        const LIMIT: f64 = 18_446_744_073_709_551_616.0;
        let picos = (seconds * PICOS_PER_SECOND).round();
        if (0.0..LIMIT).contains(&picos) { Ok(Self(picos as u64)) } else { Err(TimeError::Seconds(seconds)) }
    }

    /// The time in seconds, to the precision of `f64`.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / PICOS_PER_SECOND
    }

    /// The time in picoseconds.
    pub const fn picos(self) -> u64 {
        self.0
    }

    /// `self + other`.
    ///
    /// # Errors
    /// [`TimeError::Overflow`] past [`SimTime::MAX`].
    pub const fn checked_add(self, other: Self) -> Result<Self, TimeError> {
        match self.0.checked_add(other.0) {
            Some(picos) => Ok(Self(picos)),
            None => Err(TimeError::Overflow),
        }
    }

    /// `self - other`.
    ///
    /// # Errors
    /// [`TimeError::Negative`] when `other` is the larger.
    pub const fn checked_sub(self, other: Self) -> Result<Self, TimeError> {
        match self.0.checked_sub(other.0) {
            Some(picos) => Ok(Self(picos)),
            None => Err(TimeError::Negative),
        }
    }

    /// `self` taken `factor` times.
    ///
    /// # Errors
    /// [`TimeError::Overflow`] past [`SimTime::MAX`].
    pub const fn checked_mul(self, factor: u64) -> Result<Self, TimeError> {
        match self.0.checked_mul(factor) {
            Some(picos) => Ok(Self(picos)),
            None => Err(TimeError::Overflow),
        }
    }

    /// `self - other`, or zero when `other` is the larger.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// `start + duration` as the players reckon it: `None` from [`SimTime::MAX`] on, which they keep as the mark
/// of a moment not known yet.
#[inline]
pub(crate) fn later(start: u64, duration: u64) -> Option<u64> {
    // !start is u64::MAX - start, so one comparison covers the overflow and the reserved value.
    if duration >= !start { None } else { Some(start + duration) }
}

impl fmt::Display for SimTime {
    /// Three decimals of the largest unit that leaves at least one whole: `12.345 ms`; picoseconds bare.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1_000 {
            return write!(f, "{} ps", self.0);
        }
        let mut text = String::new();
        // Thousandths of the unit, rounded half up; a value that rounds up to 1000 moves to the next unit.
        for (unit, thousandth) in [("ns", 1_u64), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)] {
            let rounded = (u128::from(self.0) + u128::from(thousandth / 2)) / u128::from(thousandth);
            text = format!("{}.{:03} {unit}", rounded / 1_000, rounded % 1_000);
            if rounded < 1_000_000 {
                break;
            }
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_to_the_nearest_picosecond() {
        assert_eq!(SimTime::from_seconds(1.0), Ok(SimTime(1_000_000_000_000)));
        assert_eq!(SimTime::from_seconds(1.4e-12), Ok(SimTime(1)));
        assert_eq!(SimTime::from_seconds(1.6e-12), Ok(SimTime(2)));
        assert_eq!(SimTime::from_seconds(0.0), Ok(SimTime::ZERO));
        assert!((SimTime::from_micros(1500).seconds() - 1.5e-3).abs() < 1e-18);
    }

    #[test]
    fn seconds_that_are_no_time_are_refused() {
        for bad in [-1.0, f64::INFINITY, f64::NAN, 1.9e7] {
            assert!(SimTime::from_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arithmetic_reports_what_does_not_fit() {
        assert_eq!(SimTime::MAX.checked_add(SimTime(1)), Err(TimeError::Overflow));
        assert_eq!(SimTime::ZERO.checked_sub(SimTime(1)), Err(TimeError::Negative));
        assert_eq!(SimTime(u64::MAX / 2).checked_mul(3), Err(TimeError::Overflow));
        assert_eq!(SimTime::from_nanos(2).checked_add(SimTime(5)), Ok(SimTime(2_005)));
        assert_eq!(SimTime(7).checked_mul(6), Ok(SimTime(42)));
        assert_eq!(SimTime(7).saturating_sub(SimTime(9)), SimTime::ZERO);
        assert_eq!(SimTime(9).saturating_sub(SimTime(7)), SimTime(2));
    }

    #[test]
    fn later_keeps_the_last_value_free() {
        assert_eq!(later(5, 6), Some(11));
        assert_eq!(later(u64::MAX - 2, 1), Some(u64::MAX - 1));
        assert_eq!(later(u64::MAX - 2, 2), None);
        assert_eq!(later(u64::MAX - 2, 3), None);
    }

    #[test]
    fn display_picks_a_readable_unit() {
        for (picos, text) in [
            (0, "0 ps"),
            (999, "999 ps"),
            (1_000, "1.000 ns"),
            (12_345_000_000, "12.345 ms"),
            (999_999_600, "1.000 ms"),
            (1_500_000, "1.500 us"),
            (90_000_000_000_000, "90.000 s"),
            (u64::MAX, "18446744.074 s"),
        ] {
            assert_eq!(SimTime(picos).to_string(), text);
        }
    }
}

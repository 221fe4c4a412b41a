//! Units and ticks.
//!
//! Ticks stand at multiples of 1, 2, 2.5 or 5 times a power of ten; the unit is chosen so that the numbers are
//! short. Only `+ - * /` are used, so that the same figure comes out everywhere.

use crate::font::text_width;
use crate::style::TICK_PT;

/// A unit of an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit {
    /// As written in the axis label.
    pub(crate) name: &'static str,
    /// Seconds or bytes in one of it.
    pub(crate) size: f64,
}

impl Unit {
    /// An axis label with its unit, where there is one.
    pub(crate) fn label(self, label: &str) -> String {
        if self.name.is_empty() { label.to_owned() } else { format!("{label} ({})", self.name) }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    Seconds,
    Bytes,
    /// Anything else, in the unit that its label names.
    Number,
}

/// Units of time with the least number of seconds for which each is used: people read 90 s, not 1.5 min.
const TIME_UNITS: [(&str, f64, f64); 8] = [
    ("d", 86400.0, 172_800.0),
    ("h", 3600.0, 7200.0),
    ("min", 60.0, 300.0),
    ("s", 1.0, 1.0),
    ("ms", 1e-3, 1e-3),
    ("µs", 1e-6, 1e-6),
    ("ns", 1e-9, 1e-9),
    ("ps", 1e-12, 0.0),
];

const BYTE_UNITS: [(&str, f64, f64); 6] = [
    ("PiB", 1_125_899_906_842_624.0, 1_125_899_906_842_624.0),
    ("TiB", 1_099_511_627_776.0, 1_099_511_627_776.0),
    ("GiB", 1_073_741_824.0, 1_073_741_824.0),
    ("MiB", 1_048_576.0, 1_048_576.0),
    ("KiB", 1024.0, 1024.0),
    ("B", 1.0, 0.0),
];

/// Large numbers in words, as axes of tokens a second need them.
const NUMBER_UNITS: [(&str, f64, f64); 4] =
    [("billion", 1e9, 1e9), ("million", 1e6, 1e6), ("thousand", 1e3, 1e4), ("", 1.0, 0.0)];

impl Quantity {
    /// What a column of a table holds, by the ending of its name: `_s` seconds, `_bytes` bytes.
    pub(crate) fn of_column(name: &str) -> Self {
        if name.ends_with("_per_s") {
            Self::Number
        } else if name.ends_with("_s") {
            Self::Seconds
        } else if name.ends_with("_bytes") {
            Self::Bytes
        } else {
            Self::Number
        }
    }

    /// The unit for values up to `max` seconds or bytes; seconds and GiB when there is nothing to show.
    pub(crate) fn unit(self, max: f64) -> Unit {
        let (units, empty) = match self {
            Self::Seconds => (&TIME_UNITS[..], Unit { name: "s", size: 1.0 }),
            Self::Bytes => (&BYTE_UNITS[..], Unit { name: "GiB", size: 1_073_741_824.0 }),
            Self::Number => (&NUMBER_UNITS[..], Unit { name: "", size: 1.0 }),
        };
        if max <= 0.0 {
            return empty;
        }
        units.iter().find(|unit| max >= unit.2).map_or(empty, |&(name, size, _)| Unit { name, size })
    }

    /// A single value with its own unit: `350 ms`, `80.0 GiB`.
    pub(crate) fn text(self, value: f64) -> String {
        let unit = self.unit(value);
        format!("{} {}", three_digits(value / unit.size), unit.name).trim_end().to_owned()
    }

    /// A value beside a bar whose axis has this unit: the unit is repeated only where it differs.
    pub(crate) fn text_on_axis(self, value: f64, axis: Unit) -> String {
        let scaled = value / axis.size;
        if value <= 0.0 {
            "0".to_owned()
        } else if scaled < 0.1 {
            self.text(value)
        } else {
            three_digits(scaled)
        }
    }
}

/// Three significant digits, more for whole numbers from 1000; exponents from ten million.
pub(crate) fn three_digits(value: f64) -> String {
    if value >= 9_999_999.5 {
        return format!("{value:.2e}");
    }
    let decimals = if value <= 0.0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else if value >= 0.9995 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}

/// One tick.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    /// In the axis' unit.
    pub(crate) value: f64,
    pub(crate) label: String,
}

/// Ticks from 0 to `max` (above zero), at most `most` steps.
pub(crate) fn ticks(max: f64, most: usize) -> Vec<Tick> {
    if max <= 0.0 || !max.is_finite() || most == 0 {
        return vec![Tick { value: 0.0, label: "0".to_owned() }];
    }
    let (factor, exponent) = step_at_least(max / most as f64);
    let step = factor * power_of_ten(exponent);
    let extra = i32::from((factor - 2.5).abs() < 1e-9);
    let decimals = usize::try_from(extra - exponent).unwrap_or(0);
    // A hair above the end, so that an end which is a multiple of the step gets its tick.
    let count = (max / step * (1.0 + 1e-9)) as usize;
    let label = |i: usize| match i {
        0 => "0".to_owned(),
        _ if exponent >= 6 || decimals > 5 => format!("{:.1e}", i as f64 * step),
        _ => format!("{:.decimals$}", i as f64 * step),
    };
    (0..=count).map(|i| Tick { value: i as f64 * step, label: label(i) }).collect()
}

/// The smallest of 1, 2, 2.5, 5, 10 times a power of ten that is not below `raw`: (factor, exponent).
fn step_at_least(raw: f64) -> (f64, i32) {
    let mut exponent = 0;
    while power_of_ten(exponent + 1) <= raw {
        exponent += 1;
    }
    while power_of_ten(exponent) > raw && exponent > -300 {
        exponent -= 1;
    }
    let scale = power_of_ten(exponent);
    // A hair of room, so that 0.2 / 2 asks for 0.1 even where it comes out one bit above.
    let fits = |factor: &&f64| **factor * scale >= raw * (1.0 - 1e-9);
    match [1.0, 2.0, 2.5, 5.0].iter().find(fits) {
        Some(&factor) => (factor, exponent),
        None => (1.0, exponent + 1),
    }
}

/// Ten to a whole power by repeated multiplication.
fn power_of_ten(exponent: i32) -> f64 {
    let power = (0..exponent.unsigned_abs()).fold(1.0, |product, _| product * 10.0);
    if exponent < 0 { 1.0 / power } else { power }
}

/// The direction of an axis: labels beside each other or above each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Horizontal,
    Vertical,
}

/// As many ticks as fit on an axis of `length` points without labels touching, at most eight steps.
pub(crate) fn fit_ticks(max: f64, length: f64, direction: Direction) -> Vec<Tick> {
    let fits = |ticks: &[Tick]| {
        let [_, first, ..] = ticks else { return false };
        let between = first.value / max * length;
        let needed = match direction {
            Direction::Horizontal => widest(ticks) + 6.0,
            Direction::Vertical => 2.2 * TICK_PT,
        };
        between >= needed
    };
    (2..=8)
        .rev()
        .map(|most| ticks(max, most))
        .find(|candidate| fits(candidate))
        .unwrap_or_else(|| ticks(max, 2))
}

/// Width of the widest label, points.
pub(crate) fn widest(ticks: &[Tick]) -> f64 {
    ticks.iter().map(|tick| text_width(&tick.label, TICK_PT)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(max: f64, most: usize) -> Vec<String> {
        ticks(max, most).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn steps_are_one_two_two_and_a_half_or_five() {
        assert_eq!(labels(1.0, 5), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(1.0, 4), ["0", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(labels(97.0, 5), ["0", "20", "40", "60", "80"]);
        assert_eq!(labels(97.0, 4), ["0", "25", "50", "75"]);
        assert_eq!(labels(350.4, 4), ["0", "100", "200", "300"]);
        assert_eq!(labels(10.0, 4), ["0", "2.5", "5.0", "7.5", "10.0"]);
        assert_eq!(labels(0.0042, 5), ["0", "0.001", "0.002", "0.003", "0.004"]);
    }

    #[test]
    fn extreme_ranges_have_short_labels() {
        assert_eq!(labels(3.2e8, 4), ["0", "1.0e8", "2.0e8", "3.0e8"]);
        assert_eq!(labels(3.2e-8, 4), ["0", "1.0e-8", "2.0e-8", "3.0e-8"]);
        assert_eq!(labels(0.0, 4), ["0"]);
        assert_eq!(labels(f64::INFINITY, 4), ["0"]);
        assert!(labels(1e-320, 4).len() < 40, "denormal numbers must not run away");
    }

    #[test]
    fn units_keep_numbers_short() {
        let name = |seconds: f64| Quantity::Seconds.unit(seconds).name;
        assert_eq!(
            [3e-12, 3e-7, 2e-4, 0.35, 90.0, 299.0, 600.0, 9000.0, 4e5].map(name),
            ["ps", "ns", "µs", "ms", "s", "s", "min", "h", "d"]
        );
        assert_eq!(name(0.0), "s");
        let name = |bytes: f64| Quantity::Bytes.unit(bytes).name;
        assert_eq!([10.0, 2048.0, 5e6, 8e9, 3e12].map(name), ["B", "KiB", "MiB", "GiB", "TiB"]);
    }

    #[test]
    fn values_have_three_digits() {
        assert_eq!(Quantity::Seconds.text(0.3504), "350 ms");
        assert_eq!(Quantity::Seconds.text(0.06), "60.0 ms");
        assert_eq!(Quantity::Bytes.text(80.0 * 1_073_741_824.0), "80.0 GiB");
        assert_eq!(three_digits(9.996), "10.0");
        assert_eq!(three_digits(0.1234), "0.123");
        assert_eq!(three_digits(123_456.7), "123457");
    }

    #[test]
    fn values_far_below_the_axis_bring_their_own_unit() {
        let axis = Quantity::Seconds.unit(12.0);
        assert_eq!(Quantity::Seconds.text_on_axis(3.456, axis), "3.46");
        assert_eq!(Quantity::Seconds.text_on_axis(0.06, axis), "60.0 ms");
        assert_eq!(Quantity::Seconds.text_on_axis(0.0, axis), "0");
    }

    #[test]
    fn ticks_that_fit_do_not_touch() {
        for max in [0.01, 0.35, 1.0, 7.7, 99.9, 123.4, 1e5, 1e9] {
            for length in [40.0, 90.0, 200.0, 450.0] {
                let chosen = fit_ticks(max, length, Direction::Horizontal);
                assert!(chosen.len() >= 2, "{max} {length}");
                assert!(chosen.iter().all(|tick| tick.value <= max * 1.000_001));
            }
        }
    }
}

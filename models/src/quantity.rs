//! Numbers with units, as catalogues and users write them: `"0.6 GB"`, `"80 GiB"`, `"400 Gbit/s"`, `"2.5 us"`.
//!
//! A decimal prefix moves the decimal point of the *text* before it becomes a number, so `"0.6 GB"` is the same
//! `f64` as the literal `0.6e9`, without a rounding of its own. Binary prefixes and bits scale by powers of two,
//! which are exact as well.

use thiserror::Error;

/// What a quantity measures; decides which units are allowed and in which unit the result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// Memory or traffic; result in bytes. `B` with a decimal or binary prefix.
    Bytes,
    /// Arithmetic; result in FLOPs. `FLOP` with a decimal prefix.
    Flops,
    /// Arithmetic rate; result in FLOPs a second. `FLOP/s` with a decimal prefix.
    FlopsPerSecond,
    /// Traffic rate; result in bytes a second. `B/s` or `bit/s` with a decimal or binary prefix.
    BytesPerSecond,
    /// Time; result in seconds. `s`, `ms`, `us`, `ns`, `ps`.
    Seconds,
    /// Frequency; result in hertz. `Hz` with a decimal prefix.
    Hertz,
    /// Power; result in watts. `W` with a decimal prefix.
    Watts,
}

/// Why a text is not a quantity of the wanted dimension.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// The text does not begin with a number.
    #[error("`{text}` is not a number with a unit; write it like {example}")]
    NotANumber {
        /// What was found.
        text: String,
        /// How a right one looks.
        example: &'static str,
    },
    /// A number without a unit.
    #[error("`{text}` has no unit; write it like {example}")]
    MissingUnit {
        /// What was found.
        text: String,
        /// How a right one looks.
        example: &'static str,
    },
    /// A unit that does not exist or measures something else.
    #[error(
        "`{unit}` in `{text}` is not a unit of {dimension}; allowed are {allowed}, like {example}{}",
        hint(.nearest.as_deref())
    )]
    UnknownUnit {
        /// What was found.
        text: String,
        /// The part after the number.
        unit: String,
        /// What the quantity should measure.
        dimension: &'static str,
        /// The units that are allowed.
        allowed: &'static str,
        /// How a right one looks.
        example: &'static str,
        /// The allowed unit that looks most like the one found.
        nearest: Option<String>,
    },
    /// Below zero, or beyond the range of a 64-bit float.
    #[error("`{text}` is out of range; {dimension} must be finite and not negative")]
    OutOfRange {
        /// What was found.
        text: String,
        /// What the quantity should measure.
        dimension: &'static str,
    },
}

/// The closing words of a message that knows a near match.
pub(crate) fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Factor of a prefix.
#[derive(Clone, Copy)]
enum Scale {
    /// 10 to this power.
    Decimal(i32),
    /// 2 to this power.
    Binary(u32),
}

const DECIMAL: [(&str, i32); 7] = [("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 5] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50)];
const SECONDS: [(&str, i32); 6] =
    [("s", 0), ("ms", -3), ("us", -6), ("\u{b5}s", -6), ("ns", -9), ("ps", -12)];

impl Dimension {
    /// Name for messages.
    const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "memory",
            Self::Flops => "arithmetic",
            Self::FlopsPerSecond => "arithmetic rate",
            Self::BytesPerSecond => "bandwidth",
            Self::Seconds => "time",
            Self::Hertz => "frequency",
            Self::Watts => "power",
        }
    }

    /// Units in words.
    const fn allowed(self) -> &'static str {
        match self {
            Self::Bytes => "B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB, PiB",
            Self::Flops => "FLOP, kFLOP, MFLOP, GFLOP, TFLOP, PFLOP",
            Self::FlopsPerSecond => "FLOP/s, MFLOP/s, GFLOP/s, TFLOP/s, PFLOP/s",
            Self::BytesPerSecond => "B/s, MB/s, GB/s, TB/s, MiB/s, GiB/s, bit/s, Mbit/s, Gbit/s, Tbit/s",
            Self::Seconds => "s, ms, us, ns, ps",
            Self::Hertz => "Hz, kHz, MHz, GHz",
            Self::Watts => "W, kW",
        }
    }

    /// A right quantity of this dimension, in quotes as in a file.
    pub const fn example(self) -> &'static str {
        match self {
            Self::Bytes => "\"80 GiB\"",
            Self::Flops => "\"3 GFLOP\"",
            Self::FlopsPerSecond => "\"312 TFLOP/s\"",
            Self::BytesPerSecond => "\"3.35 TB/s\" or \"400 Gbit/s\"",
            Self::Seconds => "\"2.5 us\"",
            Self::Hertz => "\"1.41 GHz\"",
            Self::Watts => "\"400 W\"",
        }
    }

    /// Every unit of this dimension with its scale and the number of bits to shift right for bits to bytes.
    fn units(self) -> Vec<(String, Scale, u32)> {
        let prefixed = |unit: &'static str, binary: bool, shift: u32| {
            let decimal = DECIMAL.iter().map(move |&(prefix, power)| (prefix, Scale::Decimal(power)));
            let powers_of_two =
                BINARY.iter().filter(move |_| binary).map(|&(prefix, power)| (prefix, Scale::Binary(power)));
            decimal.chain(powers_of_two).map(move |(prefix, scale)| (format!("{prefix}{unit}"), scale, shift))
        };
        match self {
            Self::Bytes => prefixed("B", true, 0).collect(),
            Self::Flops => prefixed("FLOP", false, 0).collect(),
            Self::FlopsPerSecond => prefixed("FLOP/s", false, 0).collect(),
            Self::BytesPerSecond => prefixed("B/s", true, 0).chain(prefixed("bit/s", true, 3)).collect(),
            Self::Seconds => {
                SECONDS.iter().map(|&(unit, power)| (unit.to_owned(), Scale::Decimal(power), 0)).collect()
            }
            Self::Hertz => prefixed("Hz", false, 0).collect(),
            Self::Watts => prefixed("W", false, 0).collect(),
        }
    }
}

/// Reads a number with a unit, such as `"0.6 GB"`, in the base unit of `dimension`.
///
/// # Errors
/// A [`UnitError`] that says what was found and how it should look: no number, no unit, a unit of something
/// else, a negative number.
pub fn parse_quantity(text: &str, dimension: Dimension) -> Result<f64, UnitError> {
    let example = dimension.example();
    let trimmed = text.trim();
    let split = number_length(trimmed);
    let (number, unit) = (&trimmed[..split], trimmed[split..].trim_start());
    let Some((mantissa, exponent)) = decimal_parts(number) else {
        return Err(UnitError::NotANumber { text: text.to_owned(), example });
    };
    if unit.is_empty() {
        return Err(UnitError::MissingUnit { text: text.to_owned(), example });
    }
    let units = dimension.units();
    let Some(&(_, scale, shift)) = units.iter().find(|(name, ..)| name == unit) else {
        return Err(UnitError::UnknownUnit {
            text: text.to_owned(),
            unit: unit.to_owned(),
            dimension: dimension.name(),
            allowed: dimension.allowed(),
            example,
            nearest: nearest(unit, units.iter().map(|(name, ..)| name.as_str())),
        });
    };
    let (power, factor) = match scale {
        Scale::Decimal(power) => (power, 1.0),
        Scale::Binary(power) => (0, (1_u64 << power) as f64),
    };
    let out_of_range = || UnitError::OutOfRange { text: text.to_owned(), dimension: dimension.name() };
    let exponent = exponent.checked_add(power).ok_or_else(out_of_range)?;
    let scaled: f64 = format!("{mantissa}e{exponent}").parse().map_err(|_| out_of_range())?;
    let value = scaled * factor / f64::from(1_u32 << shift);
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(out_of_range()) }
}

/// Bytes of `text` that belong to its leading number. An `e` belongs to it only with digits behind it.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'_')) {
            at += 1;
        }
        at
    };
    let sign = |at: usize| at + usize::from(bytes.get(at).is_some_and(|byte| matches!(byte, b'+' | b'-')));
    let mantissa = digits(sign(0));
    if bytes.get(mantissa).is_some_and(|byte| matches!(byte, b'e' | b'E')) {
        let exponent = sign(mantissa + 1);
        if digits(exponent) > exponent {
            return digits(exponent);
        }
    }
    mantissa
}

/// Splits a decimal number into its mantissa and its power of ten, both checked.
fn decimal_parts(number: &str) -> Option<(String, i32)> {
    let plain = number.replace('_', "");
    let (mantissa, exponent) = match plain.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
        None => (plain.as_str(), 0),
    };
    mantissa.parse::<f64>().ok()?;
    Some((mantissa.to_owned(), exponent))
}

/// The candidate that looks most like `found`, if any comes close: within one edit and one more for every four
/// letters, or alike in its beginning.
pub(crate) fn nearest<'a>(found: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let found = found.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let lower = candidate.to_lowercase();
        let alike = strsim::jaro_winkler(&found, &lower);
        let edited = strsim::normalized_damerau_levenshtein(&found, &lower);
        let close = alike >= 0.75 || strsim::damerau_levenshtein(&found, &lower) <= 1 + lower.len() / 4;
        let likeness = alike.max(edited);
        if close && best.is_none_or(|(score, _)| likeness > score) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit equality: the point of scaling the text is that no rounding of ours comes in.
    fn same(text: &str, dimension: Dimension, expected: f64) {
        let value = parse_quantity(text, dimension).unwrap();
        assert_eq!(value.to_bits(), expected.to_bits(), "{text}: {value} is not {expected}");
    }

    #[test]
    fn decimal_prefixes_give_the_literal() {
        same("0.6 GB", Dimension::Bytes, 0.6e9);
        same("0.35GB", Dimension::Bytes, 0.35e9);
        same("2.85 GFLOP", Dimension::Flops, 2.85e9);
        same("1.1e3 MFLOP", Dimension::Flops, 1.1e9);
        same("3.35 TB/s", Dimension::BytesPerSecond, 3.35e12);
        same("16.3 TFLOP/s", Dimension::FlopsPerSecond, 16.3e12);
        same("2.5 us", Dimension::Seconds, 2.5e-6);
        same("2.5 \u{b5}s", Dimension::Seconds, 2.5e-6);
        same("700 ps", Dimension::Seconds, 700e-12);
        same("1_770 MHz", Dimension::Hertz, 1.77e9);
        same("0.7 kW", Dimension::Watts, 700.0);
    }

    #[test]
    fn binary_prefixes_and_bits_are_powers_of_two() {
        same("80 GiB", Dimension::Bytes, 85_899_345_920.0);
        same("1.5 KiB", Dimension::Bytes, 1536.0);
        same("400 Gbit/s", Dimension::BytesPerSecond, 50e9);
    }

    #[test]
    fn an_exponent_is_not_taken_for_a_unit() {
        same("1 EB", Dimension::Bytes, 1e18);
        same("1e3 B", Dimension::Bytes, 1000.0);
        assert!(parse_quantity("1e B", Dimension::Bytes).is_err());
    }

    #[test]
    fn errors_show_how_to_write_it() {
        let message = |text, dimension| parse_quantity(text, dimension).unwrap_err().to_string();
        assert_eq!(message("3", Dimension::Flops), "`3` has no unit; write it like \"3 GFLOP\"");
        assert_eq!(
            message("fast", Dimension::Hertz),
            "`fast` is not a number with a unit; write it like \"1.41 GHz\""
        );
        assert_eq!(
            message("3 gflop", Dimension::Flops),
            "`gflop` in `3 gflop` is not a unit of arithmetic; allowed are FLOP, kFLOP, MFLOP, GFLOP, TFLOP, \
             PFLOP, like \"3 GFLOP\"; did you mean `GFLOP`?"
        );
        assert!(message("3 GB", Dimension::Seconds).contains("not a unit of time"));
        assert_eq!(
            message("-1 GB", Dimension::Bytes),
            "`-1 GB` is out of range; memory must be finite and not negative"
        );
        for text in ["", " ", "GB", ".", "-", "1..2 GB", "1e999999999999 GB", "9e999 GB", "nan GB", "inf GB"]
        {
            assert!(parse_quantity(text, Dimension::Bytes).is_err(), "{text}");
        }
    }
}

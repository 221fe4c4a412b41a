//! Arithmetic of plain numbers, as far as configurations write it: `3e9`, `2 * 1e9`, `10 ** 9`, `$((8 * 2))`.

/// Deepest nesting of parentheses and signs.
const DEEPEST: usize = 64;

/// The value of an expression of numbers, `+ - * / **` and parentheses.
///
/// # Errors
/// What is not of that kind, a division by zero, a value that is not finite; in words.
pub(super) fn evaluate(text: &str) -> Result<f64, String> {
    let mut reader = Reader { rest: text.trim(), depth: 0 };
    let value = reader.sum()?;
    if !reader.rest.is_empty() {
        return Err(reader.unexpected());
    }
    if value.is_finite() { Ok(value) } else { Err("the value is not finite".to_owned()) }
}

struct Reader<'t> {
    rest: &'t str,
    depth: usize,
}

impl Reader<'_> {
    fn sum(&mut self) -> Result<f64, String> {
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                value += self.product()?;
            } else if self.take("-") {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<f64, String> {
        let mut value = self.signed()?;
        loop {
            // `**` binds more tightly and is taken there.
            if !self.rest.starts_with("**") && self.take("*") {
                value *= self.signed()?;
            } else if self.take("/") {
                let divisor = self.signed()?;
                if divisor == 0.0 {
                    return Err("division by zero".to_owned());
                }
                value /= divisor;
            } else {
                return Ok(value);
            }
        }
    }

    /// As in Python, `-2 ** 2` is -4.
    fn signed(&mut self) -> Result<f64, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("nested deeper than {DEEPEST} levels"));
        }
        let value = if self.take("-") {
            -self.signed()?
        } else if self.take("+") {
            self.signed()?
        } else {
            self.power()?
        };
        self.depth -= 1;
        Ok(value)
    }

    fn power(&mut self) -> Result<f64, String> {
        let base = if self.take("(") {
            let value = self.sum()?;
            if !self.take(")") {
                return Err("a parenthesis is not closed".to_owned());
            }
            value
        } else {
            self.number()?
        };
        if self.take("**") {
            let exponent = self.signed()?;
            return raise(base, exponent);
        }
        Ok(base)
    }

    fn number(&mut self) -> Result<f64, String> {
        let bytes = self.rest.as_bytes();
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'_')) {
                at += 1;
            }
            at
        };
        let mut end = digits(0);
        if end > 0 && matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if digits(sign) > sign {
                end = digits(sign);
            }
        }
        let (number, rest) = self.rest.split_at(end);
        let value = number.replace('_', "").parse().map_err(|_| self.unexpected())?;
        self.rest = rest.trim_start();
        Ok(value)
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn unexpected(&self) -> String {
        match self.rest.chars().next() {
            None => "a number is missing at the end".to_owned(),
            Some(found) => format!("`{}` is not of a number", found.escape_debug()),
        }
    }
}

/// A whole power by repeated multiplication, the same on every machine.
fn raise(base: f64, exponent: f64) -> Result<f64, String> {
    if exponent.fract() != 0.0 || !(-400.0..=400.0).contains(&exponent) {
        return Err(format!("the exponent {exponent} is not a whole number from -400 to 400"));
    }
    let mut value = 1.0;
    for _ in 0..exponent.abs() as u32 {
        value *= base;
    }
    Ok(if exponent < 0.0 { 1.0 / value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_numbers_have_values() {
        let cases: [(&str, f64); 10] = [
            ("3e9", 3e9),
            ("0.25e9", 0.25e9),
            ("2*1e9", 2e9),
            (" 2 * (1 + 3) / 4 ", 2.0),
            ("10**9", 1e9),
            ("2**3**2", 512.0),
            ("-2**2", -4.0),
            ("1_000", 1000.0),
            ("1 - -1", 2.0),
            ("2**-1", 0.5),
        ];
        for (text, value) in cases {
            assert_eq!(evaluate(text).unwrap().to_bits(), value.to_bits(), "{text}");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        for text in
            ["", "x", "1;2", "__import__('os')", "1/0", "1e400", "(1", "1)", "2**0.5", "2**1e9", "1 2"]
        {
            assert!(evaluate(text).is_err(), "{text}");
        }
        assert!(evaluate(&"(".repeat(100_000)).is_err());
        assert!(evaluate(&"-".repeat(100_000)).is_err());
    }
}

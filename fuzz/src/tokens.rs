//! Changes of texts by what they are made of: numbers become absurd, words change places, lines come and go.

/// Numbers at which something may break.
const NUMBERS: [&str; 38] = [
    "0",
    "1",
    "2",
    "3",
    "7",
    "8",
    "-1",
    "0.5",
    "-0.0",
    "1e-9",
    "1e-300",
    "1e9",
    "1e18",
    "1e19",
    "1e308",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "255",
    "256",
    "65535",
    "65536",
    "65537",
    "1048576",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "1099511627776",
    "9007199254740993",
    "1000000000000000000",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
];

/// The same draws for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// A text with one to three changes; nothing of what is no text.
pub(crate) fn changed(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut text = std::str::from_utf8(data).ok()?.to_owned();
    let mut draw = Draw(u64::from(seed) ^ 0x9e37_79b9_7f4a_7c15);
    draw.below(2);
    for _ in 0..=draw.below(3) {
        text = match draw.below(4) {
            0 | 1 => number(&text, &mut draw)?,
            2 => word(&text, &mut draw)?,
            _ => line(&text, &mut draw)?,
        };
    }
    Some(text.into_bytes())
}

/// Ranges of a text that hold one kind of characters.
fn runs(text: &str, is: impl Fn(char) -> bool) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, letter) in text.char_indices().filter(|(_, letter)| is(*letter)) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end = at + letter.len_utf8(),
            _ => runs.push(at..at + letter.len_utf8()),
        }
    }
    runs
}

fn number(text: &str, draw: &mut Draw) -> Option<String> {
    let digits = runs(text, |letter| letter.is_ascii_digit() || letter == '.');
    let place = digits.get(draw.below(digits.len()))?.clone();
    let mut text = text.to_owned();
    text.replace_range(place, NUMBERS[draw.below(NUMBERS.len())]);
    Some(text)
}

fn word(text: &str, draw: &mut Draw) -> Option<String> {
    let words = runs(text, |letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.'));
    let place = words.get(draw.below(words.len()))?.clone();
    let other = text[words[draw.below(words.len())].clone()].to_owned();
    let mut text = text.to_owned();
    text.replace_range(place, &other);
    Some(text)
}

fn line(text: &str, draw: &mut Draw) -> Option<String> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let at = draw.below(lines.len());
    match draw.below(3) {
        0 => {
            lines.remove(at);
        }
        1 => lines.insert(draw.below(lines.len()), lines[at]),
        _ => {
            let other = draw.below(lines.len());
            lines.swap(at, other);
        }
    }
    Some(lines.join("\n"))
}

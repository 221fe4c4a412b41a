//! Lines and columns of places in a text.

/// Bytes between places up to which characters are counted beforehand.
const STRIDE: usize = 512;

/// A text whose places are found without reading it again: long texts have many, and some are one long line.
pub(crate) struct Lines<'t> {
    text: &'t str,
    /// Where each line begins.
    starts: Vec<usize>,
    /// Characters that begin before every [`STRIDE`]th byte.
    characters: Vec<usize>,
}

/// How many characters begin in these bytes.
fn begin(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

impl<'t> Lines<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        let mut characters = vec![0];
        let mut before = 0;
        for block in text.as_bytes().chunks(STRIDE) {
            before += begin(block);
            characters.push(before);
        }
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect(), characters }
    }

    /// The text.
    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    /// Line and column of a byte, both from 1; columns count characters.
    pub(crate) fn place(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|&start| start <= at).max(1);
        let at = self.text.floor_char_boundary(at);
        (line, self.characters_before(at).saturating_sub(self.characters_before(self.start(line))) + 1)
    }

    /// The byte at a line and column from 1, of which the column counts bytes.
    pub(crate) fn byte(&self, line: usize, column: usize) -> usize {
        self.start(line) + column.saturating_sub(1)
    }

    /// The byte at a line from 1 and a column from 0 that counts characters; the end where there are fewer.
    pub(crate) fn byte_of_characters(&self, line: usize, column: usize) -> usize {
        let wanted = self.characters_before(self.start(line)) + column;
        let block = self.characters.partition_point(|&before| before <= wanted).saturating_sub(1);
        let first = self.text.ceil_char_boundary(block * STRIDE);
        let more = wanted.saturating_sub(self.characters_before(first));
        let rest = self.text.get(first..).unwrap_or_default();
        first + rest.char_indices().nth(more).map_or(rest.len(), |(at, _)| at)
    }

    fn start(&self, line: usize) -> usize {
        self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0)
    }

    fn characters_before(&self, at: usize) -> usize {
        let block = (at / STRIDE).min(self.characters.len() - 1);
        let rest = self.text.as_bytes().get(block * STRIDE..at).unwrap_or_default();
        self.characters[block] + begin(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the tables say is what counting says, wherever lines and letters of several bytes lie.
    #[test]
    fn places_are_those_that_counting_finds() {
        let long: String = "aé\u{1f697}\n".chars().cycle().take(900).collect();
        for text in
            ["", "\n", "one\ntwo", &long, &long.replace('\n', "ß"), &"x".repeat(STRIDE), &"ä".repeat(STRIDE)]
        {
            let lines = Lines::new(text);
            for at in 0..=text.len() + 2 {
                let floor = text.floor_char_boundary(at);
                let before = &text[..floor];
                let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
                let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
                assert_eq!(lines.place(at), (line, column), "{at}");
                if text.is_char_boundary(at) {
                    assert_eq!(lines.byte_of_characters(line, column - 1), at, "{at} of {}", text.len());
                }
            }
            assert_eq!(lines.byte_of_characters(1, usize::MAX / 2), text.len());
        }
    }
}

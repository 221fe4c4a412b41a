//! Widths of text, measured in the font that the figures carry, and names shortened to fit.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef};

/// Liberation Sans 2.1.5 (SIL Open Font License 1.1), of the same widths as Arial and Helvetica.
pub(crate) const FONT_BYTES: &[u8] = include_bytes!("../fonts/LiberationSans-Regular.ttf");
/// Families for viewers of the SVG, which have their own fonts: all of the same widths.
pub(crate) const FONT_FAMILY: &str = "Liberation Sans, Arial, Helvetica, sans-serif";
/// Height of capitals and digits over the font size.
pub(crate) const CAP_HEIGHT: f64 = 0.72;
/// Width taken for a character that the font does not have: those of other scripts are mostly full-width.
const UNKNOWN_WIDTH: f64 = 1.0;

fn font() -> Option<&'static FontRef<'static>> {
    static FONT: OnceLock<Option<FontRef<'static>>> = OnceLock::new();
    FONT.get_or_init(|| FontRef::try_from_slice(FONT_BYTES).ok()).as_ref()
}

/// Width of one character over the font size.
fn char_width(c: char) -> f64 {
    let Some(font) = font() else { return UNKNOWN_WIDTH };
    let glyph = font.glyph_id(c);
    match font.units_per_em() {
        Some(em) if glyph.0 != 0 => f64::from(font.h_advance_unscaled(glyph)) / f64::from(em),
        _ => UNKNOWN_WIDTH,
    }
}

/// Width of a text in points at this font size. Kerning, which only narrows, is left out.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(char_width).sum::<f64>() * size
}

/// Text that may stand in an SVG: control characters, which XML forbids, become spaces, and runs of white
/// space one space.
pub(crate) fn clean(text: &str) -> String {
    let allowed = |c: char| {
        if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { ' ' } else { c }
    };
    let spaced: String = text.chars().map(allowed).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text if it fits, else its beginning and its end with an ellipsis between: names of variants mostly
/// differ at one of the two.
pub(crate) fn shorten(text: &str, width: f64, size: f64) -> String {
    let text = clean(text);
    if text_width(&text, size) <= width {
        return text;
    }
    let chars: Vec<char> = text.chars().collect();
    let room = width - text_width("…", size);
    let mut used = 0.0;
    let (mut head, mut tail) = (0, chars.len());
    // Take turns between the two ends, the beginning first, until nothing more fits.
    while head < tail {
        let from_head = (head + tail) % 2 == chars.len() % 2;
        let next = if from_head { chars[head] } else { chars[tail - 1] };
        used += char_width(next) * size;
        if used > room {
            break;
        }
        if from_head { head += 1 } else { tail -= 1 }
    }
    let start: String = chars[..head].iter().collect();
    let end: String = chars[tail..].iter().collect();
    format!("{}…{}", start.trim_end(), end.trim_start())
}

/// Breaks a text over at most two lines at a space or after a hyphen, underscore, comma or slash; the second
/// line is shortened if need be. At least one line is returned.
pub(crate) fn wrap(text: &str, width: f64, size: f64) -> Vec<String> {
    let text = clean(text);
    if text_width(&text, size) <= width {
        return vec![text];
    }
    let breaks = text.char_indices().filter_map(|(at, c)| match c {
        ' ' => Some(at),
        '-' | '_' | ',' | '/' | ';' => Some(at + 1),
        _ => None,
    });
    let last_that_fits = breaks.rev().find(|&at| at > 0 && text_width(text[..at].trim_end(), size) <= width);
    match last_that_fits {
        Some(at) => {
            let second = text[at..].trim_start();
            vec![text[..at].trim_end().to_owned(), shorten(second, width, size)]
        }
        None => vec![shorten(&text, width, size)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_font() {
        // Advance widths of Arial and Liberation Sans in units of 1/2048 em: "0" 1139, "i" 455, "M" 1706.
        assert!((text_width("0", 2048.0) - 1139.0).abs() < 1e-9);
        assert!((text_width("iM", 2048.0) - (455.0 + 1706.0)).abs() < 1e-9);
        assert!((text_width("\u{4e00}", 8.0) - 8.0).abs() < 1e-12, "not in the font: one em");
    }

    #[test]
    fn short_text_is_left_alone_and_long_text_keeps_both_ends() {
        assert_eq!(shorten("vit", 100.0, 8.0), "vit");
        let short = shorten("switch-vit-64 on four Quadro RTX 8000", 70.0, 8.0);
        assert!(short.starts_with("switch") && short.ends_with("8000") && short.contains('…'), "{short}");
        assert!(text_width(&short, 8.0) <= 70.0);
    }

    #[test]
    fn nothing_but_the_ellipsis_is_left_without_room() {
        assert_eq!(shorten("a long name", 0.0, 8.0), "…");
    }

    #[test]
    fn lines_break_where_words_end() {
        assert_eq!(wrap("llama3-8b, ZeRO 2", 45.0, 8.0), ["llama3-8b,", "ZeRO 2"]);
        assert_eq!(wrap("gpt", 45.0, 8.0), ["gpt"]);
        for line in wrap("no-break-but-hyphens-and-a-very-long-tail-behind-them", 45.0, 8.0) {
            assert!(text_width(&line, 8.0) <= 45.0, "{line}");
        }
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(clean("a\u{0}b\n\tc"), "a b c");
    }
}

//! Colours of a run's text, on terminals only.
//!
//! They say nothing that words do not say: bars are set apart from numbers, and the summary is green or red.

use std::io::IsTerminal;

const BAR: &str = "\u{1b}[36m";
const GOOD: &str = "\u{1b}[32m";
const BAD: &str = "\u{1b}[31m";
const PLAIN: &str = "\u{1b}[0m";

/// Whether standard output is a terminal that shows colours and nobody asked for none (`NO_COLOR`, see no-color.org).
pub(crate) fn wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

/// The text with its bars and its last line coloured; `good` says what the last line tells.
pub(crate) fn painted(text: &str, good: bool) -> String {
    let last = text.lines().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len() + 64);
    for (number, line) in text.lines().enumerate() {
        let start = line.trim_end_matches(['#', '>']).len();
        if number == last && !line.is_empty() {
            let color = if good { GOOD } else { BAD };
            out += &format!("{color}{line}{PLAIN}\n");
        } else if line[start..].starts_with('#') {
            out += &format!("{}{BAR}{}{PLAIN}\n", &line[..start], &line[start..]);
        } else {
            out += line;
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_the_last_line_are_painted() {
        let text = "name\n\n  compute  9 ms  ####>\n  v1 > v2\n\nname: fits\n";
        let expected =
            "name\n\n  compute  9 ms  \u{1b}[36m####>\u{1b}[0m\n  v1 > v2\n\n\u{1b}[32mname: fits\u{1b}[0m\n";
        assert_eq!(painted(text, true), expected);
        assert!(painted(text, false).contains("\u{1b}[31mname: fits"));
        assert_eq!(painted("", true), "");
    }
}

//! Words of a shell script, as far as a script that launches a run is data: assignments, arrays, expansions, quotes.
//!
//! Nothing is executed. What only the running shell knows (commands, arguments of the script, variables that nobody
//! sets) makes a word unknown; conditions are not evaluated, and assignments that depend on one are not taken.

use std::collections::BTreeMap;

use crate::error::InputError;
use crate::import::arithmetic::evaluate;
use crate::import::report::Log;
use crate::import::source::Source;

/// Longest value and most words of one, so that values that double each other end.
const LONGEST: usize = 1 << 20;
/// Deepest nesting of expansions.
const DEEPEST: usize = 16;

/// A word of a command.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) text: String,
    /// Whether the text is all that the shell would see.
    pub(super) known: bool,
    pub(super) at: usize,
}

/// A command: its words.
pub(super) type Command = Vec<Word>;

/// Reads all commands of a script.
pub(super) fn commands(source: &Source<'_>, log: &mut Log) -> Result<Vec<Command>, InputError> {
    let mut shell = Shell { source, at: 0, variables: BTreeMap::new(), depth: 0, log };
    let mut commands = Vec::new();
    while shell.at < source.text.len() {
        let command = shell.command()?;
        if !command.is_empty() {
            commands.push(command);
        }
    }
    Ok(commands)
}

/// What an expansion stands for, before it is split into words.
struct Expansion {
    words: Vec<Word>,
    /// Whether it is a list, whose items stay words of their own even in quotes.
    list: bool,
    /// Whether blanks in it no longer part words, as in a default that has quotes of its own.
    parted: bool,
}

struct Shell<'a, 't> {
    source: &'a Source<'t>,
    at: usize,
    variables: BTreeMap<String, Vec<Word>>,
    /// Conditions and loops around the current command.
    depth: u32,
    log: &'a mut Log,
}

impl<'t> Shell<'_, 't> {
    fn rest(&self) -> &'t str {
        self.source.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.source.text.len());
    }

    /// Blanks, continued lines, and comments at the beginning of a word.
    fn blanks(&mut self) {
        loop {
            let rest = self.rest();
            if rest.starts_with("\\\n") {
                self.skip(2);
            } else if rest.starts_with("\\\r\n") {
                self.skip(3);
            } else if rest.starts_with([' ', '\t', '\r']) {
                self.skip(1);
            } else if rest.starts_with('#') {
                self.skip(rest.find('\n').unwrap_or(rest.len()));
            } else {
                return;
            }
        }
    }

    /// One command up to a line break or an operator; assignments take effect and leave nothing.
    fn command(&mut self) -> Result<Command, InputError> {
        let mut words: Command = Vec::new();
        loop {
            self.blanks();
            let Some(next) = self.peek() else { return Ok(words) };
            if "\n;&|()".contains(next) {
                self.skip(1);
                return Ok(words);
            }
            if "<>".contains(next) {
                // A redirection and its target.
                let rest = self.rest();
                self.skip(rest.len() - rest.trim_start_matches(['<', '>', '&', '-']).len());
                self.blanks();
                self.word(0)?;
                continue;
            }
            if words.is_empty() && self.assignment()? {
                continue;
            }
            let read = self.word(0)?;
            let descriptor =
                matches!(&read[..], [word] if word.text.bytes().all(|byte| byte.is_ascii_digit()));
            if descriptor && self.rest().starts_with(['<', '>']) {
                // The number belongs to the redirection, as in `2>&1`.
                continue;
            }
            if words.is_empty() && self.keyword(&read) {
                continue;
            }
            words.extend(read);
            if words.len() > LONGEST {
                return Err(self.source.syntax(self.at, format!("a command of more than {LONGEST} words")));
            }
        }
    }

    /// Words that begin or end a condition or loop, or stand before an assignment.
    fn keyword(&mut self, read: &[Word]) -> bool {
        let [word] = read else { return false };
        match word.text.as_str() {
            "if" | "for" | "while" | "until" | "case" => self.depth += 1,
            "fi" | "done" | "esac" => self.depth = self.depth.saturating_sub(1),
            "then" | "else" | "elif" | "do" | "{" | "}" | "export" | "local" | "declare" | "readonly"
            | "exec" | "time" => {}
            _ => return false,
        }
        true
    }

    /// `NAME=value`, `NAME+=value`, `NAME=( words )`.
    fn assignment(&mut self) -> Result<bool, InputError> {
        let rest = self.rest();
        let name = name_at(rest);
        let after = &rest[name.len()..];
        let append = after.starts_with("+=");
        if name.is_empty() || !(append || after.starts_with('=')) {
            return Ok(false);
        }
        let at = self.at;
        self.skip(name.len() + 1 + usize::from(append));
        let mut value = if self.rest().starts_with('(') {
            self.skip(1);
            self.array()?
        } else if self.peek().is_none_or(|next| next.is_whitespace() || "\n;&|".contains(next)) {
            vec![Word { text: String::new(), known: true, at: self.at }]
        } else {
            vec![self.scalar()?]
        };
        if self.depth > 0 {
            let (line, _) = self.source.place(at);
            self.log.note(format!(
                "line {line}: {name} is set inside a condition or loop, which is not evaluated"
            ));
            return Ok(true);
        }
        if append && let Some(mut before) = self.variables.remove(name) {
            before.append(&mut value);
            value = before;
        }
        if value.iter().map(|word| word.text.len() + 1).sum::<usize>() > LONGEST {
            return Err(self.source.syntax(at, format!("the value of {name} grows beyond {LONGEST} bytes")));
        }
        self.variables.insert(name.to_owned(), value);
        Ok(true)
    }

    fn array(&mut self) -> Result<Vec<Word>, InputError> {
        let begin = self.at;
        let mut words = Vec::new();
        loop {
            self.blanks();
            match self.peek() {
                None => return Err(self.source.syntax(begin, "the list is not closed: `)` is missing")),
                Some(')') => {
                    self.skip(1);
                    return Ok(words);
                }
                Some('\n') => self.skip(1),
                Some(';' | '&' | '|' | '(' | '<' | '>') => {
                    return Err(self.source.syntax(self.at, "found an operator in a list, allowed: words"));
                }
                Some(_) => words.extend(self.word(0)?),
            }
        }
    }

    /// A word that is not split, as the right side of an assignment.
    fn scalar(&mut self) -> Result<Word, InputError> {
        let at = self.at;
        let words = self.word(0)?;
        let known = words.iter().all(|word| word.known);
        let text = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        Ok(Word { text, known, at: words.first().map_or(at, |word| word.at) })
    }

    /// One word of the script, which an expansion may make none or several.
    fn word(&mut self, depth: usize) -> Result<Vec<Word>, InputError> {
        let mut building = Building { words: Vec::new(), open: None, length: 0 };
        let begin = self.at;
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                '}' if depth > 0 => break,
                '\'' => {
                    self.skip(1);
                    let rest = self.rest();
                    let Some(end) = rest.find('\'') else {
                        return Err(self.source.syntax(begin, "a quote is not closed: `'` is missing"));
                    };
                    building.push(&rest[..end], true, begin);
                    self.skip(end + 1);
                }
                '"' => self.quoted(&mut building, depth)?,
                '\\' => {
                    self.skip(1);
                    if let Some(escaped) = self.peek() {
                        self.skip(escaped.len_utf8());
                        if escaped != '\n' {
                            building.push(escaped.encode_utf8(&mut [0; 4]), true, begin);
                        }
                    }
                }
                '`' => {
                    self.command_text()?;
                    building.push("`...`", false, begin);
                }
                '$' => {
                    let expansion = self.expansion(depth)?;
                    building.split(&expansion);
                }
                other => {
                    self.skip(other.len_utf8());
                    building.push(other.encode_utf8(&mut [0; 4]), true, begin);
                }
            }
            if building.length > LONGEST {
                return Err(self.source.syntax(begin, format!("the word grows beyond {LONGEST} bytes")));
            }
        }
        Ok(building.finish())
    }

    /// Text in double quotes.
    fn quoted(&mut self, building: &mut Building, depth: usize) -> Result<(), InputError> {
        let begin = self.at;
        self.skip(1);
        building.push("", true, begin);
        loop {
            match self.peek() {
                None => return Err(self.source.syntax(begin, "a quote is not closed: `\"` is missing")),
                Some('"') => {
                    self.skip(1);
                    return Ok(());
                }
                Some('\\') => {
                    self.skip(1);
                    let Some(escaped) = self.peek() else { continue };
                    self.skip(escaped.len_utf8());
                    match escaped {
                        '\n' => {}
                        '$' | '`' | '"' | '\\' => {
                            building.push(escaped.encode_utf8(&mut [0; 4]), true, begin);
                        }
                        other => building.push(&format!("\\{other}"), true, begin),
                    }
                }
                Some('`') => {
                    self.command_text()?;
                    building.push("`...`", false, begin);
                }
                Some('$') => {
                    let expansion = self.expansion(depth)?;
                    building.whole(&expansion);
                }
                Some(other) => {
                    self.skip(other.len_utf8());
                    building.push(other.encode_utf8(&mut [0; 4]), true, begin);
                }
            }
            if building.length > LONGEST {
                return Err(self.source.syntax(begin, format!("the word grows beyond {LONGEST} bytes")));
            }
        }
    }

    /// Steps over a command in backquotes.
    fn command_text(&mut self) -> Result<(), InputError> {
        let begin = self.at;
        self.skip(1);
        let Some(end) = self.rest().find('`') else {
            return Err(self.source.syntax(begin, "a command is not closed: a backquote is missing"));
        };
        self.skip(end + 1);
        Ok(())
    }

    /// What stands behind `$`.
    fn expansion(&mut self, depth: usize) -> Result<Expansion, InputError> {
        let begin = self.at;
        if depth > DEEPEST {
            return Err(self.source.syntax(begin, format!("expansions nested deeper than {DEEPEST} levels")));
        }
        let rest = &self.rest()[1..];
        let unknown = |text: &str| Expansion {
            words: vec![Word { text: text.to_owned(), known: false, at: begin }],
            list: false,
            parted: false,
        };
        if rest.starts_with('(') {
            let Some(length) = closed(rest) else {
                return Err(self.source.syntax(begin, "a substitution is not closed: `)` is missing"));
            };
            self.skip(1 + length);
            let inner = rest[..length].strip_prefix("((").and_then(|inner| inner.strip_suffix("))"));
            let value = inner.and_then(|expression| self.arithmetic(expression));
            return Ok(value.map_or_else(
                || unknown("$(...)"),
                |value| Expansion {
                    words: vec![Word { text: value.to_string(), known: true, at: begin }],
                    list: false,
                    parted: false,
                },
            ));
        }
        if rest.starts_with('{') {
            self.skip(2);
            return self.braced(begin, depth);
        }
        let name = name_at(rest);
        if name.is_empty() {
            // `$1`, `$@`, `$?`, or a dollar alone.
            let length = rest
                .chars()
                .next()
                .filter(|next| next.is_ascii_graphic() && *next != '"')
                .map_or(0, char::len_utf8);
            let text = format!("${}", &rest[..length]);
            self.skip(1 + length);
            return Ok(unknown(&text));
        }
        self.skip(1 + name.len());
        Ok(self.variable(name, false).unwrap_or_else(|| unknown(&format!("${name}"))))
    }

    /// `NAME}`, `NAME[@]}`, `NAME:-default}`.
    fn braced(&mut self, begin: usize, depth: usize) -> Result<Expansion, InputError> {
        let name = name_at(self.rest());
        self.skip(name.len());
        let list = ["[@]", "[*]"].iter().any(|index| self.rest().starts_with(index));
        if list {
            self.skip(3);
        }
        let mut expansion = self.variable(name, list);
        let rest = self.rest();
        if rest.starts_with(":-") || rest.starts_with(":=") || rest.starts_with('-') {
            self.skip(if rest.starts_with('-') { 1 } else { 2 });
            let words = self.word(depth + 1)?;
            if expansion.is_none() {
                let shown: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
                self.log.note(format!(
                    "{name} is not set in the script: its default \"{}\" is taken",
                    shown.join(" ")
                ));
                expansion = Some(Expansion { words, list: false, parted: true });
            }
        }
        let rest = self.rest();
        let Some(end) = rest.find('}') else {
            return Err(self.source.syntax(begin, "an expansion is not closed: `}` is missing"));
        };
        self.skip(end + 1);
        // Anything else between the braces (lengths, replacements) is for the shell to know.
        let plain = end == 0 && !name.is_empty();
        Ok(expansion.filter(|_| plain).unwrap_or_else(|| Expansion {
            words: vec![Word { text: format!("${{{name}}}"), known: false, at: begin }],
            list: false,
            parted: false,
        }))
    }

    fn variable(&self, name: &str, list: bool) -> Option<Expansion> {
        let words = self.variables.get(name)?;
        let words = if list { words.clone() } else { words.iter().take(1).cloned().collect() };
        Some(Expansion { words, list, parted: false })
    }

    /// The value of `$(( ))` where it is a whole number.
    fn arithmetic(&self, expression: &str) -> Option<i64> {
        let mut plain = String::new();
        let mut rest = expression;
        while let Some(next) = rest.chars().next() {
            let name = name_at(rest);
            if !name.is_empty() {
                let words = self.variables.get(name)?;
                let [Word { text, known: true, .. }] = &words[..] else { return None };
                plain.push_str(text);
                rest = &rest[name.len()..];
                continue;
            }
            if !"${}".contains(next) {
                plain.push(next);
            }
            rest = &rest[next.len_utf8()..];
        }
        let value = match plain.split_once('/') {
            None => evaluate(&plain).ok()?,
            // The shell divides whole numbers; that is the same as here for one division, which comes last.
            Some((dividend, divisor)) => {
                let divisor: f64 = divisor.trim().parse().ok()?;
                if dividend.contains(['+', '-', '/']) || divisor == 0.0 {
                    return None;
                }
                (evaluate(dividend).ok()? / divisor).trunc()
            }
        };
        (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
    }
}

/// A word that grows.
struct Building {
    words: Vec<Word>,
    open: Option<Word>,
    length: usize,
}

impl Building {
    fn push(&mut self, text: &str, known: bool, at: usize) {
        let open = self.open.get_or_insert_with(|| Word { text: String::new(), known: true, at });
        open.text.push_str(text);
        open.known &= known;
        self.length += text.len();
    }

    fn close(&mut self) {
        self.words.extend(self.open.take());
        self.length += 1;
    }

    /// An expansion outside of quotes: blanks in it part words.
    fn split(&mut self, expansion: &Expansion) {
        for (index, word) in expansion.words.iter().enumerate() {
            if index > 0 {
                self.close();
            }
            if !word.known || expansion.parted {
                self.push(&word.text, word.known, word.at);
                continue;
            }
            let mut first = true;
            if word.text.starts_with(char::is_whitespace) {
                self.close();
            }
            for part in word.text.split_whitespace() {
                if !first {
                    self.close();
                }
                first = false;
                self.push(part, true, word.at);
            }
            if !first && word.text.ends_with(char::is_whitespace) {
                self.close();
            }
        }
    }

    /// An expansion in quotes: one piece, or the items of a list.
    fn whole(&mut self, expansion: &Expansion) {
        for (index, word) in expansion.words.iter().enumerate() {
            if index > 0 && expansion.list {
                self.close();
            }
            self.push(&word.text, word.known, word.at);
        }
        if expansion.list
            && expansion.words.is_empty()
            && self.open.as_ref().is_some_and(|open| open.text.is_empty())
        {
            self.open = None;
        }
    }

    fn finish(mut self) -> Vec<Word> {
        self.close();
        self.words
    }
}

/// The name of a variable at the beginning of a text.
fn name_at(text: &str) -> &str {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return "";
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// The length of `(...)`, inner parentheses included.
fn closed(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;

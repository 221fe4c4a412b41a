//! Arguments of a launch as a table, from a script or a YAML file.

use indexmap::IndexMap;

use super::shell::{self, Word};
use crate::error::InputError;
use crate::import::json::number;
use crate::import::node::{Node, Value};
use crate::import::report::{Ignored, Log};
use crate::import::source::Source;
use crate::import::yaml;

/// Where arguments come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Script,
    Yaml,
}

/// A script has a line with arguments, or is one; everything else is YAML.
pub(super) fn form(text: &str) -> Form {
    let line = |line: &str| {
        let code = line.split('#').next().unwrap_or_default().trim_start();
        line.starts_with("#!") || code.starts_with("--") && code.len() > 3 || code.contains(" --")
    };
    if text.lines().any(line) { Form::Script } else { Form::Yaml }
}

/// The arguments of the command that has `--num-layers`, those of its launcher among them.
pub(super) fn script(source: &Source<'_>, log: &mut Log) -> Result<Node, InputError> {
    let commands = shell::commands(source, log)?;
    let launches = |command: &&shell::Command| {
        command.iter().any(|word| word.text.split('=').next() == Some("--num-layers"))
    };
    let mut found = commands.iter().filter(launches);
    let Some(command) = found.next() else {
        return Err(InputError::Missing {
            origin: source.origin(0),
            key: "--num-layers".to_owned(),
            needed: "no command of the script has it".to_owned(),
        });
    };
    let stray = commands
        .iter()
        .filter(|other| !std::ptr::eq(*other, command))
        .find_map(|other| other.first().filter(|word| word.text.starts_with("--")));
    if let Some(word) = stray {
        let message = format!(
            "found {} where a command begins, allowed: a line break escaped as `\\` before it",
            word.text
        );
        return Err(source.syntax(word.at, message));
    }
    if let Some(second) = found.next() {
        let line = second.first().map_or(0, |word| source.place(word.at).0);
        log.note(format!("line {line}: a second command with --num-layers is not read"));
    }
    let mut table: IndexMap<String, Node> = IndexMap::new();
    let begin = command.iter().position(|word| word.text.starts_with("--")).unwrap_or(0);
    let mut words = command.get(begin..).unwrap_or_default().iter().peekable();
    while let Some(word) = words.next() {
        let Some(argument) = word.text.strip_prefix("--") else {
            // The launched program, and what the launcher's own short options take.
            if word.text.starts_with('-') || word.text.contains('.') || !word.known {
                continue;
            }
            return Err(source.syntax(
                word.at,
                format!("found \"{}\", allowed: an argument such as --num-layers", word.text),
            ));
        };
        let (name, given) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(Word { text: value.to_owned(), ..word.clone() })),
            None => (argument, None),
        };
        let mut values: Vec<Word> = given.into_iter().collect();
        let is_program = |text: &str| std::path::Path::new(text).extension().is_some_and(|end| end == "py");
        let is_value = |next: &&Word| !next.text.starts_with("--") && !is_program(&next.text);
        while let Some(value) = words.next_if(|next| is_value(next)) {
            values.push(value.clone());
        }
        insert(source, log, &mut table, (name, word.at), &values);
    }
    Ok(Node::new(Value::Table(table), command.first().map_or(0, |word| word.at)))
}

/// Adds an argument; one that is given again replaces the earlier, as Python's parser has it.
fn insert(
    source: &Source<'_>,
    log: &mut Log,
    table: &mut IndexMap<String, Node>,
    (name, at): (&str, usize),
    values: &[Word],
) {
    let ignore = |log: &mut Log, found: String, at: usize, reason: &str| {
        let (line, _) = source.place(at);
        let key = format!("--{name}");
        log.ignored.push(Ignored { key, found, line, reason: reason.to_owned() });
    };
    let known = values.iter().all(|value| value.known);
    let value_at = values.first().map_or(at, |value| value.at);
    let shown = || values.iter().map(|value| value.text.as_str()).collect::<Vec<_>>().join(" ");
    let key = name.replace('_', "-");
    if !known {
        ignore(log, shown(), at, "only the running shell knows the value");
        return;
    }
    let value = match values {
        [] => Value::Bool(true),
        [one] => scalar(&one.text),
        several => Value::List(several.iter().map(|word| Node::new(scalar(&word.text), word.at)).collect()),
    };
    let node = Node { value, at: value_at, key_at: at };
    if let Some(earlier) = table.insert(key, node) {
        ignore(log, earlier.value.shown(), earlier.key_at, "given again later, which counts");
    }
}

fn scalar(text: &str) -> Value {
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    numeric.then(|| number(text)).flatten().unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// The keys of a YAML file, those of its sections among them.
pub(super) fn yaml(source: &Source<'_>) -> Result<Node, InputError> {
    let root = yaml::parse(source)?;
    let Value::Table(sections) = root.value else {
        return Err(
            source.syntax(root.at, format!("found {}, allowed: a table of keys", root.value.describe()))
        );
    };
    let mut table = IndexMap::new();
    for (name, node) in sections {
        let entries = match node.value {
            Value::Table(inner) => inner,
            value => IndexMap::from([(name, Node { value, ..node })]),
        };
        for (key, node) in entries {
            let at = node.key_at;
            if table.insert(key.replace('_', "-"), node).is_some() {
                return Err(source.syntax(at, format!("the key {key} stands twice")));
            }
        }
    }
    Ok(Node::new(Value::Table(table), root.at))
}

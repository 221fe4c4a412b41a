//! Conditions on points: `parallelism.tensor * parallelism.pipeline > 16 and workload.precision == "fp32"`.
//!
//! From the loosest to the tightest: `or`; `and`; `not`; one comparison (`== != < <= > >=`); `+ -`; `* / %`; a minus;
//! numbers, text in quotes, `true`, `false`, keys of the scenario with their section, and parentheses.

use crate::error::{InputError, nearest};
use crate::origin::Origin;
use crate::tree::{Node, Value};

/// A condition that has been read.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    root: Expression,
    origin: Origin,
    key: String,
}

#[derive(Clone, Debug)]
enum Expression {
    Constant(Term),
    Key(Vec<String>),
    Not(Box<Self>),
    Minus(Box<Self>),
    Two(Operator, Box<Self>, Box<Self>),
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Number(f64),
    Text(String),
    Truth(bool),
}

impl Term {
    fn describe(&self) -> String {
        match self {
            Self::Number(value) => format!("the number {value}"),
            Self::Text(text) => format!("\"{text}\""),
            Self::Truth(value) => value.to_string(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    Differs,
    Below,
    AtMost,
    Above,
    AtLeast,
    Plus,
    Minus,
    Times,
    Over,
    Remainder,
}

/// Operators of each level, the loosest first; words and signs as they are written, longer ones before shorter.
const LEVELS: [&[(&str, Operator)]; 5] = [
    &[("or", Operator::Or)],
    &[("and", Operator::And)],
    &[
        ("==", Operator::Equal),
        ("!=", Operator::Differs),
        ("<=", Operator::AtMost),
        (">=", Operator::AtLeast),
        ("<", Operator::Below),
        (">", Operator::Above),
    ],
    &[("+", Operator::Plus), ("-", Operator::Minus)],
    &[("*", Operator::Times), ("/", Operator::Over), ("%", Operator::Remainder)],
];

/// The level of comparisons: `a < b < c` is refused.
const COMPARISONS: usize = 2;

/// Deepest nesting of parentheses and signs.
const DEEPEST: usize = 64;

impl Condition {
    /// Reads a condition, which stands at `node` under `key`.
    pub(super) fn read(node: &Node, key: &str) -> Result<Self, InputError> {
        let Value::Text(text) = &node.value else {
            let allowed = "a condition in quotes, or a list of them";
            return Err(crate::section::wrong(&node.origin, key, &node.value, allowed));
        };
        let mut parser = Parser { text, at: 0, depth: 0 };
        let root = parser.level(0).and_then(|root| match parser.rest().chars().next() {
            None => Ok(root),
            Some(_) => Err(parser.unexpected("the end of the condition")),
        });
        let refuse =
            |message| InputError::Conflict { origin: node.origin.clone(), key: key.to_owned(), message };
        Ok(Self { root: root.map_err(refuse)?, origin: node.origin.clone(), key: key.to_owned() })
    }

    /// Whether the condition holds in a document.
    pub(super) fn holds(&self, document: &Node) -> Result<bool, InputError> {
        let refuse =
            |message| InputError::Conflict { origin: self.origin.clone(), key: self.key.clone(), message };
        match evaluate(&self.root, document).map_err(refuse)? {
            Term::Truth(value) => Ok(value),
            other => Err(refuse(format!("is {}, where it should be true or false", other.describe()))),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// What is left, without spaces before it.
    fn rest(&mut self) -> &'a str {
        let text = self.text;
        let rest = &text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        &text[self.at..]
    }

    fn unexpected(&mut self, wanted: &str) -> String {
        let rest = self.rest();
        let found = if rest.is_empty() { "the end".to_owned() } else { format!("`{rest}`") };
        format!(
            "found {found} at character {}, where {wanted} should be",
            self.text[..self.at].chars().count() + 1
        )
    }

    /// Takes an operator of a level. Words end where a name would.
    fn operator(&mut self, level: usize) -> Option<Operator> {
        let rest = self.rest();
        let &(sign, operator) = LEVELS[level].iter().find(|(sign, _)| {
            let after = rest.strip_prefix(sign).and_then(|after| after.chars().next());
            let word = sign.starts_with(|c: char| c.is_ascii_alphabetic());
            rest.starts_with(sign) && !(word && after.is_some_and(is_name))
        })?;
        self.at += sign.len();
        Some(operator)
    }

    fn level(&mut self, level: usize) -> Result<Expression, String> {
        if level == COMPARISONS && self.word("not") {
            return Ok(Expression::Not(Box::new(self.deeper(|parser| parser.level(COMPARISONS))?)));
        }
        let tighter = |parser: &mut Self| {
            if level + 1 < LEVELS.len() { parser.level(level + 1) } else { parser.operand() }
        };
        let mut left = tighter(self)?;
        let mut count = 0;
        while let Some(operator) = self.operator(level) {
            count += 1;
            if level == COMPARISONS && count > 1 {
                return Err("compares more than two things; join comparisons by `and`".to_owned());
            }
            left = Expression::Two(operator, Box::new(left), Box::new(tighter(self)?));
        }
        Ok(left)
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("is nested more than {DEEPEST} deep"));
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn word(&mut self, word: &str) -> bool {
        let rest = self.rest();
        let after = rest.strip_prefix(word).map(|after| after.chars().next());
        let found = after.is_some_and(|next| next.is_none_or(|c| !is_name(c)));
        if found {
            self.at += word.len();
        }
        found
    }

    fn operand(&mut self) -> Result<Expression, String> {
        let rest = self.rest();
        let wanted = "a number, text in quotes, a key such as parallelism.tensor, or ( )";
        let Some(first) = rest.chars().next() else { return Err(self.unexpected(wanted)) };
        match first {
            '(' => {
                self.at += 1;
                let inner = self.deeper(|parser| parser.level(0))?;
                if !self.rest().starts_with(')') {
                    return Err(self.unexpected("`)`"));
                }
                self.at += 1;
                Ok(inner)
            }
            '-' => {
                self.at += 1;
                Ok(Expression::Minus(Box::new(self.deeper(Self::operand)?)))
            }
            '"' | '\'' => {
                let Some(end) = rest[1..].find(first) else {
                    return Err(self.unexpected("text with both its quotes"));
                };
                self.at += end + 2;
                Ok(Expression::Constant(Term::Text(rest[1..=end].to_owned())))
            }
            '0'..='9' | '.' => {
                let exponent = |index: usize| rest[..index].ends_with(['e', 'E']);
                let part = |(index, c): &(usize, char)| {
                    c.is_ascii_alphanumeric()
                        || matches!(c, '.' | '_')
                        || matches!(c, '+' | '-') && exponent(*index)
                };
                let length: usize = rest.char_indices().take_while(part).map(|(_, c)| c.len_utf8()).sum();
                let digits = rest[..length].replace('_', "");
                let value: f64 = digits.parse().map_err(|_| self.unexpected("a number"))?;
                self.at += length;
                Ok(Expression::Constant(Term::Number(value)))
            }
            c if c.is_ascii_alphabetic() => {
                let length: usize =
                    rest.chars().take_while(|&c| is_name(c) || c == '.').map(char::len_utf8).sum();
                let name = &rest[..length];
                self.at += length;
                Ok(match name {
                    "true" => Expression::Constant(Term::Truth(true)),
                    "false" => Expression::Constant(Term::Truth(false)),
                    name => Expression::Key(name.split('.').map(str::to_owned).collect()),
                })
            }
            _ => Err(self.unexpected(wanted)),
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn evaluate(expression: &Expression, document: &Node) -> Result<Term, String> {
    match expression {
        Expression::Constant(term) => Ok(term.clone()),
        Expression::Key(path) => look_up(path, document),
        Expression::Not(inner) => truth(&evaluate(inner, document)?).map(|value| Term::Truth(!value)),
        Expression::Minus(inner) => number(&evaluate(inner, document)?).map(|value| Term::Number(-value)),
        Expression::Two(operator, left, right) => two(*operator, left, right, document),
    }
}

fn two(operator: Operator, left: &Expression, right: &Expression, document: &Node) -> Result<Term, String> {
    let left = evaluate(left, document)?;
    // Both sides of `and` and `or` are looked at, so that a wrong one shows at every point.
    let right = evaluate(right, document)?;
    let truths = |combine: fn(bool, bool) -> bool| Ok(Term::Truth(combine(truth(&left)?, truth(&right)?)));
    let numbers = |combine: fn(f64, f64) -> f64| Ok(Term::Number(combine(number(&left)?, number(&right)?)));
    let compare =
        |combine: fn(&f64, &f64) -> bool| Ok(Term::Truth(combine(&number(&left)?, &number(&right)?)));
    let alike = || {
        if std::mem::discriminant(&left) == std::mem::discriminant(&right) {
            Ok(left == right)
        } else {
            Err(format!("compares {} with {}", left.describe(), right.describe()))
        }
    };
    match operator {
        Operator::Or => truths(|a, b| a || b),
        Operator::And => truths(|a, b| a && b),
        Operator::Equal => alike().map(Term::Truth),
        Operator::Differs => alike().map(|same| Term::Truth(!same)),
        Operator::Below => compare(f64::lt),
        Operator::AtMost => compare(f64::le),
        Operator::Above => compare(f64::gt),
        Operator::AtLeast => compare(f64::ge),
        Operator::Plus => numbers(|a, b| a + b),
        Operator::Minus => numbers(|a, b| a - b),
        Operator::Times => numbers(|a, b| a * b),
        Operator::Over | Operator::Remainder if number(&right)? == 0.0 => Err("divides by zero".to_owned()),
        Operator::Over => numbers(|a, b| a / b),
        Operator::Remainder => numbers(|a, b| a % b),
    }
}

fn look_up(path: &[String], document: &Node) -> Result<Term, String> {
    let mut node = document;
    for part in path {
        let Value::Table(table) = &node.value else {
            return Err(format!("`{}` does not lead to a value", path.join(".")));
        };
        let Some(next) = table.get(part) else {
            let hint = nearest(part, table.keys().map(String::as_str))
                .map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"));
            let name = path.join(".");
            return Err(format!("`{name}` is neither an axis nor written in the scenario{hint}"));
        };
        node = next;
    }
    match &node.value {
        Value::Integer(value) => Ok(Term::Number(*value as f64)),
        Value::Float(value) => Ok(Term::Number(*value)),
        Value::Boolean(value) => Ok(Term::Truth(*value)),
        Value::Text(text) => Ok(Term::Text(text.clone())),
        other => Err(format!("`{}` is {}, which cannot be compared", path.join("."), other.describe())),
    }
}

fn number(term: &Term) -> Result<f64, String> {
    match term {
        Term::Number(value) => Ok(*value),
        other => Err(format!("takes {} for a number", other.describe())),
    }
}

fn truth(term: &Term) -> Result<bool, String> {
    match term {
        Term::Truth(value) => Ok(*value),
        other => Err(format!("takes {} for true or false", other.describe())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> Result<bool, String> {
        let document = "[parallelism]\ntensor = 8\npipeline = 4\n[workload]\nprecision = \"bf16\"\nloss_scaling = true\n";
        let document = crate::tree::parse("case", document).unwrap();
        let origin = Origin::at("case", 1, 1);
        let node = Node { value: Value::Text(text.to_owned()), origin: origin.clone(), key_origin: origin };
        let condition = Condition::read(&node, "sweep.skip").map_err(|error| error.reason())?;
        condition.holds(&document).map_err(|error| error.reason())
    }

    #[test]
    fn conditions_follow_arithmetic_and_logic() {
        for (text, value) in [
            ("parallelism.tensor * parallelism.pipeline > 16", true),
            ("parallelism.tensor + parallelism.pipeline * 2 == 16", true),
            ("(parallelism.tensor + parallelism.pipeline) * 2 == 24", true),
            ("parallelism.tensor - 4 - 2 == 2", true),
            ("parallelism.tensor % 3 == 2 and not workload.precision == \"fp32\"", true),
            ("workload.precision != 'bf16' or workload.loss_scaling", true),
            ("not (workload.loss_scaling and parallelism.tensor >= 8)", false),
            ("-parallelism.tensor / 1.6e1 <= -0.5", true),
            ("parallelism.tensor < 1_000", true),
        ] {
            assert_eq!(holds(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for (text, part) in [
            ("parallelism.tensor >", "found the end at character 21, where a number"),
            ("parallelism.tensor", "is the number 8, where it should be true or false"),
            (
                "parallelism.tensro > 1",
                "`parallelism.tensro` is neither an axis nor written in the scenario (did you mean `tensor`?)",
            ),
            ("1 < 2 < 3", "compares more than two things"),
            ("workload.precision > 1", "takes \"bf16\" for a number"),
            ("workload.precision == 1", "compares \"bf16\" with the number 1"),
            ("(1 == 1", "found the end at character 8, where `)` should be"),
            ("1 == 1 1", "found `1` at character 8, where the end of the condition should be"),
            ("1 / 0 == 1", "divides by zero"),
            ("workload > 1", "`workload` is a table, which cannot be compared"),
            ("\"open", "text with both its quotes"),
            ("1 == 1 & 2 == 2", "found `& 2 == 2`"),
        ] {
            let error = holds(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(holds(&"(".repeat(10_000)).unwrap_err().contains("nested more than 64 deep"));
        assert!(holds(&"not ".repeat(10_000)).unwrap_err().contains("nested more than 64 deep"));
    }
}

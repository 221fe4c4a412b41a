//! Wrong input: one message that says where, which key, what was found, what is allowed.

use steptime_plans::PlanError;
use thiserror::Error;

use crate::origin::Origin;

/// Something in the input is wrong.
#[derive(Debug, Error)]
pub enum InputError {
    /// The document is not TOML, or an option not of the form `section.key=value`.
    #[error("{origin}: {message}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What is wrong.
        message: String,
    },
    /// A key has a value that is not allowed.
    #[error("{origin}: {key}: found {found}, allowed: {allowed}{}", suggestion(nearest.as_deref()))]
    Value {
        /// Where.
        origin: Origin,
        /// The key with its section.
        key: String,
        /// What was found.
        found: String,
        /// What is allowed.
        allowed: String,
        /// The nearest valid name.
        nearest: Option<String>,
    },
    /// A key is not known.
    #[error("{origin}: {key}: unknown key, allowed: {allowed}{}", suggestion(nearest.as_deref()))]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key with its section.
        key: String,
        /// The keys of that section.
        allowed: String,
        /// The nearest of them.
        nearest: Option<String>,
    },
    /// A key that must be there is not.
    #[error("{origin}: {key}: missing, {needed}")]
    Missing {
        /// Where the section begins, or the file.
        origin: Origin,
        /// The key with its section.
        key: String,
        /// What it should hold.
        needed: String,
    },
    /// Two keys say different things, or one says something that this version cannot do.
    #[error("{origin}: {key}: {message}")]
    Conflict {
        /// Where.
        origin: Origin,
        /// The key with its section.
        key: String,
        /// What does not agree, with the arithmetic.
        message: String,
    },
    /// A file cannot be read.
    #[error("{file}: cannot be read: {message}")]
    Unreadable {
        /// The file as the user named it.
        file: String,
        /// What the system says.
        message: String,
    },
    /// The plan does not fit the model or the cluster, or the job is too large to be played.
    #[error("{origin}: {key}: {message}")]
    Plan {
        /// Where the key or its section stands.
        origin: Origin,
        /// The key or section that the error is about.
        key: String,
        /// What is wrong, in the words of a scenario.
        message: String,
        /// The same in the words of the plan.
        source: PlanError,
    },
}

impl InputError {
    /// The message without its place, for scenarios that nobody has written to a file.
    pub(crate) fn reason(&self) -> String {
        let place = match self {
            Self::Syntax { origin, .. }
            | Self::Value { origin, .. }
            | Self::UnknownKey { origin, .. }
            | Self::Missing { origin, .. }
            | Self::Conflict { origin, .. }
            | Self::Plan { origin, .. } => format!("{origin}: "),
            Self::Unreadable { .. } => String::new(),
        };
        let message = self.to_string();
        message.strip_prefix(&place).map_or(message.clone(), str::to_owned)
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean \"{name}\"?)"))
}

/// The known name most like `found`, if any is close enough to be a slip of the pen.
pub(crate) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut best: Option<(f64, &str)> = None;
    for name in known {
        let likeness = strsim::jaro_winkler(found, name);
        if likeness > 0.75 && best.is_none_or(|(score, _)| likeness > score) {
            best = Some((likeness, name));
        }
    }
    best.map(|(_, name)| name.to_owned())
}

//! Why a simulation could not be played to its end.

use std::fmt;

use thiserror::Error;

use crate::program::Record;
use crate::time::SimTime;
use crate::world::{GroupId, World};

/// Why a simulation could not be played to its end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SimulationError {
    /// Some ranks wait for meetings that never happen.
    #[error("deadlock: {}", Waiting(.waiting))]
    Deadlock {
        /// The ranks that did not finish, by index.
        waiting: Vec<WaitingRank>,
    },
    /// Members of a meeting gave different sizes.
    #[error("the members of {group}'s meeting {meeting} disagree: {first}, but {second}")]
    Disagreement {
        /// Where they met.
        group: GroupId,
        /// Which meeting of the group, from 1.
        meeting: u32,
        /// The member of lowest rank.
        first: Party,
        /// The next member that gave other values.
        second: Party,
    },
    /// Time ran past 64 bits of picoseconds.
    #[error("simulated time overflows on rank {rank} in \"{label}\"")]
    Overflow {
        /// The rank, the lowest of a meeting's members.
        rank: u32,
        /// What it was doing.
        label: String,
    },
}

/// A member of a meeting and what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Index of the rank.
    pub rank: u32,
    /// Label of its rendezvous.
    pub label: String,
    /// The fixed time it gave.
    pub fixed: SimTime,
    /// The bytes it gave.
    pub bytes: u64,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, label, fixed, bytes } = self;
        write!(f, "rank {rank} in \"{label}\" gives {bytes} bytes after {fixed}")
    }
}

/// A rank that waits for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingRank {
    /// Index of the rank.
    pub rank: u32,
    /// Name of its program.
    pub program: String,
    /// What it waits for, in words: the rendezvous, its group, and who has not arrived.
    pub waits_for: String,
}

/// How many ranks a message names before it only counts.
const NAMED: usize = 8;

struct Waiting<'a>(&'a [WaitingRank]);

impl fmt::Display for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, waiting) in self.0.iter().take(NAMED).enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            let WaitingRank { rank, program, waits_for } = waiting;
            write!(f, "{separator}rank {rank} (program {program}) waits for {waits_for}")?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// A rendezvous that a stream is at, as the error messages need it.
pub(crate) struct At {
    pub(crate) rank: u32,
    pub(crate) record: Record,
}

impl At {
    fn label(&self, world: &World) -> String {
        let program = world.program_of(self.rank);
        program.label(program.label_of(&self.record)).to_owned()
    }

    fn party(&self, world: &World) -> Party {
        Party {
            rank: self.rank,
            label: self.label(world),
            fixed: SimTime(self.record.time),
            bytes: self.record.bytes(),
        }
    }
}

pub(crate) fn overflow(world: &World, at: &At) -> SimulationError {
    SimulationError::Overflow { rank: at.rank, label: at.label(world) }
}

/// The disagreement between the lowest rank of a meeting and the lowest that differs from it.
pub(crate) fn disagreement(
    world: &World,
    (group, meeting): (u32, u32),
    mut members: Vec<At>,
) -> SimulationError {
    members.sort_by_key(|member| member.rank);
    let mut parties = members.iter().map(|member| member.party(world));
    let first = parties.next();
    let second = first
        .as_ref()
        .and_then(|first| parties.find(|other| (other.fixed, other.bytes) != (first.fixed, first.bytes)));
    match (first, second) {
        (Some(first), Some(second)) => {
            SimulationError::Disagreement { group: GroupId(group), meeting: meeting + 1, first, second }
        }
        // Called only for a meeting in which somebody differs from the first to arrive.
        _ => SimulationError::Deadlock { waiting: Vec::new() },
    }
}

/// A rank whose stream stands at the given meeting, to which only `arrived` have come.
pub(crate) fn waiting_rank(
    world: &World,
    at: &At,
    (group, meeting): (u32, u32),
    arrived: impl Iterator<Item = u32>,
) -> WaitingRank {
    let arrived: std::collections::BTreeSet<u32> = arrived.collect();
    let missing: Vec<u32> = world.groups()[group as usize]
        .members()
        .iter()
        .copied()
        .filter(|member| !arrived.contains(member))
        .collect();
    let named: Vec<String> = missing.iter().take(NAMED).map(u32::to_string).collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (ranks, have) = if missing.len() == 1 { ("rank", "has") } else { ("ranks", "have") };
    WaitingRank {
        rank: at.rank,
        program: world.program_of(at.rank).name().to_owned(),
        waits_for: format!(
            "\"{}\", meeting {} of group {group}, where {ranks} {}{more} {have} not arrived",
            at.label(world),
            meeting + 1,
            named.join(", "),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadlock_names_eight_ranks_and_counts_the_others() {
        let waiting = (0..11)
            .map(|rank| WaitingRank { rank, program: "p".into(), waits_for: "\"x\"".into() })
            .collect();
        let text = SimulationError::Deadlock { waiting }.to_string();
        assert!(text.starts_with("deadlock: rank 0 (program p) waits for \"x\"; rank 1 "), "{text}");
        assert!(text.contains("rank 7 ") && !text.contains("rank 8 "), "{text}");
        assert!(text.ends_with("; and 3 more"), "{text}");
    }
}

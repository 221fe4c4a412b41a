//! From the traits of a prediction to its interval.

use super::traits::{Trait, Traits};
use super::{Group, Interval};

/// How much an interval grows (in the logarithm) with each doubling of a size beyond what its group covers: assumed,
/// since nothing is measured there.
const PER_DOUBLING: f64 = 0.25;
/// How much it grows with each tenth by which a share of the step lies above that of any run: assumed, too.
const PER_TENTH: f64 = 0.1;
/// How much it grows where the GPU's prices rest on weaker ground than those of any run of the group: the same
/// factor by which borrowed coefficients widen their own error.
const WEAKER_GROUND: f64 = 1.5;

/// The interval of the first group that the traits belong to.
pub(super) fn find(groups: &[Group], traits: &Traits) -> Option<Interval> {
    let group = groups.iter().find(|group| group.when.iter().all(|condition| condition.holds(traits)))?;
    let (factor, widened) = widening(group, traits);
    let (low, high) = (libm::log(group.low), libm::log(group.high));
    let (middle, half) = (f64::midpoint(low, high), (high - low) / 2.0 * factor);
    // Exactly the group's ends where nothing widens.
    let ends = if factor > 1.0 {
        (libm::exp(middle - half), libm::exp(middle + half))
    } else {
        (group.low, group.high)
    };
    Some(Interval { low: ends.0, high: ends.1, group: group.words(), runs: group.runs, widened })
}

/// The factor by which an interval widens, and why.
fn widening(group: &Group, traits: &Traits) -> (f64, String) {
    let (mut factor, mut reasons) = (1.0, Vec::new());
    for &(kind, least, most) in &group.covered {
        let value = traits.get(kind);
        if kind == Trait::Borrowed {
            if value > most {
                factor *= WEAKER_GROUND;
                reasons.push("no measured run on a GPU known so little".to_owned());
            }
            continue;
        }
        let outside = (value / most).max(least / value);
        if kind.is_share() {
            let beyond = value - most;
            // A twentieth of the step more changes no interval that can be seen.
            if beyond > 0.05 {
                factor += PER_TENTH * beyond / 0.1;
                let name = kind.shape().name;
                reasons.push(format!("measured runs have up to {:.0} % of {name}", 100.0 * most));
            }
            continue;
        }
        // Half as far again as the last run is no other place yet.
        if outside.is_finite() && outside > 1.5 {
            factor += PER_DOUBLING * libm::log2(outside);
            let name = if kind == Trait::Gpus { "GPUs" } else { "TFLOP a micro-batch" };
            reasons.push(format!("measured runs have {least} to {most} {name}"));
        }
    }
    let text = if reasons.is_empty() {
        String::new()
    } else {
        format!("; {factor:.2} times as wide as theirs: {}", reasons.join("; "))
    };
    (factor, text)
}

//! Fits what a framework's Python costs hosts beside launches ([`FrameworkCost`]) to steps that hosts bound.
//!
//! One set of costs holds for all hosts, times a ratio for each: the same Python runs on all of them, on faster and slower
//! threads. The residuals are logarithms of predicted over measured steps, which the caller plays.

use crate::calibrate::levenberg_marquardt::{Parameter, minimize};
use crate::calibrate::toml_text;
use crate::cluster::{FrameworkCost, LaunchCost};
use crate::coefficients::{Coefficient, CoefficientUnit};

/// What stands before fitted costs in a catalogue file.
pub const FRAMEWORK_MARKER: &str =
    "# Written by the fit of hosts to measured steps: host time beside launches.\n";
/// Most hosts that are fitted together.
pub const MOST_HOSTS: usize = 4;
/// Keys of [`FrameworkCost::values`], each with the launches of eager execution that commonly take a host as long: what a fit
/// leans to where the steps are silent.
pub const FRAMEWORK_COSTS: [(&str, f64); COSTS] = [
    ("block_forward", 250.0),
    ("block_backward", 150.0),
    ("collective", 20.0),
    ("chunk_pass", 100.0),
    ("routing", 65.0),
    ("expert", 33.0),
    ("tensor", 3.5),
    ("step", 2500.0),
];
const COSTS: usize = 8;
const VALUES: usize = COSTS + MOST_HOSTS - 1;
/// Logarithms of factors: how far a cost commonly lies from its prior, and a host from what its launches say.
const SPREADS: [f64; 2] = [1.0, 0.3];
/// Greatest factor on a prior, as a logarithm.
const FARTHEST: f64 = 3.0;
/// A cost of which a tenth more moves no step by this share is not seen in the steps.
const SEEN: f64 = 1e-3;

/// What a fit found.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameworkFit {
    /// Costs of each host, in the order of the launches given. What no step tells of has the value of its prior.
    pub costs: Vec<FrameworkCost>,
    /// Keys that steps tell of.
    pub seen: Vec<&'static str>,
}

/// The costs of hosts with these launches, at most [`MOST_HOSTS`] of them, with which the residuals are least. `residuals`
/// fills its second argument with logarithms of predicted over measured steps, for the costs of each host.
pub fn fit_framework(
    launches: &[LaunchCost],
    residuals: impl Fn(&[FrameworkCost], &mut Vec<f64>),
) -> FrameworkFit {
    let launches = &launches[..launches.len().min(MOST_HOSTS)];
    let parameters = std::array::from_fn(|index| match index {
        0..COSTS => free(SPREADS[0]),
        _ if index - COSTS + 1 < launches.len() => free(SPREADS[1]),
        _ => Parameter::Fixed(0.0),
    });
    let values: [f64; VALUES] = minimize(&parameters, &[], |values, list| {
        list.clear();
        residuals(&costs(launches, values), list);
    });
    let of = |values: &[f64; VALUES]| {
        let mut list = Vec::new();
        residuals(&costs(launches, values), &mut list);
        list
    };
    let fitted = of(&values);
    let told = |index: usize| {
        let mut other = values;
        other[index] += 0.1;
        of(&other).iter().zip(&fitted).any(|(moved, stays)| (moved - stays).abs() > SEEN)
    };
    let seen = FRAMEWORK_COSTS.iter().enumerate().filter(|(index, _)| told(*index)).map(|(_, (key, _))| *key);
    FrameworkFit { seen: seen.collect(), costs: costs(launches, &values) }
}

/// A logarithm of a factor that is one where nothing is known.
fn free(spread: f64) -> Parameter {
    let unit = CoefficientUnit::Number;
    Parameter::Free(Coefficient {
        key: "",
        unit,
        meaning: "",
        prior: 0.0,
        spread,
        least: -FARTHEST,
        most: FARTHEST,
    })
}

/// Costs of each host: launches of the first one times their counts and factors, and for others times the ratio of their
/// launches and a factor of their own.
fn costs(launches: &[LaunchCost], values: &[f64; VALUES]) -> Vec<FrameworkCost> {
    let Some(first) = launches.first() else { return Vec::new() };
    let base: [f64; COSTS] = std::array::from_fn(|index| {
        let (key, count) = FRAMEWORK_COSTS[index];
        let launch = if key == "block_backward" { first.eager_backward_s } else { first.eager_forward_s };
        count * launch * libm::exp(values[index])
    });
    let of_host = |(index, launch): (usize, &LaunchCost)| {
        let own = if index == 0 { 0.0 } else { values[COSTS + index - 1] };
        FrameworkCost::from_values(base)
            .scaled(libm::exp(own) * launch.eager_forward_s / first.eager_forward_s)
    };
    launches.iter().enumerate().map(of_host).collect()
}

/// The table of a host's costs, `table` being its path in the file.
pub fn framework_toml(table: &str, costs: &FrameworkCost, source: &str) -> String {
    let source = toml_text(source);
    let mut text = format!("\n[{table}]\nsource = \"{source}\"\nbasis = \"fitted\"\n");
    for ((key, _), seconds) in FRAMEWORK_COSTS.iter().zip(costs.values()) {
        text.push_str(&format!("{key} = \"{} us\"\n", three_digits(seconds * 1e6)));
    }
    text
}

/// Three significant digits of a number above zero.
fn three_digits(value: f64) -> String {
    let decimals = (1..=3).find(|&digits| value >= 100.0 / 10f64.powi(digits)).unwrap_or(4);
    if value < 100.0 {
        return format!("{value:.*}", decimals as usize);
    }
    let mut unit = 1.0;
    while value / unit >= 1000.0 {
        unit *= 10.0;
    }
    format!("{:.0}", (value / unit).round() * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(microseconds: f64) -> LaunchCost {
        LaunchCost {
            eager_forward_s: microseconds * 1e-6,
            eager_backward_s: 0.9 * microseconds * 1e-6,
            compiled_s: 1e-6,
            cuda_graphs_s: 1e-7,
        }
    }

    /// Steps made of known costs on two hosts, one of them 1.4 times as slow where its launches say 1.25: both come back. No
    /// step has routed experts, and nothing is told of them.
    #[test]
    fn known_costs_come_back() {
        let truth = FrameworkCost {
            block_forward_s: 2e-3,
            block_backward_s: 0.8e-3,
            collective_s: 100e-6,
            chunk_pass_s: 900e-6,
            routing_s: 0.0,
            expert_s: 0.0,
            tensor_s: 30e-6,
            step_s: 9e-3,
        };
        // Blocks forward and backward, collectives, chunk passes, tensors.
        let steps =
            [[8.0, 8.0, 64.0, 2.0, 90.0], [80.0, 20.0, 10.0, 9.0, 20.0], [4.0, 40.0, 500.0, 40.0, 9.0]];
        let step = |costs: &FrameworkCost, [forward, backward, collectives, passes, tensors]: [f64; 5]| {
            let FrameworkCost { block_forward_s, block_backward_s, collective_s, chunk_pass_s, .. } = *costs;
            let blocks = forward * block_forward_s + backward * block_backward_s;
            blocks
                + collectives * collective_s
                + passes * chunk_pass_s
                + tensors * costs.tensor_s
                + costs.step_s
        };
        let mut many = Vec::new();
        for (index, counts) in steps.iter().enumerate() {
            for part in 0..5 {
                let mut other = *counts;
                other[part] *= 3.0 + index as f64;
                many.push(other);
            }
        }
        let hosts = [truth, truth.scaled(1.4)];
        let fit = fit_framework(&[launch(6.4), launch(8.0)], |costs, list| {
            for (own, known) in costs.iter().zip(&hosts) {
                list.extend(many.iter().map(|&counts| libm::log(step(own, counts) / step(known, counts))));
            }
        });
        for (found, known) in fit.costs.iter().zip(&hosts) {
            for (found, known) in [
                (found.block_forward_s, known.block_forward_s),
                (found.block_backward_s, known.block_backward_s),
                (found.collective_s, known.collective_s),
                (found.chunk_pass_s, known.chunk_pass_s),
            ] {
                assert!((found / known - 1.0).abs() < 0.1, "{found} {known}");
            }
        }
        assert_eq!(
            fit.seen,
            ["block_forward", "block_backward", "collective", "chunk_pass", "tensor", "step"]
        );
    }

    #[test]
    fn tables_hold_three_digits() {
        let written = [1234.5, 987.6, 20.04, 3.4567, 0.12345, 17_456.0].map(three_digits);
        assert_eq!(written, ["1230", "988", "20.0", "3.46", "0.123", "17500"]);
        let text =
            framework_toml("host.megatron", &FrameworkCost::from_values([1e-3; 8]), "steps of \"mine\"");
        assert!(text.starts_with("\n[host.megatron]\nsource = ") && text.contains("\nstep = \"1000 us\"\n"));
    }
}

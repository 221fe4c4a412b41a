//! The catalogue's text of a fit.

use steptime_models::{Dimension, parse_quantity};

use super::{BandErrors, CollectiveErrors, FabricFit, JobsFit, NetworkFit};
use crate::calibrate::toml_text;
use crate::catalogue::CURVES;
use crate::fabric::{Costs, Curve};

/// First line of what a fit writes into a preset's file; everything after it is replaced by the next fit.
pub const MARKER: &str =
    "# Written by the fit of fabrics; what the keys mean is in the documentation of `Curve`.\n";

/// Seconds as the catalogue writes them, to the nanosecond.
pub(super) fn seconds(value: f64) -> String {
    format!("{:.3} us", value * 1e6)
}

/// A rate as the catalogue writes it, to a tenth of a GB/s, small ones to a hundredth.
pub(super) fn rate(value: f64) -> String {
    let value = value / 1e9;
    if value < 100.0 { format!("{value:.2} GB/s") } else { format!("{value:.1} GB/s") }
}

/// What a reader makes of a written value; the value itself where it is not one.
fn read(written: &str, dimension: Dimension, value: f64) -> f64 {
    parse_quantity(written, dimension).unwrap_or(value)
}

pub(super) fn rounded_rate(value: f64) -> f64 {
    if value.is_finite() { read(&rate(value), Dimension::BytesPerSecond, value) } else { value }
}

pub(super) fn rounded_seconds(value: f64) -> f64 {
    read(&seconds(value), Dimension::Seconds, value)
}

/// A curve as the catalogue writes it, so that the shipped coefficients are exactly those whose errors are stated.
pub(super) fn rounded(curve: &Curve) -> Curve {
    Curve {
        start_s: rounded_seconds(curve.start_s),
        hop_s: rounded_seconds(curve.hop_s),
        fill_s: rounded_seconds(curve.fill_s),
        wire: rounded_rate(curve.wire),
        touch: rounded_rate(curve.touch),
    }
}

/// Names of sources without their versions, each once, in order.
pub(super) fn sources<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut list: Vec<&str> = Vec::new();
    for name in names {
        let name = name.split(':').next().unwrap_or(name);
        let name = if name == "vidur" { "Vidur" } else { name };
        if !list.contains(&name) {
            list.push(name);
        }
    }
    toml_text(&list.join(" and "))
}

/// Errors over all sizes, as a source states them.
fn held_out(errors: &[BandErrors]) -> String {
    errors.first().map_or_else(String::new, |all| {
        let CollectiveErrors { rows, median, mean, .. } = all.after;
        let (median, mean) = (100.0 * median, 100.0 * mean);
        format!("; on {rows} held-out rows median {median:.1} %, mean {mean:.1} %")
    })
}

impl FabricFit {
    /// The tables for the preset's file: the assumed bandwidths, and each fitted curve with its source.
    pub fn to_toml(&self) -> String {
        let source = format!("Fitted to public measurements of {}{}", self.source, held_out(&self.errors));
        self.tables("", &source)
    }

    /// A calibration file ([`crate::Cluster::calibrated`]): the same tables for the fabric of a cluster.
    pub fn to_calibration(&self) -> String {
        let source = format!("Fitted to measurements of {}{}", self.source, held_out(&self.errors));
        format!("[fabric]\nname = \"{}\"\n{}", self.fabric.name, self.tables("fabric.", &source))
    }

    /// The tables below `root`.
    fn tables(&self, root: &str, source: &str) -> String {
        let mut text = String::new();
        side(&mut text, root, &self.fabric.costs, &self.fitted, source);
        if let Some(pair) = &self.fabric.pair {
            side(&mut text, &format!("{root}pair."), pair, &self.fitted_pair, source);
        }
        text
    }
}

fn side(text: &mut String, path: &str, costs: &Costs, fitted: &[&'static str], source: &str) {
    if fitted.is_empty() {
        return;
    }
    text.push_str(&format!(
        "\n[{path}assumed]\nsource = \"Searched with the curves below; the limit of LL is that of the NCCL tuning model (src/graph/tuning.cc)\"\nbasis = \"fitted\"\nbandwidth = \"{}\"\nll_bandwidth = \"{}\"\n",
        rate(costs.assumed_bandwidth),
        rate(costs.assumed_ll_bandwidth),
    ));
    for (name, curve) in CURVES.into_iter().zip(curves(costs)) {
        let Some(curve) = curve.filter(|_| fitted.contains(&name)) else { continue };
        text.push_str(&format!("\n[{path}{name}]\nsource = \"{source}\"\nbasis = \"fitted\"\n"));
        for (key, value) in [("start", curve.start_s), ("hop", curve.hop_s), ("fill", curve.fill_s)] {
            if value > 0.0 {
                text.push_str(&format!("{key} = \"{}\"\n", seconds(value)));
            }
        }
        for (key, value) in [("wire", curve.wire), ("touch", curve.touch)] {
            if value.is_finite() {
                text.push_str(&format!("{key} = \"{}\"\n", rate(value)));
            }
        }
    }
}

/// Curves in the order of their names.
fn curves(costs: &Costs) -> [Option<Curve>; 10] {
    [
        Some(costs.ll),
        costs.ll128,
        Some(costs.all_reduce),
        Some(costs.all_gather),
        Some(costs.reduce_scatter),
        Some(costs.small_all_to_all),
        Some(costs.all_to_all),
        Some(costs.point_to_point),
        costs.large_point_to_point,
        costs.nvls,
    ]
}

impl NetworkFit {
    /// A calibration file ([`crate::Cluster::calibrated`]): what was fitted, with the errors on held-out rows.
    pub fn to_calibration(&self) -> String {
        let network = &self.network;
        let mut text = format!(
            "[network]\nname = \"{}\"\nsource = \"Fitted to measurements of {}{}\"\nbasis = \"fitted\"\n",
            network.name,
            self.source,
            held_out(&self.errors)
        );
        let time = |value: f64| format!("\"{}\"", seconds(value.max(1e-9)));
        let values = [
            ("share", format!("{:.3}", network.share), "of the cards' line rate"),
            ("point_to_point", format!("{:.3}", network.point_to_point), "of that, what a send reaches"),
            ("latency", time(network.latency_s), "a hop in LL and LL128"),
            ("bulk_latency", time(network.bulk_latency_s), "a hop in the Simple protocol"),
            ("message", time(network.message_s), "what a message adds in LL128 and Simple"),
            ("ll_message", time(network.ll_message_s), "the same in LL"),
            (
                "reported_latency",
                time(network.reported_latency_s),
                "what the driver tells the library, which chooses protocols by it",
            ),
        ];
        for (key, value, meaning) in values {
            if self.fitted.contains(&key) {
                text.push_str(&format!("{key} = {value} # {meaning}\n"));
            }
        }
        if let Some(jobs) = self.jobs.as_ref().filter(|_| self.fitted.contains(&"spread")) {
            jobs.spread_tables(&mut text, "network.");
        }
        text
    }
}

impl JobsFit {
    /// The keys for the preset's file: what a message between nodes adds, and its spread by nodes.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "\n[message]\nsource = \"Medians over jobs that agree within a factor of 2, {} rows, of all-gathers and reduce-scatters of {}\"\nbasis = \"fitted\"\nvalue = \"{}\"\n",
            self.seen,
            self.source,
            seconds(self.message_s),
        );
        self.spread_tables(&mut text, "");
        text
    }

    fn spread_tables(&self, text: &mut String, root: &str) {
        for spread in &self.spread {
            text.push_str(&format!(
                "\n[[{root}spread]]\nsource = \"Fastest and slowest tenth of the jobs, all-gathers and reduce-scatters of {}\"\nbasis = \"fitted\"\nnodes = {}\nfastest = \"{}\"\nslowest = \"{}\"\n",
                self.source,
                spread.nodes,
                seconds(spread.fastest_s.max(1e-9)),
                seconds(spread.slowest_s.max(1e-9)),
            ));
        }
    }
}

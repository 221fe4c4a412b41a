//! Fits what a host spends to issue an operation.
//!
//! Three ways: [`from_trace`] takes it from a trace of the PyTorch profiler, in the moments when the device had nothing to
//! do and waited for the host; [`HostFit::scaled`] holds what a measured step says whose time is the host's (the search
//! itself plays scenarios, which this crate does not know); [`fit_framework`] fits what a framework costs beside launches to many
//! such steps.

mod framework;
mod intervals;
#[cfg(test)]
mod tests;
mod trace;

pub use self::framework::{
    FRAMEWORK_COSTS, FRAMEWORK_MARKER, FrameworkFit, MOST_HOSTS, fit_framework, framework_toml,
};
pub use self::intervals::{FEWEST_INTERVALS, HostTimes, Intervals, from_trace};
pub use self::trace::{MOST_LAUNCHES, Trace, TraceError};
use crate::calibrate::toml_text;
use crate::cluster::{ExecutionStyle, LaunchCost};

/// One constant of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostConstant {
    /// Key of the catalogue, e.g. `eager_forward_launch`.
    pub key: &'static str,
    /// Seconds.
    pub seconds: f64,
    /// How it was found.
    pub source: String,
}

/// Fitted constants of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostFit {
    /// In the order of the catalogue.
    pub constants: Vec<HostConstant>,
}

impl LaunchCost {
    /// The cost of the launches of one style multiplied by `factor`; other styles stay.
    pub fn scaled(mut self, style: ExecutionStyle, factor: f64) -> Self {
        match style {
            ExecutionStyle::Eager => {
                self.eager_forward_s *= factor;
                self.eager_backward_s *= factor;
            }
            ExecutionStyle::Compiled => self.compiled_s *= factor,
            ExecutionStyle::CudaGraphs => self.cuda_graphs_s *= factor,
        }
        self
    }

    /// The costs of one style by their keys in the catalogue.
    fn of_style(&self, style: ExecutionStyle) -> Vec<(&'static str, f64)> {
        match style {
            ExecutionStyle::Eager => vec![
                ("eager_forward_launch", self.eager_forward_s),
                ("eager_backward_launch", self.eager_backward_s),
            ],
            ExecutionStyle::Compiled => vec![("compiled_launch", self.compiled_s)],
            ExecutionStyle::CudaGraphs => vec![("cuda_graphs_launch", self.cuda_graphs_s)],
        }
    }
}

impl HostFit {
    /// The costs of one style of execution, `factor` times those of `launch`, as a measured step asks for them.
    pub fn scaled(launch: &LaunchCost, style: ExecutionStyle, factor: f64, source: &str) -> Self {
        let constants = launch.scaled(style, factor).of_style(style).into_iter();
        let source = toml_text(source);
        Self {
            constants: constants
                .map(|(key, seconds)| HostConstant { key, seconds, source: source.clone() })
                .collect(),
        }
    }

    /// A calibration file ([`crate::Cluster::calibrated`]).
    pub fn to_calibration(&self) -> String {
        let mut text = "[host]\n".to_owned();
        for HostConstant { key, seconds, source } in &self.constants {
            let amount = format!("{:.2} us", seconds * 1e6);
            text.push_str(&format!(
                "{key} = {{ value = \"{amount}\", source = \"{source}\", basis = \"measured\" }}\n"
            ));
        }
        text
    }
}

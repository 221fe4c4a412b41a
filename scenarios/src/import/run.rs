//! What the configurations of launchers have in common: a run, written as the sections of a scenario.

use toml::Value;

use super::report::{Frame, Log};
use super::write::Document;

/// Keys of a scenario by section, in the order in which they are written.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) model: Vec<(&'static str, Value)>,
    pub(super) cluster: Vec<(&'static str, Value)>,
    pub(super) workload: Vec<(&'static str, Value)>,
    pub(super) parallelism: Vec<(&'static str, Value)>,
}

impl Run {
    /// The scenario. Names of the frame come first in their sections; what is still missing for `steptime run` is
    /// noted.
    pub(super) fn scenario(mut self, frame: &Frame, log: &mut Log) -> String {
        if let Some(name) = &frame.model {
            self.model.retain(|(key, _)| !["name", "file"].contains(key));
            self.model.insert(0, ("name", Value::from(name.as_str())));
        }
        if let Some(name) = &frame.cluster {
            self.cluster.insert(0, ("name", Value::from(name.as_str())));
        }
        if !self.model.iter().any(|(key, _)| ["name", "file"].contains(key)) {
            log.note("the input names no model: give one with --model, or write [model] yourself");
        }
        if frame.cluster.is_none() {
            log.note(
                "the input names no GPUs: give a cluster with --cluster, or write [cluster] name yourself",
            );
        }
        let mut file = Document::default();
        for (section, entries) in [
            ("model", self.model),
            ("cluster", self.cluster),
            ("workload", self.workload),
            ("parallelism", self.parallelism),
        ] {
            if entries.is_empty() {
                continue;
            }
            file.section(section);
            for (key, value) in entries {
                file.entry(key, value);
            }
        }
        file.text()
    }
}

//! Traces of a run as files.

use std::path::Path;

use steptime_scenarios::{Recording, Timeline};
use steptime_traces::{Tracks, chakra, chrome_json, perfetto_trace};

use crate::cli::TraceFormat;
use crate::failure::Failure;
use crate::output::Output;

/// Slices from which on a trace is written as protobuf unless asked otherwise: some 30 MB of JSON.
const MANY_SLICES: usize = 200_000;

/// The traces of a run in the formats that are asked for; `facts` say what makes it again.
pub(crate) fn traces(
    folder: &Path,
    recording: &Recording,
    timeline: Option<&Timeline>,
    facts: &[(String, String)],
    formats: &[TraceFormat],
) -> Result<Vec<Output>, Failure> {
    let mut outputs = Vec::new();
    let viewed = |it: &TraceFormat| !matches!(it, TraceFormat::None | TraceFormat::Chakra);
    if formats.iter().any(viewed) {
        let tracks = Tracks::of(recording, timeline, facts.to_vec());
        let large = tracks.slices() > MANY_SLICES;
        let auto = formats.contains(&TraceFormat::Auto);
        if formats.contains(&TraceFormat::Chrome) || auto && !large {
            outputs.push(Output::new(folder.join("trace.json"), chrome_json(&tracks)));
        }
        if formats.contains(&TraceFormat::Perfetto) || auto && large {
            outputs.push(Output::new(folder.join("trace.perfetto-trace"), perfetto_trace(&tracks)));
        }
    }
    if formats.contains(&TraceFormat::Chakra) {
        let (files, groups) = chakra::chakra_files(recording, facts)
            .map_err(|error| Failure::Message(format!("--trace chakra: {error}")))?;
        let folder = folder.join("chakra");
        for file in files {
            outputs.push(Output::new(folder.join(format!("rank.{}.et", file.rank)), file.bytes));
        }
        outputs.push(Output::new(folder.join("comm_groups.json"), groups));
    }
    Ok(outputs)
}

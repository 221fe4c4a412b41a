//! Reports as pages for a browser: each one file that holds its data, its style and its script, and asks the network for
//! nothing.
//!
//! The parts of a page stand in `page/` as they are written by hand; here they are put together. Data goes in as JSON, which
//! the script draws from.

mod pack;

use serde::Serialize;
use serde_json::{Value, json};
use steptime_scenarios::{Report, SearchReport, Sensitivity, SweepHeader, SweepRow, Timeline, Verdict};

use crate::error::PlotError;

/// Scripts in the order in which they use each other; they share one scope.
const SCRIPTS: [&str; 8] = [
    include_str!("page/dom.js"),
    include_str!("page/theme.js"),
    include_str!("page/unpack.js"),
    include_str!("page/timeline.js"),
    include_str!("page/memory.js"),
    include_str!("page/summary.js"),
    include_str!("page/points.js"),
    include_str!("page/live.js"),
];
const MAIN: &str = include_str!("page/main.js");
const STYLE: &str = include_str!("page/page.css");
const FRAME: &str = include_str!("page/page.html");

/// What the page of one run shows.
#[derive(Clone, Copy, Debug)]
pub struct RunPage<'a> {
    /// The numbers.
    pub report: &'a Report,
    /// What happened when.
    pub timeline: Option<&'a Timeline>,
    /// What faster and slower hardware would do to the step.
    pub sensitivity: Option<&'a Sensitivity>,
    /// Why something is not there, in a sentence.
    pub note: Option<&'a str>,
    /// The scenario as TOML.
    pub scenario: &'a str,
}

impl RunPage<'_> {
    /// What the script of the page draws from.
    ///
    /// # Errors
    /// The result cannot be written as JSON, or its timeline not be compressed.
    pub fn data(&self) -> Result<Value, PlotError> {
        let timeline = self.timeline.map(pack::packed).transpose()?;
        Ok(json!({
            "kind": "run",
            "report": value(self.report)?,
            "timeline": timeline,
            "sensitivity": self.sensitivity.map(value).transpose()?,
            "note": self.note,
            "scenario": self.scenario,
        }))
    }

    /// The page.
    ///
    /// # Errors
    /// The same.
    pub fn html(&self) -> Result<String, PlotError> {
        let report = self.report;
        let word = if report.verdict == Verdict::Fits { "fits" } else { "out of memory" };
        let step = report.step_time_s.map_or_else(String::new, |step| format!(", {step} s a step"));
        Ok(page(&report.name, &format!("{}: {word}{step}.", report.name), &self.data()?, "'none'"))
    }
}

/// The page of a sweep: its points as a table that can be sorted and filtered, and as dots between two axes.
///
/// # Errors
/// The rows cannot be written as JSON.
pub fn sweep_page(header: &SweepHeader, rows: &[SweepRow]) -> Result<String, PlotError> {
    let data = json!({ "kind": "sweep", "header": value(header)?, "rows": value(&rows)? });
    Ok(page(&header.name, &format!("{}: {} points.", header.name, rows.len()), &data, "'none'"))
}

/// The page of a search: the plans that were found, in the same way.
///
/// # Errors
/// The report cannot be written as JSON.
pub fn search_page(report: &SearchReport) -> Result<String, PlotError> {
    let data = json!({ "kind": "search", "report": value(report)? });
    Ok(page(&report.name, &format!("{}: plans.", report.name), &data, "'none'"))
}

/// The page that asks its server for predictions. `choices` is what the page offers to choose from.
pub fn live_page(choices: &Value) -> String {
    let data = json!({ "kind": "live", "choices": choices });
    page("steptime", "A scenario and its prediction.", &data, "'self'")
}

fn value<T: Serialize>(what: &T) -> Result<Value, PlotError> {
    serde_json::to_value(what).map_err(|error| PlotError::Page { message: error.to_string() })
}

/// Puts a page together. The frame is filled from front to back, so that nothing in the data is taken for a place to fill.
fn page(title: &str, summary: &str, data: &Value, connect: &str) -> String {
    let script = SCRIPTS.concat() + MAIN;
    // In a script element only `</` and `<!--` have a meaning; JSON may write `<` as an escape.
    let data = data.to_string().replace('<', "\\u003c");
    let mut html = String::with_capacity(FRAME.len() + STYLE.len() + script.len() + data.len());
    for piece in FRAME.split("{{") {
        let Some((name, rest)) = piece.split_once("}}") else {
            html += piece;
            continue;
        };
        match name {
            "title" => html += &escaped(title),
            "summary" => html += &escaped(summary),
            "connect" => html += connect,
            "style" => html += STYLE,
            "script" => html += &script,
            _ => html += &data,
        }
        html += rest;
    }
    html
}

/// Text as HTML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_their_place() {
        let data = json!({ "name": "</script><script>alert(1)</script> {{style}}" });
        let html = page("<b>\"&{{script}}", "</noscript>", &data, "'none'");
        assert!(!html.contains("<script>alert"));
        assert!(html.contains("<title>&lt;b&gt;&quot;&amp;{{script}}</title>"));
        assert!(html.contains("\\u003c/script>\\u003cscript>alert(1)\\u003c/script> {{style}}"));
        assert_eq!(html.matches("<style>").count(), 1);
    }

    #[test]
    fn a_page_names_no_other_place() {
        let html = live_page(&json!({}));
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("src="));
    }
}

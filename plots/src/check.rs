//! Checks of saved results before they are drawn: files can be edited by hand.

use steptime_scenarios::{Report, Timeline, TimelineRank};

use crate::error::PlotError;

/// A number of seconds that can be drawn: finite and not negative.
pub(crate) fn seconds(value: f64, what: impl FnOnce() -> String) -> Result<f64, PlotError> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(PlotError::Damaged(format!("{} is {value}, which is no length of time", what())))
    }
}

/// Checks the times and stream numbers of every span.
pub(crate) fn spans(timeline: &Timeline) -> Result<(), PlotError> {
    seconds(timeline.step_time_s, || "step_time_s".to_owned())?;
    for rank in &timeline.ranks {
        for span in &rank.spans {
            let what = || format!("a time of span `{}` of rank {}", span.name, rank.rank);
            seconds(span.start_s, what)?;
            seconds(span.end_s, what)?;
            if span.end_s < span.start_s {
                return Err(PlotError::Damaged(format!(
                    "span `{}` of rank {} ends before it starts",
                    span.name, rank.rank
                )));
            }
            if span.stream as usize >= rank.streams.len() {
                return Err(PlotError::Damaged(format!(
                    "span `{}` of rank {} is on stream {}, but there are {}",
                    span.name,
                    rank.rank,
                    span.stream,
                    rank.streams.len()
                )));
            }
        }
    }
    Ok(())
}

/// Checks the memory curve of one rank: times in order, one number a category.
pub(crate) fn memory(rank: &TimelineRank) -> Result<(), PlotError> {
    let mut before = 0.0;
    for point in &rank.memory {
        seconds(point.at_s, || format!("a time of the memory curve of rank {}", rank.rank))?;
        if point.at_s < before {
            return Err(PlotError::Damaged(format!(
                "the memory curve of rank {} goes back in time at {} s",
                rank.rank, point.at_s
            )));
        }
        if point.bytes.len() != rank.memory_categories.len() {
            return Err(PlotError::Damaged(format!(
                "the memory curve of rank {} has {} values at {} s for {} categories",
                rank.rank,
                point.bytes.len(),
                point.at_s,
                rank.memory_categories.len()
            )));
        }
        before = point.at_s;
    }
    Ok(())
}

/// Checks the numbers of a report that are drawn.
pub(crate) fn report(report: &Report) -> Result<(), PlotError> {
    let what = |key: &str| format!("`{key}` of `{}`", report.name);
    if let Some(step) = report.step_time_s {
        seconds(step, || what("step_time_s"))?;
    }
    for end in report.step_time_interval_s.into_iter().flatten() {
        seconds(end, || what("step_time_interval_s"))?;
    }
    for (part, value) in report.time_breakdown_s.entries() {
        seconds(value, || what(part))?;
    }
    Ok(())
}

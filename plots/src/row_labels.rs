//! The names at the left of a timeline: of stages or ranks, their devices, and their streams.

use steptime_scenarios::{Timeline, TimelineRank};

use crate::canvas::{Anchor, Canvas, Rect};
use crate::font::{clean, shorten, text_width};
use crate::gantt::Row;
use crate::style::{LABEL_PT, MARGIN_PT, RULE, TICK_PT, readable};

/// From this many ranks on, their labels are bare numbers.
const NUMBERS_FROM: usize = 17;
/// Gap between names and the plot, points.
const GAP: f64 = 4.0;
/// Gap between names of ranks and of streams, points.
const STREAM_GAP: f64 = 5.0;
/// Height of two lines, a name and a device, points.
const TWO_LINES: f64 = LABEL_PT + TICK_PT + 2.0;

/// Names, and the room that they need.
pub(crate) struct Labels {
    /// One for every run of rows of the same rank: its number, and its device where devices differ.
    groups: Vec<(String, Option<String>)>,
    group_width: f64,
    /// By row; empty where no stream is named.
    streams: Vec<String>,
    stream_width: f64,
    /// Where groups are bare numbers, what they count.
    axis: Option<&'static str>,
}

impl Labels {
    pub(crate) fn new(timeline: &Timeline, rows: &[Row<'_>], row_height: f64, canvas_width: f64) -> Self {
        let groups = groups(rows);
        let ranks: Vec<&TimelineRank> = groups.iter().map(|g| &timeline.ranks[rows[g.0].rank]).collect();
        let by_rank = ranks.windows(2).any(|pair| pair[0].stage == pair[1].stage);
        let devices_differ = ranks.windows(2).any(|pair| pair[0].device != pair[1].device);
        let bare = ranks.len() >= NUMBERS_FROM;
        let thinnest = groups.iter().map(|g| g.1 - g.0 + 1).min().unwrap_or(1) as f64 * row_height;
        let name = |rank: &&TimelineRank| {
            let (what, number) = if by_rank { ("rank", rank.rank) } else { ("stage", rank.stage) };
            let device = clean(&rank.device);
            if bare {
                (number.to_string(), None)
            } else if !devices_differ || device.is_empty() {
                (format!("{what} {number}"), None)
            } else if thinnest >= TWO_LINES {
                (format!("{what} {number}"), Some(shorten(&device, canvas_width * 0.2, TICK_PT)))
            } else {
                (format!("{what} {number}, {}", shorten(&device, canvas_width * 0.18, LABEL_PT)), None)
            }
        };
        let names: Vec<(String, Option<String>)> = ranks.iter().map(name).collect();
        let widest = names.iter().map(|(name, device)| {
            let device = device.as_ref().map_or(0.0, |device| text_width(device, TICK_PT));
            text_width(name, LABEL_PT).max(device)
        });
        let streams = stream_names(timeline, rows, row_height, canvas_width * 0.2);
        Self {
            group_width: widest.fold(0.0, f64::max),
            groups: names,
            stream_width: streams.iter().map(|name| text_width(name, TICK_PT)).fold(0.0, f64::max),
            streams,
            axis: bare.then_some(if by_rank { "Rank" } else { "Pipeline stage" }),
        }
    }

    /// Width of all labels with their gaps, points.
    pub(crate) fn room(&self) -> f64 {
        let axis = if self.axis.is_some() { LABEL_PT + GAP } else { 0.0 };
        axis + self.group_width + self.stream_room() + GAP
    }

    fn stream_room(&self) -> f64 {
        if self.streams.is_empty() { 0.0 } else { self.stream_width + STREAM_GAP }
    }

    /// Draws the names beside the rows' boxes (`bands`), and rules between ranks with several rows.
    pub(crate) fn draw(&self, canvas: &mut Canvas, rows: &[Row<'_>], bands: &[(f64, f64)], plot: &Rect) {
        if let Some(axis) = self.axis {
            canvas.text_upwards(axis, (MARGIN_PT + LABEL_PT / 2.0, plot.middle_y()), LABEL_PT);
        }
        let groups = groups(rows);
        let every = every(groups.len(), plot.height());
        let right = plot.x0 - GAP - self.stream_room();
        for (i, (&(first, last), (name, device))) in groups.iter().zip(&self.groups).enumerate() {
            if i > 0 && !self.streams.is_empty() {
                let y = f64::midpoint(bands[first - 1].1, bands[first].0);
                canvas.line((MARGIN_PT, y), (plot.x1, y), RULE, 0.3);
            }
            let middle = f64::midpoint(bands[first].0, bands[last].1);
            if let Some(device) = device {
                // Half the way from one line to the next.
                let apart = 0.5 * LABEL_PT + 0.5;
                canvas.text(name, (right, middle - apart), Anchor::End, LABEL_PT);
                canvas.text(device, (right, middle + apart), Anchor::End, TICK_PT);
            } else if i % every == 0 {
                let size = if self.axis.is_some() { TICK_PT } else { LABEL_PT };
                canvas.text(name, (right, middle), Anchor::End, size);
            }
        }
        for (name, band) in self.streams.iter().zip(bands) {
            canvas.text(name, (plot.x0 - GAP, f64::midpoint(band.0, band.1)), Anchor::End, TICK_PT);
        }
    }
}

/// Every how many groups a name stands: all where they fit, else a power of two with room between.
fn every(groups: usize, height: f64) -> usize {
    let pitch = height / groups as f64;
    if pitch >= LABEL_PT + 1.0 {
        return 1;
    }
    [2, 4, 8, 16, 32].into_iter().find(|&k| k as f64 * pitch >= 2.0 * LABEL_PT).unwrap_or(64)
}

/// Names of the streams by row; none where every rank has one row or the rows are too thin for text.
fn stream_names(timeline: &Timeline, rows: &[Row<'_>], row_height: f64, room: f64) -> Vec<String> {
    if row_height < TICK_PT + 1.0 || groups(rows).len() == rows.len() {
        return Vec::new();
    }
    let name = |row: &Row<'_>| readable(&timeline.ranks[row.rank].streams[row.stream]);
    rows.iter().map(|row| shorten(&name(row), room, TICK_PT)).collect()
}

/// First and last row of every rank.
pub(crate) fn groups(rows: &[Row<'_>]) -> Vec<(usize, usize)> {
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if rows[group.0].rank == row.rank => group.1 = i,
            _ => groups.push((i, i)),
        }
    }
    groups
}

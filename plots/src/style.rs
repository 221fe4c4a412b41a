//! Colours, hatches and sizes: everything that makes the figures one family.
//!
//! Colours are those of Okabe and Ito ("Color Universal Design", 2008), which people with the common forms of
//! colour blindness can tell apart, and two greys. Hatching is the second cue, so that figures survive a
//! greyscale printer: neighbours differ in lightness or in hatch.

use plotters::style::RGBColor;

/// Size of axis labels, legends and names, points.
pub(crate) const LABEL_PT: f64 = 8.0;
/// Size of tick labels and of values beside bars, points.
pub(crate) const TICK_PT: f64 = 7.0;
/// Smallest text, used only inside boxes of a timeline, points.
pub(crate) const SMALLEST_PT: f64 = 5.0;
/// Width of axes and ticks, points.
pub(crate) const AXIS_PT: f64 = 0.5;
/// Width of hatch lines, points.
pub(crate) const HATCH_PT: f64 = 0.35;
/// Distance between hatch lines, points.
pub(crate) const HATCH_STEP_PT: f64 = 2.4;
/// Length of tick marks, points.
pub(crate) const TICK_LENGTH_PT: f64 = 2.5;
/// Empty border of every figure, points.
pub(crate) const MARGIN_PT: f64 = 2.0;
/// One dot of the 300-dpi picture, points: nothing narrower is drawn as a box of its own.
pub(crate) const DOT_PT: f64 = 0.24;

pub(crate) const BLACK: RGBColor = RGBColor(0, 0, 0);
pub(crate) const WHITE: RGBColor = RGBColor(255, 255, 255);
pub(crate) const RULE: RGBColor = RGBColor(204, 204, 204);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const SKY_BLUE: RGBColor = RGBColor(86, 180, 233);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const YELLOW: RGBColor = RGBColor(240, 228, 66);
const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(crate) const VERMILION: RGBColor = RGBColor(213, 94, 0);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const GREY: RGBColor = RGBColor(150, 150, 150);
const LIGHT_GREY: RGBColor = RGBColor(190, 190, 190);
const PALE_GREY: RGBColor = RGBColor(225, 225, 225);
/// Ground of what stands for nothing that could run.
pub(crate) const PALE: RGBColor = PALE_GREY;

/// Colours of points, one a series; the marker is the second cue.
pub(crate) const SERIES: [RGBColor; 7] = [BLUE, VERMILION, GREEN, ORANGE, PURPLE, BLACK, SKY_BLUE];
/// Where predictions are off by 10 % at most, and by 25 %.
pub(crate) const NEAR_BAND: RGBColor = RGBColor(218, 218, 218);
pub(crate) const FAR_BAND: RGBColor = RGBColor(238, 238, 238);

/// Below this lightness ([`luma`]) text is white.
pub(crate) const DARK: f64 = 95.0;

/// Direction of the hatch lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hatch {
    None,
    Rising,
    Falling,
    Cross,
    Horizontal,
    Vertical,
}

/// How an area is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) color: RGBColor,
    pub(crate) hatch: Hatch,
}

const fn fill(color: RGBColor, hatch: Hatch) -> Fill {
    Fill { color, hatch }
}

/// Bars that stand for nothing that could run.
pub(crate) const MISSING: Fill = fill(PALE_GREY, Hatch::Falling);
/// Step time of a variant.
pub(crate) const TIME_BAR: Fill = fill(SKY_BLUE, Hatch::None);
/// Peak memory of a variant.
pub(crate) const MEMORY_BAR: Fill = fill(ORANGE, Hatch::None);

/// What the spans of a timeline are shown as: name in the legend and fill.
pub(crate) const SPAN_CLASSES: [(&str, Fill); 11] = [
    ("forward", fill(SKY_BLUE, Hatch::None)),
    ("backward", fill(GREEN, Hatch::None)),
    ("recompute", fill(YELLOW, Hatch::Falling)),
    ("optimizer", fill(VERMILION, Hatch::Horizontal)),
    ("communication", fill(PURPLE, Hatch::Rising)),
    ("waiting", fill(PALE_GREY, Hatch::None)),
    ("host", fill(GREY, Hatch::Vertical)),
    ("data loading", fill(BLUE, Hatch::Horizontal)),
    ("copy", fill(ORANGE, Hatch::Cross)),
    ("other", fill(LIGHT_GREY, Hatch::Falling)),
    ("weights", fill(BLUE, Hatch::Rising)),
];

/// Index into [`SPAN_CLASSES`] of a span's kind; kinds that are not known are `other`.
pub(crate) fn span_class(kind: &str) -> usize {
    match kind {
        "forward" => 0,
        "backward" => 1,
        "recompute" => 2,
        "optimizer" => 3,
        "all_reduce" | "all_gather" | "reduce_scatter" | "all_to_all" | "broadcast" | "send_receive"
        | "collective" => 4,
        "waiting" | "host_sync" => 5,
        "host" => 6,
        "data_loading" => 7,
        "copy" => 8,
        "weights" => 10,
        _ => 9,
    }
}

/// Fill of a memory category, by name; `index` (its place among the categories) decides for unknown names.
pub(crate) fn memory_fill(category: &str, index: usize) -> Fill {
    const OTHERS: [Fill; 4] = [
        fill(VERMILION, Hatch::None),
        fill(SKY_BLUE, Hatch::Cross),
        fill(YELLOW, Hatch::Horizontal),
        fill(PURPLE, Hatch::None),
    ];
    match category {
        "parameters" => fill(BLUE, Hatch::None),
        "gradients" => fill(SKY_BLUE, Hatch::Rising),
        "optimizer_states" => fill(GREEN, Hatch::Horizontal),
        "activations" => fill(ORANGE, Hatch::None),
        "buffers" => fill(PURPLE, Hatch::Cross),
        "workspace" => fill(YELLOW, Hatch::None),
        "context" => fill(GREY, Hatch::Vertical),
        "fragmentation" => fill(PALE_GREY, Hatch::Cross),
        _ => OTHERS[index % OTHERS.len()],
    }
}

/// Fill of a part of the step time, by its name in the report. Parts that a timeline shows too look the same.
pub(crate) fn breakdown_fill(part: &str) -> Fill {
    match part {
        "compute" => fill(SKY_BLUE, Hatch::None),
        "exposed_communication" => fill(PURPLE, Hatch::Rising),
        "pipeline_bubble" => fill(PALE_GREY, Hatch::None),
        "host" => fill(GREY, Hatch::Vertical),
        "data_loading" => fill(BLUE, Hatch::Horizontal),
        "optimizer" => fill(VERMILION, Hatch::Horizontal),
        "offload" => fill(ORANGE, Hatch::Cross),
        _ => fill(LIGHT_GREY, Hatch::Falling),
    }
}

/// A name of the report as people read it.
pub(crate) fn readable(name: &str) -> String {
    name.replace('_', " ")
}

/// How light a colour prints in greyscale, 0 to 255 (ITU-R BT.601 luma).
pub(crate) fn luma(color: RGBColor) -> f64 {
    0.299 * f64::from(color.0) + 0.587 * f64::from(color.1) + 0.114 * f64::from(color.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two fills are told apart in greyscale by 20 levels of lightness or by their hatch.
    fn distinct(a: Fill, b: Fill) -> bool {
        a.hatch != b.hatch || (luma(a.color) - luma(b.color)).abs() >= 20.0
    }

    #[test]
    fn span_classes_differ_in_greyscale_where_they_meet() {
        for (i, a) in SPAN_CLASSES.iter().enumerate() {
            for b in &SPAN_CLASSES[..i] {
                assert!(distinct(a.1, b.1), "{} and {}", a.0, b.0);
            }
        }
    }

    #[test]
    fn memory_categories_differ_in_greyscale() {
        // Any two can be neighbours, for those between them may be zero.
        let categories = [
            "parameters",
            "gradients",
            "optimizer_states",
            "activations",
            "buffers",
            "workspace",
            "context",
            "fragmentation",
        ];
        for (i, a) in categories.iter().enumerate() {
            for (j, b) in categories[..i].iter().enumerate() {
                assert!(distinct(memory_fill(a, i), memory_fill(b, j)), "{a} and {b}");
            }
        }
    }

    #[test]
    fn parts_of_the_step_time_differ_in_greyscale() {
        let parts = [
            "compute",
            "exposed_communication",
            "pipeline_bubble",
            "host",
            "data_loading",
            "optimizer",
            "offload",
            "other",
        ];
        for (i, a) in parts.iter().enumerate() {
            for b in &parts[..i] {
                assert!(distinct(breakdown_fill(a), breakdown_fill(b)), "{a} and {b}");
            }
        }
    }

    #[test]
    fn every_kind_of_the_timeline_has_its_class() {
        assert_eq!(SPAN_CLASSES[span_class("reduce_scatter")].0, "communication");
        assert_eq!(SPAN_CLASSES[span_class("host_sync")].0, "waiting");
        assert_eq!(SPAN_CLASSES[span_class("data_loading")].0, "data loading");
        assert_eq!(SPAN_CLASSES[span_class("something new")].0, "other");
    }
}

//! Memory curves as steps, thinned to what can be seen without losing a peak.

use steptime_scenarios::TimelineRank;

use crate::style::DOT_PT;

/// One stretch of constant memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// Seconds.
    pub(crate) start: f64,
    /// Seconds.
    pub(crate) end: f64,
    /// Bytes by category.
    pub(crate) bytes: Vec<f64>,
}

impl Step {
    /// Bytes of all categories.
    pub(crate) fn total(&self) -> f64 {
        self.bytes.iter().sum()
    }
}

/// Stretches in order of time.
pub(crate) type Curve = Vec<Step>;

/// The curve from its first point to `end` seconds, at most two steps a dot over `width` points. Within a dot
/// of a crowded curve the fullest moment stands for all, so peaks keep their height.
pub(crate) fn curve(rank: &TimelineRank, end: f64, width: f64) -> Curve {
    let points = &rank.memory;
    let ends = points.iter().skip(1).map(|next| next.at_s).chain(std::iter::once(end));
    let exact: Curve = points
        .iter()
        .zip(ends)
        .filter(|(point, until)| *until > point.at_s)
        .map(|(point, until)| Step {
            start: point.at_s,
            end: until,
            bytes: point.bytes.iter().map(|b| *b as f64).collect(),
        })
        .collect();
    let dots = (width / DOT_PT).max(1.0);
    if exact.len() as f64 <= dots { joined(exact) } else { joined(by_dots(&exact, end, dots as usize)) }
}

fn by_dots(exact: &[Step], end: f64, dots: usize) -> Curve {
    let edge = |i: usize| end * (i as f64 / dots as f64);
    let mut thinned = Curve::new();
    let mut next = 0;
    for dot in 0..dots {
        let (from, to) = (edge(dot), edge(dot + 1));
        while next < exact.len() && exact[next].end <= from {
            next += 1;
        }
        let inside = exact[next..].iter().take_while(|step| step.start < to);
        let mut fullest: Option<&Step> = None;
        for step in inside {
            if fullest.is_none_or(|f| step.total() > f.total()) {
                fullest = Some(step);
            }
        }
        if let Some(step) = fullest {
            let start = if thinned.is_empty() { step.start.max(from) } else { from };
            thinned.push(Step { start, end: to, bytes: step.bytes.clone() });
        }
    }
    thinned
}

/// Joins neighbours of the same height.
fn joined(steps: Curve) -> Curve {
    let mut joined = Curve::new();
    for step in steps {
        match joined.last_mut() {
            Some(last) if last.bytes == step.bytes => last.end = step.end,
            _ => joined.push(step),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use steptime_scenarios::MemoryPoint;

    fn rank(points: &[(f64, u64)]) -> TimelineRank {
        TimelineRank {
            rank: 0,
            stage: 0,
            multiplicity: 1,
            device: String::new(),
            streams: vec![],
            spans: vec![],
            memory: points.iter().map(|&(at_s, b)| MemoryPoint { at_s, bytes: vec![b] }).collect(),
            memory_categories: vec!["activations".into()],
            reserved: Vec::new(),
            failed_request: None,
            capacity_bytes: 0,
        }
    }

    #[test]
    fn points_become_steps_that_last_until_the_next() {
        let steps = curve(&rank(&[(0.0, 1), (1.0, 3), (2.0, 3)]), 4.0, 100.0);
        let seen: Vec<_> = steps.iter().map(|s| (s.start, s.end, s.total())).collect();
        assert_eq!(seen, [(0.0, 1.0, 1.0), (1.0, 4.0, 3.0)]);
    }

    #[test]
    fn a_short_peak_in_a_crowded_curve_survives() {
        let mut points: Vec<(f64, u64)> =
            (0..50_000).map(|i| (f64::from(i), 10 + u64::from(i as u32 % 7))).collect();
        points[31_234].1 = 999;
        let steps = curve(&rank(&points), 50_000.0, 100.0);
        assert!(steps.len() <= 417, "100 points are 416.7 dots: {}", steps.len());
        assert!(steps.iter().any(|step| (step.total() - 999.0).abs() < 1e-9));
        assert!(steps.windows(2).all(|w| (w[0].end - w[1].start).abs() < 1e-6), "no gaps");
    }
}

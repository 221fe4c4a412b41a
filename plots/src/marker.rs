//! What the points of a series look like: a colour, and a shape as its second cue.

use plotters::style::RGBColor;

use crate::canvas::{Canvas, Point, Rect};
use crate::style::SERIES;

/// Half the size of a point.
const POINT_PT: f64 = 1.5;

/// How the points of a series look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) color: RGBColor,
    pub(crate) marker: Marker,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Wedge,
}

const MARKERS: [Marker; 5] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Wedge];

impl Look {
    /// Seven colours and five markers: no two of 35 series look alike, and neighbours differ in both.
    pub(crate) fn of(series: usize) -> Self {
        Self { color: SERIES[series % SERIES.len()], marker: MARKERS[series % MARKERS.len()] }
    }

    pub(crate) fn draw(self, canvas: &mut Canvas, (x, y): Point) {
        let r = POINT_PT;
        let corners: &[Point] = match self.marker {
            Marker::Circle => return canvas.dot((x, y), r, self.color),
            Marker::Square => {
                let r = 0.9 * r;
                return canvas.rect(Rect::new(x - r, y - r, x + r, y + r), self.color);
            }
            Marker::Triangle => &[(0.0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
            Marker::Diamond => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
            Marker::Wedge => &[(0.0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
        };
        canvas.polygon(corners.iter().map(|(dx, dy)| (x + r * dx, y + r * dy)).collect(), self.color);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_of_35_series_look_alike() {
        let looks: BTreeSet<String> = (0..35).map(|series| format!("{:?}", Look::of(series))).collect();
        assert_eq!(looks.len(), 35);
    }
}

//! Links of a network by their load: nodes below, switches above, each link as dark and as thick as it is loaded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::Figure;
use crate::axis::three_digits;
use crate::canvas::{Anchor, Canvas, Point, Rect};
use crate::error::PlotError;
use crate::font::{shorten, text_width};
use crate::heat_map::color;
use crate::spec::TableSpec;
use crate::style::{BLACK, LABEL_PT, MARGIN_PT, RULE, TICK_PT, WHITE};
use crate::table::Table;

/// Distance between layers, points.
const LAYER_PT: f64 = 52.0;
/// Radius of a ring of nodes without switches, points.
const RING_PT: f64 = 62.0;
/// Nodes of a ring that have room for their names.
const MOST_NAMED: usize = 20;
/// Thinnest and thickest link, points.
const LINK_PT: (f64, f64) = (0.5, 2.4);
/// Shades of the key.
const SHADES: u32 = 24;

/// A network whose links have loads.
struct Network<'a> {
    /// Names in the order in which they stand: what is named first stands first.
    vertices: Vec<&'a str>,
    /// Pairs of vertices, the one that is named first before, with the more loaded of their directions.
    links: BTreeMap<(usize, usize), f64>,
    /// By vertex: how many links it is away from the nodes.
    layers: Vec<usize>,
}

/// Draws a figure of the kind `topology`: `x` and `y` are the columns of a link's two ends, `value` is its load, a share.
/// Rows without ends are left out.
pub(crate) fn topology(spec: &TableSpec, table: &Table) -> Result<Figure, PlotError> {
    let from = table.texts(spec.column("x", spec.x.as_ref())?)?;
    let to = table.texts(spec.column("y", spec.y.as_ref())?)?;
    let loads = table.numbers(spec.column("value", spec.value.as_ref())?)?.values;
    let rows = from.iter().zip(&to).zip(&loads).filter(|((from, to), _)| !from.is_empty() && !to.is_empty());
    let rows: Vec<(&str, &str, f64)> =
        rows.map(|((from, to), load)| (*from, *to, load.unwrap_or(0.0).max(0.0))).collect();
    let Some(fullest) = rows.iter().max_by(|a, b| a.2.total_cmp(&b.2)).copied() else {
        return Err(PlotError::Empty(format!("no row of `{}` has both ends of a link", spec.name)));
    };
    let network = Network::of(&rows);
    let mut canvas = Canvas::new(&spec.name, "Load of the network's links", spec.width);
    let top = key(&mut canvas, fullest.2);
    let note = format!("fullest: {} to {}, {} %", fullest.0, fullest.1, three_digits(100.0 * fullest.2));
    let room = canvas.width() - 2.0 * MARGIN_PT;
    let note = shorten(&note, room, TICK_PT);
    canvas.text(&note, (MARGIN_PT, top + TICK_PT / 2.0), Anchor::Start, TICK_PT);
    let (places, bottom) = network.places(&mut canvas, top + TICK_PT + 8.0);
    network.draw(&mut canvas, &places, fullest.2);
    canvas.finish(bottom + MARGIN_PT)
}

impl<'a> Network<'a> {
    fn of(rows: &[(&'a str, &'a str, f64)]) -> Self {
        let mut vertices: Vec<&str> = Vec::new();
        for (from, to, _) in rows {
            for end in [from, to] {
                if !vertices.contains(end) {
                    vertices.push(end);
                }
            }
        }
        vertices.sort_by_key(|name| natural(name));
        let place = |name: &str| vertices.iter().position(|known| *known == name).unwrap_or(0);
        let mut links: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        for (from, to, load) in rows {
            let (a, b) = (place(from), place(to));
            let most = links.entry((a.min(b), a.max(b))).or_default();
            *most = most.max(*load);
        }
        let layers = layers(&vertices, &links);
        Self { vertices, links, layers }
    }

    fn of_layer(&self, layer: usize) -> Vec<usize> {
        (0..self.vertices.len()).filter(|vertex| self.layers[*vertex] == layer).collect()
    }

    /// Where the vertices stand, with the names of the layers beside them, and the lower end of the drawing.
    fn places(&self, canvas: &mut Canvas, top: f64) -> (Vec<Point>, f64) {
        let deepest = self.layers.iter().copied().max().unwrap_or(0);
        let mut places = vec![(0.0, 0.0); self.vertices.len()];
        if deepest == 0 {
            let (x, y) = (canvas.width() / 2.0, top + RING_PT + 8.0);
            let count = self.vertices.len() as f64;
            for (at, place) in places.iter_mut().enumerate() {
                let angle = std::f64::consts::TAU * (at as f64 / count - 0.25);
                let (across, down) = (libm::cos(angle), libm::sin(angle));
                *place = (x + RING_PT * across, y + RING_PT * down);
                if self.vertices.len() <= MOST_NAMED {
                    let anchor = match across {
                        it if it > 0.2 => Anchor::Start,
                        it if it < -0.2 => Anchor::End,
                        _ => Anchor::Middle,
                    };
                    let beside = (x + (RING_PT + 7.0) * across, y + (RING_PT + 9.0) * down);
                    let room = canvas.width() / 2.0 - RING_PT - 10.0;
                    let name = shorten(self.vertices[at], room, TICK_PT);
                    canvas.text(&name, beside, anchor, TICK_PT);
                }
            }
            return (places, top + 2.0 * RING_PT + 18.0);
        }
        let names: Vec<String> = (0..=deepest).map(|layer| self.layer_name(&self.of_layer(layer))).collect();
        let widest = names.iter().map(|name| text_width(name, LABEL_PT)).fold(0.0, f64::max);
        let (left, right) = (MARGIN_PT + widest + 10.0, canvas.width() - MARGIN_PT - 6.0);
        for (layer, name) in names.iter().enumerate() {
            let y = top + (deepest - layer) as f64 * LAYER_PT + 6.0;
            canvas.text(name, (MARGIN_PT, y), Anchor::Start, LABEL_PT);
            let own = self.of_layer(layer);
            let pitch = (right - left) / own.len() as f64;
            for (at, vertex) in own.into_iter().enumerate() {
                places[vertex] = (left + (at as f64 + 0.5) * pitch, y);
            }
        }
        (places, top + deepest as f64 * LAYER_PT + 12.0)
    }

    /// `4 leaf`: how many, and the word that they share.
    fn layer_name(&self, own: &[usize]) -> String {
        let word = |vertex: &usize| self.vertices[*vertex].split(' ').next().unwrap_or_default();
        let words: BTreeSet<&str> = own.iter().map(word).collect();
        match (own, words.len()) {
            ([only], _) => self.vertices[*only].to_owned(),
            (_, 1) => format!("{} × {}", own.len(), words.first().copied().unwrap_or_default()),
            _ => format!("{} switches", own.len()),
        }
    }

    fn draw(&self, canvas: &mut Canvas, places: &[Point], most: f64) {
        // The fullest are drawn last, over the others.
        let mut links: Vec<(&(usize, usize), f64)> =
            self.links.iter().map(|(ends, load)| (ends, *load)).collect();
        links.sort_by(|a, b| a.1.total_cmp(&b.1));
        let level = self.layers.iter().any(|layer| *layer > 0);
        for ((a, b), load) in links {
            let share = if most > 0.0 { load / most } else { 0.0 };
            let shade = if load > 0.0 { color(0.15 + 0.85 * share) } else { RULE };
            let width = LINK_PT.0 + (LINK_PT.1 - LINK_PT.0) * share;
            let (from, to) = (places[*a], places[*b]);
            if level && self.layers[*a] == self.layers[*b] {
                // Between neighbours of a layer the way bends upwards, so that others beside it are seen.
                let middle = (f64::midpoint(from.0, to.0), from.1 - 6.0 - (to.0 - from.0).abs() * 0.08);
                canvas.path(vec![from, middle, to], shade, width);
            } else {
                canvas.line(from, to, shade, width);
            }
        }
        let crowd = (0..=self.layers.iter().copied().max().unwrap_or(0))
            .map(|layer| self.of_layer(layer).len())
            .max()
            .unwrap_or(1);
        let half = (canvas.width() * 0.3 / crowd as f64).clamp(1.0, 3.2);
        for (x, y) in places {
            canvas.rect(Rect::new(x - half, y - half, x + half, y + half), WHITE);
            canvas.outline(Rect::new(x - half, y - half, x + half, y + half), 0.5);
        }
    }
}

/// A name in pieces that sort as people count: `leaf 10` behind `leaf 9`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let number = |word: &str| word.parse::<u64>();
    name.split([' ', '.'])
        .map(|word| number(word).map_or_else(|_| (word.to_owned(), 0), |number| (String::new(), number)))
        .collect()
}

/// How many links each vertex is away from the nearest node; without nodes all are alike.
fn layers(vertices: &[&str], links: &BTreeMap<(usize, usize), f64>) -> Vec<usize> {
    let inside = vertices.iter().any(|name| name.contains(" gpu "));
    let ends = |name: &&str| if inside { name.contains(" gpu ") } else { name.starts_with("node ") };
    let mut layers: Vec<Option<usize>> = vertices.iter().map(|name| ends(name).then_some(0)).collect();
    let mut queue: VecDeque<usize> = (0..vertices.len()).filter(|at| layers[*at].is_some()).collect();
    while let Some(at) = queue.pop_front() {
        let own = layers[at].unwrap_or(0);
        for (a, b) in links.keys() {
            let other = if *a == at {
                *b
            } else if *b == at {
                *a
            } else {
                continue;
            };
            if layers[other].is_none() {
                layers[other] = Some(own + 1);
                queue.push_back(other);
            }
        }
    }
    layers.into_iter().map(|layer| layer.unwrap_or(0)).collect()
}

/// What shades and widths mean; returns the height below it.
fn key(canvas: &mut Canvas, most: f64) -> f64 {
    let y = MARGIN_PT + 5.0;
    let name = "Load of a link (%)";
    canvas.text(name, (MARGIN_PT, y), Anchor::Start, TICK_PT);
    let mut x = MARGIN_PT + text_width(name, TICK_PT) + 6.0;
    canvas.text("0", (x, y), Anchor::Start, TICK_PT);
    x += text_width("0", TICK_PT) + 3.0;
    let long = 60.0;
    for step in 0..SHADES {
        let share = (f64::from(step) + 0.5) / f64::from(SHADES);
        let edge = |step: u32| x + long * f64::from(step) / f64::from(SHADES);
        let half = (LINK_PT.0 + (LINK_PT.1 - LINK_PT.0) * share) * 0.5;
        canvas.rect(Rect::new(edge(step), y - half, edge(step + 1), y + half), color(0.15 + 0.85 * share));
    }
    x += long + 3.0;
    let end = three_digits(100.0 * most);
    canvas.text(&end, (x, y), Anchor::Start, TICK_PT);
    x += text_width(&end, TICK_PT) + 8.0;
    let unused = "unused";
    if x + 12.0 + text_width(unused, TICK_PT) < canvas.width() - MARGIN_PT {
        canvas.line((x, y), (x + 9.0, y), RULE, LINK_PT.0);
        canvas.text_in(BLACK, unused, (x + 12.0, y), Anchor::Start, TICK_PT);
    }
    y + 9.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_stand_as_far_up_as_they_are_from_the_nodes() {
        let rows = [
            ("node 0", "leaf 0", 0.2),
            ("leaf 0", "node 0", 0.4),
            ("leaf 0", "spine 10", 0.1),
            ("leaf 0", "spine 9", 0.0),
        ];
        let network = Network::of(&rows);
        assert_eq!(network.vertices, ["leaf 0", "node 0", "spine 9", "spine 10"]);
        assert_eq!(network.layers, [1, 0, 2, 2]);
        assert!((network.links[&(0, 1)] - 0.4).abs() < 1e-12);
    }
}

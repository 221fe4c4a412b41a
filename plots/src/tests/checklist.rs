//! What is checked of every figure of the gallery as it is on the page, one line each.

use std::collections::BTreeSet;
use std::path::Path;

use super::texts;
use crate::Figure;
use crate::export::raster_pdf::parse;
use crate::{Format, style};

/// Fewest levels of grey between two colours that nothing else tells apart.
const LEVELS: f64 = 20.0;

const HEAD: &str = "# The gallery's figures, checked

Written by the tests (`UPDATE_FIGURES=1 cargo test -p steptime-plots checklist`). Each figure has been opened as a picture of
300 dots an inch at its printed width and judged: labels inside, nothing clipped, readable, told apart in grey.

| figure | width | texts | smallest | inside | apart | colours | in grey |
| --- | ---: | ---: | ---: | --- | --- | ---: | --- |
";

/// Attribute values of an SVG, in order.
fn values<'a>(svg: &'a str, attribute: &str) -> Vec<&'a str> {
    let begin = format!(" {attribute}=\"");
    let rest = |part: &'a str| part.split('"').next();
    svg.split(begin.as_str()).skip(1).filter_map(rest).collect()
}

/// Colours of areas and lines, those near to white and to black apart.
fn colours(svg: &str) -> Vec<f64> {
    let mut found = BTreeSet::new();
    for text in values(svg, "fill").into_iter().chain(values(svg, "stroke")) {
        let byte = |at: usize| text.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let (Some(r), Some(g), Some(b)) = (byte(1), byte(3), byte(5)) {
            found.insert((r, g, b));
        }
    }
    let luma = |(r, g, b)| style::luma(plotters::style::RGBColor(r, g, b));
    let mut levels: Vec<f64> =
        found.into_iter().map(luma).filter(|luma| (10.0..245.0).contains(luma)).collect();
    levels.sort_by(f64::total_cmp);
    levels
}

/// How colours are told apart in grey: by lightness alone, or by what goes with them.
fn in_grey(name: &str, levels: &[f64]) -> &'static str {
    match name {
        "strong_scaling" | "throughput" | "weak_scaling" | "goodput" | "cdf" | "roofline" | "parity" => {
            "markers"
        }
        "pipeline" | "memory" | "breakdown" | "variants" | "bars" | "tornado" => "hatches or places",
        "heat_map" | "heat_map_large" | "topology" => "a ramp of lightness",
        _ if levels.windows(2).all(|pair| pair[1] - pair[0] >= LEVELS) => "lightness",
        _ => "?",
    }
}

fn row(name: &str, svg: &str) -> String {
    let figure = Figure { name: name.to_owned(), svg: svg.to_owned(), facts: Vec::new() };
    let size = parse(svg, Format::Svg).expect("a valid document").size();
    let texts = texts(&figure);
    let inside = texts
        .iter()
        .all(|(_, it)| it[0] >= 0.0 && it[1] >= 0.0 && it[2] <= size.width() && it[3] <= size.height());
    let apart = |a: &[f32; 4], b: &[f32; 4]| a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
    let disjoint = texts.iter().enumerate().all(|(i, (_, a))| texts[..i].iter().all(|(_, b)| apart(a, b)));
    // Font sizes are in thousandths of an inch.
    let sizes = values(svg, "font-size").into_iter().filter_map(|size| size.parse::<f64>().ok());
    let smallest = sizes.fold(f64::INFINITY, f64::min) * 72.0 / 1000.0;
    let levels = colours(svg);
    let yes = |it: bool| if it { "yes" } else { "NO" };
    format!(
        "| [{name}]({name}.svg) | {:.2} in | {} | {smallest:.1} pt | {} | {} | {} | {} |\n",
        size.width() / 96.0,
        texts.len(),
        yes(inside),
        yes(disjoint),
        levels.len(),
        in_grey(name, &levels),
    )
}

#[test]
fn the_checklist_of_the_gallery_is_what_is_found() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/figures/gallery");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the gallery")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "svg"))
        .collect();
    files.sort();
    let mut page = HEAD.to_owned();
    for file in &files {
        let name = file.file_stem().expect("a name").to_string_lossy();
        page += &row(&name, &std::fs::read_to_string(file).expect("a figure"));
    }
    assert!(files.len() >= 17 && !page.contains("NO |") && !page.contains("? |"), "{page}");
    let path = folder.join("checklist.md");
    if std::env::var("UPDATE_FIGURES").is_ok() {
        std::fs::write(&path, &page).expect("written");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page, "run with UPDATE_FIGURES=1");
}

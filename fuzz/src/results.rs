//! Saved results, as commands read them again: reports, timelines, tables, sweeps.

use serde::de::DeserializeOwned;
use steptime_plots::{
    Figure, PlotError, Table, TableKind, TableSpec, Width, breakdown, memory_over_time, pipeline_gantt,
    sweep_page, variant_comparison,
};
use steptime_scenarios::{Report, Timeline, read_part};

use crate::play::complains;

/// Parts a report, a timeline, a table and a sweep.
const BORDER: &str = "\n%%%%\n";
/// The largest drawing of so small a text.
const LARGEST: usize = 8 << 20;

fn drawn(figure: Result<Figure, PlotError>) {
    match figure {
        Ok(figure) => assert!(figure.svg.len() < LARGEST, "{} bytes", figure.svg.len()),
        Err(error) => complains(&error.to_string()),
    }
}

fn saved<T: DeserializeOwned>(text: Option<&str>) -> Option<T> {
    serde_json::from_str(text?).ok()
}

pub(crate) fn results(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split(BORDER);
    if let Some(report) = saved::<Report>(parts.next()) {
        let reports = [report.clone(), report];
        drawn(breakdown(&reports[..1], Width::OneColumn));
        drawn(breakdown(&reports, Width::TwoColumn));
        drawn(variant_comparison(&reports, Width::TwoColumn));
    }
    if let Some(timeline) = saved::<Timeline>(parts.next()) {
        drawn(pipeline_gantt(&timeline, Width::TwoColumn));
        drawn(memory_over_time(&timeline, None, Width::OneColumn));
    }
    if let Some(table) = parts.next().and_then(|text| Table::from_csv(text).ok()) {
        let column = |name: &str| Some(name.to_owned());
        for kind in TableKind::ALL {
            let spec = TableSpec {
                x: column("x"),
                y: column("y"),
                value: column("value"),
                label: column("label"),
                series: column("series"),
                flops: column("x"),
                bytes: column("y"),
                seconds: column("value"),
                ..TableSpec::new("figure", kind, Width::OneColumn)
            };
            drawn(spec.draw(&table));
        }
    }
    if let Some(part) = parts.next().and_then(|text| read_part("sweep.jsonl", text).ok()) {
        match sweep_page(&part.header, &part.rows) {
            Ok(page) => assert!(page.len() < LARGEST, "{} bytes", page.len()),
            Err(error) => complains(&error.to_string()),
        }
    }
}

//! Saved results that somebody has cut off or altered: each is refused in words or drawn, in bounded memory.

use std::collections::BTreeMap;

use super::*;
use crate::Table;
use steptime_scenarios::read_part;

/// Numbers at which something may break.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "0.5",
    "-0.0",
    "1e-300",
    "1e18",
    "1e300",
    "1.7e308",
    "65537",
    "4294967295",
    "9007199254740993",
    "18446744073709551615",
    "null",
    "\"\"",
];
/// The largest drawing of what is small: a number in a file is no size of a figure.
const LARGEST: usize = 4 << 20;

/// Where the numbers of a text are.
fn numbers(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut begin = None;
    let mut quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        quoted ^= byte == b'"';
        let numeric = byte.is_ascii_digit() || begin.is_some() && matches!(byte, b'.' | b'e' | b'+' | b'-');
        match (begin, numeric && !quoted) {
            (None, true) => begin = Some(at),
            (Some(from), false) => {
                found.push(from..at);
                begin = None;
            }
            _ => {}
        }
    }
    found
}

/// The text cut off at many places, with every number in turn absurd, and with every line in turn gone or twice.
fn spoiled(text: &str) -> Vec<String> {
    let mut all: Vec<String> = (0..200).map(|part| text[..text.len() * part / 200].to_owned()).collect();
    for (number, range) in numbers(text).into_iter().enumerate() {
        // Each number has some of the absurd ones, and its neighbours the others.
        for absurd in NUMBERS.iter().skip(number % 3).step_by(3) {
            all.push(format!("{}{absurd}{}", &text[..range.start], &text[range.end..]));
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    for line in 0..lines.len() {
        let (before, after) = lines.split_at(line);
        all.push([before, &after[1..]].concat().join("\n"));
        all.push([before, &after[..1], after].concat().join("\n"));
    }
    all
}

/// Figures that were drawn are whole, and no larger than figures are.
fn assert_sound(figure: Result<Figure, PlotError>, from: &str) -> bool {
    match figure {
        Ok(figure) => {
            assert!(figure.svg.len() < LARGEST, "{} bytes of {from}", figure.svg.len());
            let of_numbers =
                figure.svg.split('>').filter(|tag| tag.contains("<rect") || tag.contains("<line"));
            for tag in of_numbers {
                assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}>: {from}");
            }
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

#[test]
fn spoiled_reports_are_refused_or_drawn() {
    let mut drawn = 0;
    let whole = serde_json::to_string_pretty(&report("whole", 0.25, 12.0, 80.0)).unwrap();
    for text in spoiled(&whole) {
        let Ok(spoiled) = serde_json::from_str::<Report>(&text) else { continue };
        let two = [report("other", 0.5, 20.0, 80.0), spoiled];
        drawn += usize::from(assert_sound(breakdown(&two, Width::OneColumn), &text));
        assert_sound(breakdown(&two[1..], Width::TwoColumn), &text);
        assert_sound(variant_comparison(&two, Width::TwoColumn), &text);
    }
    assert!(drawn > 10, "{drawn}");
}

#[test]
fn spoiled_timelines_are_refused_or_drawn() {
    let mut drawn = [0; 2];
    let (passes, curve) = (pipeline(2, 2, 0.01, false), memory(0.1, 3, 1.0, 40.0));
    for whole in [passes, curve] {
        for text in spoiled(&serde_json::to_string_pretty(&whole).unwrap()) {
            let Ok(spoiled) = serde_json::from_str::<Timeline>(&text) else { continue };
            drawn[0] += usize::from(assert_sound(pipeline_gantt(&spoiled, Width::OneColumn), &text));
            drawn[1] += usize::from(assert_sound(memory_over_time(&spoiled, None, Width::OneColumn), &text));
            assert_sound(memory_over_time(&spoiled, Some(0), Width::TwoColumn), &text);
        }
    }
    assert!(drawn.iter().all(|drawn| *drawn > 10), "{drawn:?}");
}

/// A figure of each kind that names columns, of a table with numbers, names and blanks.
#[test]
fn spoiled_tables_are_refused_or_drawn() {
    let table = "from,to,load,flops,bytes,seconds,operation,kind,peak_flops_per_s,peak_bytes_per_s\n\
        gpu0,switch,0.5,1e9,1e6,0.001,gemm,matrix,1e15,3e12\n\
        switch,gpu1,0.25,2e9,3e6,0.002,norm,vector,1e15,3e12\n\
        gpu1,gpu0,1,4e8,1e5,0.003,add,vector,1e15,3e12\n";
    let mut drawn: BTreeMap<&str, usize> = BTreeMap::new();
    let column = |name: &str| Some(name.to_owned());
    for kind in TableKind::ALL {
        for width in [Width::OneColumn, Width::TwoColumn] {
            let blank = TableSpec::new("spoiled", kind, width);
            let spec = match kind {
                TableKind::Topology => {
                    TableSpec { x: column("from"), y: column("to"), value: column("load"), ..blank }
                }
                TableKind::Roofline => TableSpec {
                    flops: column("flops"),
                    bytes: column("bytes"),
                    seconds: column("seconds"),
                    label: column("operation"),
                    series: column("kind"),
                    ..blank
                },
                _ => TableSpec {
                    x: column("flops"),
                    y: column("seconds"),
                    value: column("load"),
                    label: column("operation"),
                    series: column("kind"),
                    low: column("seconds"),
                    high: column("bytes"),
                    ..blank
                },
            };
            for text in spoiled(table) {
                let figure = Table::from_csv(&text).and_then(|table| spec.draw(&table));
                *drawn.entry(kind.name()).or_default() += usize::from(assert_sound(figure, &text));
            }
        }
    }
    assert!(drawn.values().filter(|drawn| **drawn > 10).count() >= 8, "{drawn:?}");
}

#[test]
fn spoiled_sweeps_are_refused_or_shown() {
    let whole = "{\"schema\":\"steptime.sweep/1\",\"name\":\"gpt2\",\"fingerprint\":\"64\",\"points\":2,\"skipped\":0,\
        \"axes\":[\"workload.micro_batch_size\"],\"shard\":{\"index\":1,\"count\":1},\"version\":\"0.1.0\"}\n";
    let row = |point: u32| {
        format!(
            "{{\"point\":{point},\"values\":{{\"workload.micro_batch_size\":{}}},\"verdict\":\"fits\",\"step_time_s\":0.007,\
             \"step_time_interval_s\":[0.006,0.008],\"samples_per_s\":1006.2,\"tokens_per_s\":1030360.3,\
             \"tokens_per_s_per_gpu\":128795.0,\"model_flops_utilization\":0.11,\"hardware_flops_utilization\":0.11,\
             \"gpus\":8,\"time_breakdown_s\":{{\"compute\":0.006,\"exposed_communication\":0.001,\"pipeline_bubble\":0.0,\
             \"host\":0.0,\"data_loading\":0.0,\"optimizer\":0.0,\"offload\":0.0,\"other\":0.0}},\
             \"peak_allocated_bytes\":3042933248,\"peak_reserved_bytes\":3166699520,\"peak_device_bytes\":4442816512,\
             \"capacity_bytes\":84932978278,\"cost\":null,\"reason\":null}}\n",
            point + 1
        )
    };
    let whole = whole.to_owned() + &row(0) + &row(1);
    let mut shown = 0;
    for text in spoiled(&whole) {
        let Ok(part) = read_part("sweep.jsonl", &text) else { continue };
        let page = crate::sweep_page(&part.header, &part.rows).unwrap();
        assert!(page.len() < LARGEST);
        shown += usize::from(!part.rows.is_empty());
    }
    assert!(shown > 10, "{shown}");
}

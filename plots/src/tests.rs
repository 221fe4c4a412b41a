//! Every figure, over ordinary and extreme results: all text on the sheet, none over another, legends
//! complete, the same bytes every time, files of the right kind and size.

mod checklist;
mod spoiled;
#[path = "../examples/gallery/synthetic.rs"]
mod synthetic;

use std::collections::BTreeSet;

use resvg::usvg;
use steptime_scenarios::{FailedRequest, LevelPoint, Report, Timeline};

use crate::export::raster_pdf::parse;
use crate::{
    Figure, FigureKind, Format, PlotError, Table, TableKind, TableSpec, Width, breakdown, memory_over_time,
    parity, pipeline_gantt, variant_comparison,
};
use synthetic::{
    GIB, data_parallel, infeasible, memory, out_of_memory, pipeline, rank, report, span, timeline,
    validation, variants,
};

/// Bounds in CSS pixels: left, top, right, bottom.
type Bounds = [f32; 4];

/// The outlines of all texts as they are set, not as they were planned.
fn texts(figure: &Figure) -> Vec<(String, Bounds)> {
    fn collect(group: &usvg::Group, found: &mut Vec<(String, Bounds)>) {
        for node in group.children() {
            match node {
                usvg::Node::Group(inner) => collect(inner, found),
                usvg::Node::Text(text) => {
                    let words = text.chunks().iter().map(usvg::TextChunk::text).collect();
                    let ink = text.flattened().bounding_box().transform(text.abs_transform());
                    let ink = ink.expect("text has a size");
                    found.push((words, [ink.left(), ink.top(), ink.right(), ink.bottom()]));
                }
                _ => {}
            }
        }
    }
    let tree = parse(&figure.svg, Format::Svg).expect("a valid document");
    let mut found = Vec::new();
    collect(tree.root(), &mut found);
    found
}

/// Every text lies on the sheet and touches no other.
fn assert_tidy(figure: &Figure, what: &str) {
    let size: usvg::Size = parse(&figure.svg, Format::Svg).expect("a valid document").size();
    let texts = texts(figure);
    for (i, (text, a)) in texts.iter().enumerate() {
        assert!(
            a[0] >= 0.0 && a[1] >= 0.0 && a[2] <= size.width() && a[3] <= size.height(),
            "{what}: `{text}` {a:?} leaves the sheet {size:?}"
        );
        for (other, b) in &texts[..i] {
            let apart = a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
            assert!(apart, "{what}: `{text}` {a:?} overlaps `{other}` {b:?}");
        }
    }
}

/// Draws as wide as all venues want it and checks each; returns the figure of one column.
fn check(what: &str, draw: impl Fn(Width) -> Result<Figure, PlotError>) -> Figure {
    // The narrowest column and the widest block beside the usual ones and the one between them.
    let widths = [Width::OneColumn, Width::TwoColumn, Width::IcmlColumn, Width::Neurips, Width::IeeeWide];
    let [narrow, wide, ..] = widths.map(|width| {
        let figure = draw(width).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_tidy(&figure, &format!("{what}, {width}"));
        figure
    });
    assert_ne!(narrow, wide);
    narrow
}

fn words(figure: &Figure) -> BTreeSet<String> {
    texts(figure).into_iter().map(|(text, _)| text).collect()
}

fn assert_says(figure: &Figure, expected: &[&str]) {
    let words = words(figure);
    for text in expected {
        assert!(words.contains(*text), "`{text}` is missing in {words:?}");
    }
}

#[test]
fn pipelines_of_1_to_64_stages_are_tidy() {
    for stages in [1, 2, 3, 4, 7, 8, 16, 17, 31, 32, 48, 64] {
        let figure = check(&format!("{stages} stages"), |width| {
            pipeline_gantt(&pipeline(stages, 8, 0.01, false), width)
        });
        assert_says(&figure, &["forward", "backward", "optimizer"]);
    }
}

#[test]
fn tiny_and_huge_times_are_tidy() {
    for unit in [1e-12, 3.3e-9, 4.7e-6, 0.0123, 7.7, 1234.0, 9.9e5, 1e12] {
        check(&format!("unit of {unit} s"), |width| pipeline_gantt(&pipeline(4, 8, unit, true), width));
        check(&format!("memory over {unit} s"), |width| {
            memory_over_time(&memory(unit, 12, 10.0, 80.0), None, width)
        });
        let reports = [report("one", unit, 1.0, 2.0), report("two", unit * 1e-5, 1e-6, 2.0)];
        check(&format!("breakdown of {unit} s"), |width| breakdown(&reports, width));
        check(&format!("variants of {unit} s"), |width| variant_comparison(&reports, width));
    }
}

#[test]
fn the_legend_of_a_timeline_names_all_that_is_drawn_and_nothing_else() {
    let figure = check("recompute", |width| pipeline_gantt(&pipeline(4, 6, 0.01, true), width));
    assert_says(
        &figure,
        &["forward", "backward", "recompute", "optimizer", "communication", "0", "5", "stage 3"],
    );
    for absent in ["host", "waiting", "copy", "other"] {
        assert!(!words(&figure).contains(absent), "{absent} is not in the picture");
    }
}

#[test]
fn a_single_gpu_shows_its_streams() {
    let figure = check("data parallel", |width| pipeline_gantt(&data_parallel(24), width));
    assert_says(&figure, &["compute", "nccl", "host", "waiting", "data loading", "communication", "stage 0"]);
}

#[test]
fn streams_that_do_nothing_have_no_row() {
    let figure = check("1F1B", |width| pipeline_gantt(&pipeline(4, 8, 0.01, false), width));
    assert_says(&figure, &["compute", "send receive"]);
    assert!(!words(&figure).contains("host"));
}

#[test]
fn of_more_than_64_rows_a_part_is_shown_and_said_to_be_one() {
    let figure =
        check("64 stages of two streams", |width| pipeline_gantt(&pipeline(64, 80, 0.01, false), width));
    assert_says(&figure, &["64 of 128 rows: compute streams only", "Pipeline stage"]);
    let mut many = pipeline(100, 3, 0.01, false);
    for rank in &mut many.ranks {
        rank.spans.retain(|span| span.stream == 0);
    }
    let figure = check("100 stages", |width| pipeline_gantt(&many, width));
    assert_says(&figure, &["64 of 100 rows: evenly chosen"]);
}

#[test]
fn several_ranks_of_one_stage_are_told_apart() {
    let spans = || vec![span(0, 0.0, 1.0, "forward", Some(0))];
    let ranks = (0..4).map(|number| rank(number, number / 2, &["compute"], spans()));
    let doubled = timeline(1.0, ranks.collect());
    let figure = check("two stages of two", |width| pipeline_gantt(&doubled, width));
    assert_says(&figure, &["rank 0", "rank 3"]);
}

#[test]
fn vehicles_are_named() {
    let mut mixed = pipeline(3, 4, 0.02, false);
    for (rank, device) in
        mixed.ranks.iter_mut().zip(["bus 1", "car 2", "a truck with a very long name indeed"])
    {
        device.clone_into(&mut rank.device);
    }
    let figure = check("vehicles", |width| pipeline_gantt(&mixed, width));
    assert_says(&figure, &["stage 0", "bus 1"]);
    for rank in &mut mixed.ranks {
        rank.spans.retain(|span| span.stream == 0);
    }
    let figure = check("vehicles of one stream", |width| pipeline_gantt(&mixed, width));
    assert_says(&figure, &["stage 0, bus 1"]);
}

#[test]
fn thousands_of_spans_make_a_small_drawing() {
    let spans = (0..100_000)
        .map(|i| {
            let kind = if i % 3 == 0 { "forward" } else { "all_gather" };
            span(0, f64::from(i) * 1e-5, f64::from(i + 1) * 1e-5, kind, None)
        })
        .collect();
    let figure =
        pipeline_gantt(&timeline(1.0, vec![rank(0, 0, &["compute"], spans)]), Width::TwoColumn).unwrap();
    assert!(figure.svg.len() < 500_000, "{} bytes", figure.svg.len());
    assert_tidy(&figure, "100,000 spans");
}

#[test]
fn memory_names_its_categories_and_its_capacity() {
    let figure = check("memory", |width| memory_over_time(&memory(0.35, 24, 31.0, 80.0), None, width));
    assert_says(
        &figure,
        &[
            "parameters",
            "gradients",
            "optimizer states",
            "activations",
            "workspace",
            "context",
            "capacity 80.0 GiB (peak 64.9 GiB)",
            "Memory (GiB)",
            "Time (ms)",
        ],
    );
    assert!(!words(&figure).contains("buffers"), "always zero");
}

#[test]
fn names_stand_in_their_areas_where_all_fit() {
    let mut simple = memory(0.35, 24, 31.0, 80.0);
    for point in &mut simple.ranks[0].memory {
        for small in [1, 5, 6] {
            point.bytes[small] = 0;
        }
    }
    let inside = check("three categories", |width| memory_over_time(&simple, None, width));
    assert_says(&inside, &["parameters", "optimizer states", "activations"]);
}

#[test]
fn passing_the_capacity_is_marked_where_it_first_happens() {
    for (layers, capacity) in [(24, 48.0), (24, 64.0), (900, 64.8), (2, 30.0), (24, 33.0)] {
        let what = format!("{layers} layers, capacity {capacity}");
        let figure =
            check(&what, |width| memory_over_time(&memory(0.35, layers, 31.0, capacity), None, width));
        assert!(
            words(&figure).iter().any(|text| text.contains("exceeded at")),
            "{what}: {:?}",
            words(&figure)
        );
    }
    // 24 layers of forward over 0.3 of 0.35 s: with 33 + 31 i / 24 GiB (and half a GiB more for odd i), 48 GiB are
    // passed at i = 12, after 0.15 of the step: 52.5 ms.
    let figure = memory_over_time(&memory(0.35, 24, 31.0, 48.0), None, Width::TwoColumn).unwrap();
    assert!(words(&figure).iter().any(|text| text.contains("52.5 ms")), "{:?}", words(&figure));
}

#[test]
fn reserved_memory_is_a_line_and_a_failed_request_a_mark() {
    let gib = |value: f64| (value * GIB) as u64;
    let mut reserving = memory(0.35, 24, 31.0, 80.0);
    let level = |at_s, value| LevelPoint { at_s, bytes: gib(value) };
    reserving.ranks[0].reserved = vec![level(0.0, 40.0), level(0.1, 70.5), level(0.2, 72.0)];
    let figure = check("reserved", |width| memory_over_time(&reserving, None, width));
    assert_says(&figure, &["reserved, up to 72.0 GiB", "capacity 80.0 GiB (peak 64.9 GiB)"]);

    // A request that fails between the blocks of the cache: the curve itself stays below the capacity.
    let failed = |tensor: &str, step| FailedRequest {
        step,
        at_s: 0.2,
        tensor: tensor.to_owned(),
        requested_bytes: gib(9.0),
        needed_bytes: gib(81.0),
    };
    reserving.ranks[0].failed_request = Some(failed("block.3 mlp.fc1.output", 1));
    let figure = check("failed", |width| memory_over_time(&reserving, None, width));
    assert_says(
        &figure,
        &["out of memory at 200 ms: 9.00 GiB for block.3 mlp.fc1.output", "capacity 80.0 GiB"],
    );
    let long = "block.12 attention.query_key_value.grad_weight of the second of two chunks";
    reserving.ranks[0].failed_request = Some(failed(long, 0));
    let figure = memory_over_time(&reserving, None, Width::TwoColumn).unwrap();
    let begin = "out of memory at 200 ms of the first step: 9.00 GiB for block";
    assert!(words(&figure).iter().any(|text| text.starts_with(begin)), "{:?}", words(&figure));
    check("failed, long", |width| memory_over_time(&reserving, None, width));
    // Where the curve passes the capacity as well, the request is what is told.
    reserving.ranks[0].capacity_bytes = gib(48.0);
    let figure = check("failed and full", |width| memory_over_time(&reserving, None, width));
    assert!(!words(&figure).iter().any(|text| text.contains("exceeded at")), "{:?}", words(&figure));
}

#[test]
fn a_far_capacity_is_told_in_words() {
    let figure = check("far", |width| memory_over_time(&memory(0.35, 12, 5.0, 640.0), None, width));
    assert_says(&figure, &["peak 40.5 GiB; capacity 640 GiB, far above"]);
}

#[test]
fn the_fullest_rank_is_shown_unless_one_is_asked_for() {
    let mut two = memory(0.35, 4, 31.0, 80.0);
    let mut emptier = memory(0.35, 4, 2.0, 80.0).ranks.remove(0);
    emptier.rank = 7;
    two.ranks.insert(0, emptier);
    let fullest = memory_over_time(&two, None, Width::OneColumn).unwrap();
    assert!(fullest.svg.contains("<title>Memory of rank 3 over"));
    assert_eq!(fullest.name, "memory_over_time");
    let asked = memory_over_time(&two, Some(7), Width::OneColumn).unwrap();
    assert_eq!(asked.name, "memory_over_time_rank_7");
    let error = memory_over_time(&two, Some(5), Width::OneColumn).unwrap_err();
    assert_eq!(error.to_string(), "rank 5 is not in the timeline; it holds ranks 7, 3");
}

#[test]
fn one_and_twelve_variants_are_tidy() {
    let long = "ein sehr langer Name: Überläufer — モデル 模型 модель <&\"'> with a \u{7} and no end in sight, none at all";
    for count in [1, 2, 12] {
        let reports: Vec<Report> = (0..count)
            .map(|i| match i % 4 {
                0 => report(&format!("{long} {i}"), 0.1 * f64::from(i + 1), 3.0 * f64::from(i + 1), 24.0),
                1 => report(&format!("v{i}"), 1e-4, 0.01, 24.0),
                2 => {
                    out_of_memory(&format!("variant_number_{i}_without_spaces_in_its_name"), None, 25.0, 24.0)
                }
                _ => infeasible(&format!("variant {i}")),
            })
            .collect();
        check(&format!("breakdown of {count}"), |width| breakdown(&reports, width));
        let figure = check(&format!("{count} variants"), |width| variant_comparison(&reports, width));
        if count == 12 {
            assert_says(&figure, &["infeasible", "out of memory"]);
        }
    }
}

#[test]
fn variants_of_all_sizes_keep_their_values_readable() {
    for share in 1..=20 {
        let fits = 24.0 * f64::from(share) / 20.0;
        let reports = [
            report("a", 0.3, fits, 24.0),
            out_of_memory("b", Some(0.1), 24.0 + fits, 24.0),
            report("c", 0.02, 9.0, 24.0),
        ];
        check(&format!("peak of {fits} GiB"), |width| variant_comparison(&reports, width));
        let mut other = reports.clone();
        other[2].peak_memory.capacity_bytes = (16.0 * GIB) as u64;
        let figure =
            check(&format!("capacities differ, {fits} GiB"), |width| variant_comparison(&other, width));
        assert_says(&figure, &["dashed: capacity"]);
    }
}

#[test]
fn reports_without_any_time_are_drawn() {
    let zero = [report("nothing", 0.0, 0.0, 0.0), infeasible("impossible")];
    let figure = check("zero breakdown", |width| breakdown(&zero, width));
    assert_says(&figure, &["0", "infeasible", "Time per step (s)"]);
    check("zero variants", |width| variant_comparison(&zero, width));
    let only = [infeasible("impossible")];
    check("only infeasible", |width| breakdown(&only, width));
    check("only infeasible variants", |width| variant_comparison(&only, width));
}

#[test]
fn the_breakdown_names_the_parts_that_occur() {
    let figure = check("variants", |width| breakdown(&variants(), width));
    assert_says(
        &figure,
        &[
            "compute",
            "exposed communication",
            "pipeline bubble",
            "host",
            "optimizer",
            "other",
            "infeasible",
            "231, out of memory",
        ],
    );
    for absent in ["data loading", "offload"] {
        assert!(!words(&figure).contains(absent));
    }
}

#[test]
fn names_are_escaped() {
    let name = "<script>&\"'";
    let figure = breakdown(&[report(name, 1.0, 1.0, 2.0)], Width::TwoColumn).unwrap();
    assert!(!figure.svg.contains("<script>"));
    assert!(words(&figure).contains(name), "{:?}", words(&figure));
}

#[test]
fn nothing_to_draw_is_an_error() {
    let empty = timeline(1.0, vec![rank(0, 0, &["compute"], Vec::new())]);
    let kinds = [
        pipeline_gantt(&empty, Width::OneColumn),
        memory_over_time(&empty, None, Width::OneColumn),
        memory_over_time(&timeline(1.0, Vec::new()), None, Width::OneColumn),
        breakdown(&[], Width::OneColumn),
        variant_comparison(&[], Width::OneColumn),
    ];
    for result in kinds {
        assert!(matches!(result, Err(PlotError::Empty(_))), "{result:?}");
    }
}

#[test]
fn damaged_results_are_errors() {
    let damaged = |change: &dyn Fn(&mut Timeline)| {
        let mut timeline = pipeline(2, 2, 0.01, false);
        timeline.ranks[0].memory = memory(0.1, 2, 1.0, 2.0).ranks[0].memory.clone();
        timeline.ranks[0].memory_categories = memory(0.1, 2, 1.0, 2.0).ranks[0].memory_categories.clone();
        change(&mut timeline);
        pipeline_gantt(&timeline, Width::OneColumn)
            .and_then(|_| memory_over_time(&timeline, None, Width::OneColumn))
    };
    assert!(damaged(&|_| {}).is_ok());
    let changes: [&dyn Fn(&mut Timeline); 7] = [
        &|t| t.step_time_s = f64::NAN,
        &|t| t.ranks[0].spans[0].start_s = f64::INFINITY,
        &|t| t.ranks[0].spans[0].end_s = -1.0,
        &|t| t.ranks[0].spans[0].start_s = 1e9,
        &|t| t.ranks[1].spans[0].stream = 9,
        &|t| t.ranks[0].memory[1].bytes.clear(),
        &|t| t.ranks[0].memory[1].at_s = 99.0,
    ];
    for (i, change) in changes.iter().enumerate() {
        assert!(matches!(damaged(change), Err(PlotError::Damaged(_))), "change {i}");
    }
    let mut bad = report("bad", 1.0, 1.0, 1.0);
    bad.time_breakdown_s.host = f64::NAN;
    assert!(matches!(breakdown(&[bad], Width::OneColumn), Err(PlotError::Damaged(_))));
}

/// One figure of each kind.
fn one_of_each(width: Width) -> [Figure; 5] {
    [
        pipeline_gantt(&pipeline(4, 8, 0.01, true), width),
        memory_over_time(&memory(0.35, 24, 31.0, 48.0), None, width),
        breakdown(&variants(), width),
        variant_comparison(&variants(), width),
        parity(&validation(3, 20, 0.1, 1.3), width),
    ]
    .map(Result::unwrap)
}

#[test]
fn parity_is_tidy_for_any_number_of_suites_and_any_range() {
    for (suites, runs, shortest, growth) in
        [(1, 1, 1.0, 1.0), (2, 40, 1e-6, 1.9), (3, 5, 123.0, 1.02), (5, 9, 0.02, 4.0), (12, 30, 3e-3, 1.5)]
    {
        let what = format!("{suites} suites of {runs} runs from {shortest} s");
        let figure = check(&what, |width| parity(&validation(suites, runs, shortest, growth), width));
        assert_says(&figure, &["suite-number-0", "within 10 %", "Measured step time (s)"]);
    }
    let figure = parity(&validation(1, 9, 1.0, 2.0), Width::TwoColumn).unwrap();
    assert_says(&figure, &["H100", "Quadro RTX 8000", "GB200"]);
}

#[test]
fn parity_without_pairs_is_refused_and_equal_rows_are_drawn_once() {
    let mut empty = validation(1, 3, 1.0, 2.0);
    empty.rows.iter_mut().for_each(|row| row.predicted_step_time_s = None);
    assert!(matches!(parity(&empty, Width::TwoColumn), Err(PlotError::Empty(_))));
    let mut damaged = validation(1, 3, 1.0, 2.0);
    damaged.rows[1].measured_step_time_s = Some(0.0);
    assert!(matches!(parity(&damaged, Width::TwoColumn), Err(PlotError::Damaged(_))));
    // Eleven ratios on nine GPUs: points at the same place are drawn once.
    let many = parity(&validation(1, 5000, 1.0, 1.0), Width::TwoColumn).unwrap();
    assert!(many.svg.len() < 40_000, "{} bytes", many.svg.len());
}

#[test]
fn the_same_result_gives_the_same_bytes() {
    for width in Width::ALL {
        for (first, second) in one_of_each(width).iter().zip(&one_of_each(width)) {
            for format in Format::ALL {
                let (a, b) = (first.bytes(format).unwrap(), second.bytes(format).unwrap());
                assert!(a == b, "{} as {format}", first.name);
            }
        }
    }
}

#[test]
fn figures_carry_the_name_of_their_kind() {
    let names = one_of_each(Width::OneColumn).map(|figure| figure.name);
    assert_eq!(names, FigureKind::ALL.map(|kind| kind.name().to_owned()));
}

/// Big-endian number in a PNG.
fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn pictures_have_300_dots_an_inch_and_say_so() {
    for (width, dots) in [(Width::OneColumn, 999), (Width::TwoColumn, 2100)] {
        for figure in one_of_each(width) {
            let png = figure.bytes(Format::Png).unwrap();
            assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
            assert_eq!(number(&png, 16), dots);
            let height = parse(&figure.svg, Format::Svg).unwrap().size().height();
            assert_eq!(number(&png, 20), (height / 96.0 * 300.0).round() as u32);
            let at = png.windows(4).position(|chunk| chunk == b"pHYs").expect("size of a dot");
            assert_eq!(number(&png, at + 4), 11_811, "dots a metre: 300 / 0.0254");
        }
    }
}

#[test]
fn documents_are_pdf_of_the_drawings_size() {
    for figure in one_of_each(Width::OneColumn) {
        let pdf = figure.bytes(Format::Pdf).unwrap();
        assert!(pdf.starts_with(b"%PDF"));
        let text = String::from_utf8_lossy(&pdf).into_owned();
        assert!(text.contains("/MediaBox"), "one page with a size");
        assert!(text.contains("LiberationSans"), "the font is in the file");
    }
}

#[test]
fn unknown_formats_are_told_what_is_allowed() {
    let error = "tiff".parse::<Format>().unwrap_err();
    assert_eq!(error.to_string(), "unknown figure format `tiff`; allowed: svg, png, pdf");
    assert_eq!(" PDF".parse::<Format>(), Ok(Format::Pdf));
    assert_eq!("two_column".parse::<Width>(), Ok(Width::TwoColumn));
    assert_eq!("pipeline-gantt".parse::<FigureKind>(), Ok(FigureKind::PipelineGantt));
}

/// The gallery's figures of tables, each with its table.
fn gallery() -> Vec<(TableSpec, Table)> {
    #[derive(serde::Deserialize)]
    struct Gallery {
        figure: Vec<TableSpec>,
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/figures");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).expect("a file of the gallery");
    let gallery: Gallery = toml::from_str(&read("gallery.toml")).expect("a manifest");
    let table = |spec: TableSpec| {
        let table = Table::from_csv(&read(&spec.data)).expect("a table");
        (spec, table)
    };
    gallery.figure.into_iter().map(table).collect()
}

fn of_gallery(name: &str, width: Width) -> Figure {
    let (spec, table) = gallery().into_iter().find(|(spec, _)| spec.name == name).expect("in the gallery");
    TableSpec { width, ..spec }.draw(&table).expect("drawn")
}

#[test]
fn every_kind_of_table_figure_is_tidy_and_the_same_every_time() {
    let kinds: BTreeSet<&str> = gallery().iter().map(|(spec, _)| spec.kind.name()).collect();
    assert_eq!(kinds.len(), TableKind::ALL.len(), "{kinds:?}");
    for (spec, table) in gallery() {
        let draw = |width| TableSpec { width, ..spec.clone() }.draw(&table);
        let figure = check(&spec.name, draw);
        let again = draw(Width::OneColumn).unwrap();
        assert_eq!(figure, again, "{}", spec.name);
        assert_eq!(figure.bytes(Format::Pdf).unwrap(), again.bytes(Format::Pdf).unwrap(), "{}", spec.name);
    }
}

#[test]
fn scaling_names_its_series_and_its_ideal() {
    let figure = of_gallery("strong_scaling", Width::OneColumn);
    assert_says(
        &figure,
        &[
            "ZeRO 1",
            "ZeRO 3",
            "dashed: ideal",
            "1 point ran out of memory",
            "GPUs",
            "Step time (s)",
            "8",
            "512",
        ],
    );
}

#[test]
fn heat_maps_say_where_memory_ran_out() {
    let figure = of_gallery("heat_map", Width::TwoColumn);
    assert_says(&figure, &["OOM", "out of memory", "Tensor", "Micro batch size"]);
}

#[test]
fn table_figures_say_what_is_missing() {
    let draw = |spec: &str, table: &str| {
        let spec: TableSpec = toml::from_str(&format!("name = \"f\"\n{spec}")).unwrap();
        spec.draw(&Table::from_csv(table).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(
        draw("kind = \"scaling\"\nx = \"gpus\"", "gpus,t_s\n1,2\n"),
        "figures of kind `scaling` need `y`, the name of a column"
    );
    assert_eq!(
        draw("kind = \"cdf\"\nx = \"time_s\"", "gpus,t_s\n1,2\n"),
        "unknown column `time_s`; allowed: gpus, t_s"
    );
    assert_eq!(
        draw("kind = \"scaling\"\nx = \"gpus\"\ny = \"t_s\"", "gpus,t_s\n0,2\n"),
        "the saved result is damaged: 0 cannot stand on the log2 axis of `Gpus`"
    );
    let twice = "kind = \"heat_map\"\nx = \"a\"\ny = \"b\"\nvalue = \"c\"";
    assert!(draw(twice, "a,b,c\n1,1,1\n1,1,2\n").contains("two rows have `a` = 1 and `b` = 1"));
    let error = toml::from_str::<TableSpec>("name = \"f\"\nkind = \"pie\"").unwrap_err().to_string();
    assert!(error.contains("unknown kind of figure `pie`; allowed: scaling, lines, pareto"), "{error}");
}

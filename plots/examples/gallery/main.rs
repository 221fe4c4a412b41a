//! Draws one figure of every kind from made-up results, in both widths and all formats:
//! `cargo run -p steptime-plots --example gallery -- DIRECTORY`. With a second folder the made-up results are written there, in
//! the form in which runs are saved: `docs/figures/gallery/results` holds them.

mod synthetic;

use std::error::Error;
use std::path::Path;

use steptime_plots::{Figure, Format, PlotError, Width};

type Drawing = (&'static str, Box<dyn Fn(Width) -> Result<Figure, PlotError>>);

fn drawings() -> Vec<Drawing> {
    let gantt = |timeline: steptime_scenarios::Timeline| {
        Box::new(move |width| steptime_plots::pipeline_gantt(&timeline, width)) as Box<dyn Fn(Width) -> _>
    };
    let memory = |timeline: steptime_scenarios::Timeline| {
        Box::new(move |width| steptime_plots::memory_over_time(&timeline, None, width))
            as Box<dyn Fn(Width) -> _>
    };
    let mut mixed = synthetic::pipeline(5, 6, 0.021, false);
    for (rank, device) in
        mixed.ranks.iter_mut().zip(["bus 1", "car 2", "truck 3", "car 4", "roadside unit 5"])
    {
        device.clone_into(&mut rank.device);
    }
    let one = vec![synthetic::report("llama3-8b on 8 H100, ZeRO 3", 1.93, 61.0, 80.0)];
    vec![
        ("gantt_1f1b", gantt(synthetic::pipeline(4, 8, 0.0123, false))),
        ("gantt_recompute", gantt(synthetic::pipeline(4, 6, 0.0123, true))),
        ("gantt_64_stages", gantt(synthetic::pipeline(64, 128, 0.0031, false))),
        ("gantt_16_stages", gantt(synthetic::pipeline(16, 32, 0.0031, false))),
        ("gantt_data_parallel", gantt(synthetic::data_parallel(24))),
        ("gantt_vehicles", gantt(mixed)),
        ("memory", memory(synthetic::memory(0.352, 24, 31.0, 80.0))),
        ("memory_exceeded", memory(synthetic::memory(0.352, 24, 31.0, 48.0))),
        ("memory_crowded", memory(synthetic::memory(0.352, 900, 31.0, 64.0))),
        ("memory_far", memory(synthetic::memory(41.0, 12, 5.0, 640.0))),
        ("breakdown", Box::new(|width| steptime_plots::breakdown(&synthetic::variants(), width))),
        ("breakdown_one", Box::new(move |width| steptime_plots::breakdown(&one, width))),
        ("variants", Box::new(|width| steptime_plots::variant_comparison(&synthetic::variants(), width))),
        ("parity", Box::new(|width| steptime_plots::parity(&synthetic::validation(7, 60, 0.01, 1.2), width))),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: gallery DIRECTORY")?;
    std::fs::create_dir_all(&directory)?;
    for (name, draw) in drawings() {
        for width in [Width::OneColumn, Width::TwoColumn] {
            let figure = draw(width)?;
            for format in Format::ALL {
                let file = Path::new(&directory).join(format!("{name}_{width}.{format}"));
                std::fs::write(file, figure.bytes(format)?)?;
            }
        }
    }
    if let Some(results) = std::env::args().nth(2) {
        saved(Path::new(&results))?;
    }
    Ok(())
}

/// Writes made-up results as runs and validations are saved.
fn saved(folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut failing = synthetic::memory(0.352, 24, 31.0, 48.0);
    failing.ranks[0].failed_request = Some(steptime_scenarios::FailedRequest {
        step: 1,
        at_s: 0.14,
        tensor: "block.3 mlp.fc1.output".to_owned(),
        requested_bytes: 9 << 30,
        needed_bytes: 49 << 30,
    });
    let timelines = [Some(synthetic::pipeline(4, 8, 0.0123, true)), Some(failing), None, None, None];
    for (number, (report, timeline)) in synthetic::variants().iter().zip(timelines).enumerate() {
        let own = folder.join(format!("run-{number}"));
        std::fs::create_dir_all(&own)?;
        std::fs::write(own.join("report.json"), serde_json::to_string(report)?)?;
        if let Some(timeline) = timeline {
            std::fs::write(own.join("timeline.json"), serde_json::to_string(&timeline)?)?;
        }
    }
    let validation = synthetic::validation(5, 24, 0.01, 1.2);
    std::fs::write(folder.join("validation.json"), serde_json::to_string(&validation)?)?;
    Ok(())
}

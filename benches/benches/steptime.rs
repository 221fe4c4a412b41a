//! All benchmarks, in one binary: `cargo bench -p steptime-benches`.

mod engine;
mod jobs;

use std::time::Duration;

use criterion::Criterion;
use steptime_benches::SetUp;

fn main() -> SetUp<()> {
    // Options of the command line come last and win.
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots()
        .configure_from_args();
    engine::kernels(&mut criterion)?;
    engine::event_queues(&mut criterion);
    engine::flows(&mut criterion)?;
    engine::allocators(&mut criterion)?;
    jobs::gpt3(&mut criterion)?;
    jobs::scenarios(&mut criterion);
    criterion.final_summary();
    Ok(())
}

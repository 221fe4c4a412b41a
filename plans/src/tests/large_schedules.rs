//! Written schedules whose size is out of proportion with their text.

use crate::{Schedule, ScheduleError};

/// A step of 65,536 micro-batches over 65,536 chunks would take 100 GB to check pass by pass.
#[test]
fn a_pass_with_a_high_number_takes_no_memory() {
    for text in ["F65535.65535 B65535.65535\n", "order = both\nF65535.65535 B65535.65535\n"] {
        let schedule = Schedule::parse(text).unwrap();
        let Err(ScheduleError::Count { stage: 0, count: 0, .. }) = schedule.check() else {
            panic!("{:?}", schedule.check());
        };
    }
    let gap = (0..400).filter(|it| *it != 7).map(|it| format!("F{it} B{it} ")).collect::<Vec<_>>().concat();
    let missing = Schedule::parse(&format!("{gap}F9999 B9999")).unwrap().check();
    let Err(ScheduleError::Count { stage: 0, action, count: 0 }) = missing else { panic!("{missing:?}") };
    assert_eq!(action, "forward of micro-batch 7");
}

/// Looking through all passes of a stage for each of its chunks would take 65,536 squared looks.
#[test]
fn many_chunks_of_one_micro_batch_are_checked() {
    let chunks = 0..=u32::from(u16::MAX);
    let line: String = chunks
        .clone()
        .map(|it| format!("F0.{it} "))
        .chain(chunks.rev().map(|it| format!("B0.{it} ")))
        .collect();
    Schedule::parse(&line).unwrap().check().unwrap();
}

#[test]
fn more_stages_than_any_pipeline_has_are_refused() {
    let text = "F0 B0\n".repeat(4096);
    Schedule::parse(&text).unwrap().check().unwrap();
    let error = Schedule::parse(&format!("{text}\nF0 B0\n")).unwrap_err().to_string();
    assert_eq!(error, "line 4098: found more than 4096 stages, allowed: up to 4096");
}

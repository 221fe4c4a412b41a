//! Idle time and activations of every schedule as published, for passes of equal lengths, over p = 2..16 and m = p..8p.
//!
//! Units are passes of one chunk: forward 1, gradients of inputs 1, gradients of weights 1; a stage's idle time is what lies
//! between its first pass and its last. What papers give for whole stages is multiplied by the chunks of a stage. Papers give
//! these formulas in sections and tables, which are named where they could be looked up; equations of theirs that have numbers
//! are about other things.
//!
//! | schedule | idle of the stage that waits longest | most passes held | from | exact for |
//! | --- | --- | --- | --- | --- |
//! | GPipe | `3 (p - 1)` | `m` | Huang et al. 2019, section 2.3 | all |
//! | 1F1B | `3 (p - 1)` | `p` | Narayanan et al. 2021, section 2.2.1 | `m >= p` |
//! | interleaved, `v` chunks | `3 (p - 1)` | `v p + p - 1` | the same, section 2.2.2; Korthikanti et al. 2022, section 4.2.3 | `m = k p` |
//! | looped breadth-first | `3 (p - 1)` | `v m` | Lamy-Poirier 2023: interleaving's bubble, by its definition all micro-batches | `m >= p` |
//! | ZB-H1 | `p - 1` | `p` | Qi et al. 2024 (Zero Bubble), section 2.1 and table 2: `(p - 1)(F + B - W)`, `p` | `m >= p` |
//! | ZB-H2 | 0 | `2 p - 1` | the same, section 2.2 and table 2: `(p - 1)(F + B - 2 W)`, `2 p - 1` | `m >= 2 p - 1`; below, each missing micro-batch leaves a gap of one pass |
//! | ZB-V | 0 | `2 p` | the same, and the table of its authors' demonstration: no bubble, 1F1B's memory | `m >= 2 p - 1`; below, as ZB-H2, of two chunks |
//! | V-Half | at most 2/3 of 1F1B's, and a ninth more than about 1/2 of `3 p` | `2 floor((p + 2) / 2)`, or one more | Qi et al. 2024 (Controllable Memory), section 4; the table of its authors' code: about `p / 2 m`, `floor((p + 2) / 2)` | bounds |
//! | V-Min | at most 3/4 of 1F1B's, and 2/3 of `3 p` | `2 floor((p + 4) / 3)` | the same: about `2 p / 3 m`, `floor((p + 4) / 3)` | a bound; all |
//! | DualPipe | `(p/2 - 1) (F&B + B - 3 W)` | `p + 1` | DeepSeek-V3, table 2 | even `p`, even `m >= 2 p` |
//! | DualPipeV | the same of `2 p` stages | `2 p + 1` | the table of DeepSeek's DualPipe, where devices are half as many as stages | `m >= 2 p` |
//! | Hanayo, `w` waves | a bubble of 1F1B's forward and backward without the wait for the last, over `w`, for each `p` micro-batches | `2 w p` | Liu et al. 2023 (its waves; the formula is of this program): falls with the waves | `w = 1`; more waves within an eighth |

use crate::schedule::{PassCost, Schedule, ScheduleKind, StageTimes};

/// What a formula says: a value, or the ends of an interval.
type Says = fn(u64, u64, u64) -> [u64; 2];

/// A line of the table above; formulas take stages, micro-batches and chunks.
struct Line {
    kind: ScheduleKind,
    chunks: u32,
    /// Whether the schedule can have so many stages and micro-batches.
    has: fn(u64, u64) -> bool,
    idle: Says,
    held: Says,
    /// What a joined forward and backward take.
    pair: Option<u64>,
}

fn exactly(value: u64) -> [u64; 2] {
    [value, value]
}

fn all(_: u64, _: u64) -> bool {
    true
}

const EVERY: Line = Line {
    kind: ScheduleKind::GPipe,
    chunks: 1,
    has: all,
    idle: |p, _, _| exactly(3 * (p - 1)),
    held: |_, m, _| exactly(m),
    pair: None,
};

fn table() -> Vec<Line> {
    use ScheduleKind as Kind;
    let interleaved = |chunks| Line {
        kind: Kind::OneForwardOneBackward,
        chunks,
        has: |p, m| m.is_multiple_of(p),
        held: |p, m, v| exactly((v * p + p - 1).min(m * v)),
        ..EVERY
    };
    let looped =
        |chunks| Line { kind: Kind::LoopedBreadthFirst, chunks, held: |_, m, v| exactly(m * v), ..EVERY };
    let waves = |chunks| Line {
        kind: Kind::Hanayo,
        chunks,
        has: |p, m| m.is_multiple_of(p),
        idle: |p, m, v| {
            // In whole stages 2 (p - 1) / w for each p micro-batches, w = v / 2: 4 (p - 1) chunks.
            let least = 4 * (p - 1) * (m / p);
            if v == 2 { exactly(least) } else { [least, least + least / 8] }
        },
        held: |p, _, v| exactly(v * p),
        ..EVERY
    };
    vec![
        EVERY,
        Line { kind: Kind::OneForwardOneBackward, held: |p, _, _| exactly(p), ..EVERY },
        interleaved(2),
        interleaved(3),
        looped(2),
        looped(4),
        Line {
            kind: Kind::ZeroBubbleH1,
            idle: |p, _, _| exactly(p - 1),
            held: |p, _, _| exactly(p),
            ..EVERY
        },
        Line {
            kind: Kind::ZeroBubbleH2,
            idle: |p, m, _| exactly((2 * p - 1).saturating_sub(m)),
            held: |p, m, _| exactly(m.min(2 * p - 1)),
            ..EVERY
        },
        Line {
            kind: Kind::ZeroBubbleV,
            chunks: 2,
            idle: |p, m, v| exactly(v * (2 * p - 1).saturating_sub(m)),
            held: |p, _, v| exactly(v * p),
            ..EVERY
        },
        Line {
            kind: Kind::VHalf,
            chunks: 2,
            idle: |p, _, v| [0, (2 * v * (p - 1)).min(10 * v * p / 6)],
            held: |p, _, _| [2 * (p / 2 + 1), 2 * (p / 2 + 1) + 1],
            ..EVERY
        },
        Line {
            kind: Kind::VMin,
            chunks: 2,
            idle: |p, _, v| [0, (9 * v * (p - 1) / 4).min(2 * v * p)],
            held: |p, _, _| exactly(2 * ((p + 4) / 3)),
            ..EVERY
        },
        // F&B = 3, B = 2 and W = 1 leave 2 for each of the stages but one.
        Line {
            kind: Kind::DualPipe,
            chunks: 2,
            has: |p, m| p.is_multiple_of(2) && m.is_multiple_of(2) && m >= 2 * p,
            idle: |p, _, _| exactly((p / 2 - 1) * (3 + 2 - 3)),
            held: |p, _, _| exactly(p + 1),
            pair: Some(3),
        },
        Line {
            kind: Kind::DualPipeV,
            chunks: 2,
            has: |p, m| m >= 2 * p,
            idle: |p, _, _| exactly((p - 1) * (3 + 2 - 3)),
            held: |p, _, _| exactly(2 * p + 1),
            pair: Some(3),
        },
        waves(2),
        waves(4),
        waves(8),
    ]
}

/// Longest idle time of a stage, and most passes that one holds.
fn played(line: &Line, p: u64, m: u64) -> [u64; 2] {
    let schedule = Schedule::named(line.kind, p as usize, line.chunks, m as u32).expect("a possible size");
    schedule.check().expect("legal");
    let timed = schedule.timed_in_pairs(|_| PassCost::EQUAL, 0, line.pair);
    let passes: usize = timed.iter().map(Vec::len).sum();
    assert_eq!(
        passes,
        schedule.stages.iter().map(Vec::len).sum::<usize>(),
        "{:?} runs to its end",
        line.kind
    );
    let idle = timed.iter().map(|passes| StageTimes::of(passes).idle()).max().unwrap_or(0);
    let held = (0..p as usize).map(|stage| schedule.in_flight(stage)).max().unwrap_or(0);
    [idle, held]
}

#[test]
#[cfg_attr(debug_assertions, ignore = "15,000 schedules")]
fn schedules_idle_and_hold_what_their_papers_say() {
    let mut met = vec![0; table().len()];
    for (number, line) in table().iter().enumerate() {
        for p in 2..=16 {
            for m in (p..=8 * p).filter(|&m| (line.has)(p, m)) {
                let found = played(line, p, m);
                let says = [line.idle, line.held].map(|says| says(p, m, u64::from(line.chunks)));
                for (what, (found, [least, most])) in
                    ["idle", "passes held"].iter().zip(found.into_iter().zip(says))
                {
                    assert!(
                        (least..=most).contains(&found),
                        "{:?} of {} chunks, p = {p}, m = {m}: {what} {found}, the paper says {least} to {most}",
                        line.kind,
                        line.chunks
                    );
                }
                met[number] += 1;
            }
        }
    }
    assert!(met.iter().all(|&sizes| sizes >= 100), "{met:?}");
}

/// Joined passes of DualPipe never leave stages waiting for each other, however long the pipeline.
#[test]
fn pairs_run_to_the_end_in_long_pipelines() {
    for p in [24, 64, 128] {
        for line in table().iter().filter(|line| line.pair.is_some()) {
            assert_eq!(played(line, p, 2 * p), [0, 1].map(|it| [line.idle, line.held][it](p, 2 * p, 2)[0]));
        }
    }
}

//! Tests of vehicle plans. Times are those of the source's own runs (`flad/plot/bar.py`, batch 32,
//! utilization 0.5, overhead 1.2).

mod exact;
mod fixtures;
mod golden;
mod greedy;
mod plan;
mod replay;

//! Tests of lowered plans against closed forms.

mod allocator;
mod bubbles;
mod fetch;
mod fixtures;
mod folding;
mod groups;
mod hooks;
mod large_schedules;
mod library;
mod memory;
mod norms;
mod offload;
mod pairs;
mod pieces;
mod published_bubbles;
mod random_plans;
mod recompute;
mod repeats;
mod sharding;
mod topologies;
mod traffic;
mod uneven;
mod updates;
mod variation;
mod zero_bubble;

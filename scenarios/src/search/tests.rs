//! Bounds against play, plan by plan.

use steptime_plans::layer_times;

use super::bound::{Machine, layer_counts};
use super::section::SearchSection;
use super::space::candidates;
use crate::draft::Draft;
use crate::estimate::in_part;
use crate::files::NoFiles;

/// Every plan of the space of a scenario: its step is no shorter, and its fullest rank no emptier, than the bounds say. Returns how many
/// plans were played, and the largest share of the memory that a bound knew.
fn bounds_hold(model: &str, workload: &str, search: &str) -> (usize, f64) {
    let text = format!(
        "[model]\nname = \"{model}\"\nsequence_length = 1024\n[cluster]\nname = \"dgx-h100\"\n[workload]\n\
         global_batch_size = 16\nmicro_batch_size = 1\nprecision = \"bf16\"\n{workload}\n[search]\n{search}\n"
    );
    let draft = Draft::read("case", &text, &[]).unwrap();
    let (plain, section) = SearchSection::take(&draft).unwrap();
    let base = plain.scenario(&NoFiles).unwrap();
    let section = section.checked(&base).unwrap();
    let counts = layer_counts(&base.model);
    let (mut played, mut share) = (0, 0.0_f64);
    for candidate in candidates(&base, &section).unwrap() {
        let (cluster, plan, workload) = candidate.apply(&base).unwrap();
        let Ok(times) = layer_times(&base.model, &cluster, &plan, &workload) else { continue };
        let machine =
            Machine { scenario: &base, cluster: &cluster, plan: &plan, workload: &workload, counts: &counts };
        let Some(bound) = machine.bound(&times) else { continue };
        let Ok(report) = candidate.scenario(&base).and_then(|scenario| in_part(&scenario)) else { continue };
        let (step, peak) = (report.step_time_s.unwrap(), report.peak_memory.allocated_bytes);
        let keys = candidate.set();
        assert!(bound.seconds <= step, "{model} {keys:?}: {} s against {step} s", bound.seconds);
        assert!(bound.bytes <= peak, "{model} {keys:?}: {} bytes against {peak}", bound.bytes);
        assert!(bound.states <= bound.bytes);
        share = share.max(bound.bytes as f64 / peak as f64);
        played += 1;
    }
    (played, share)
}

#[test]
fn no_play_undercuts_a_bound() {
    let narrow = "tensor = [1, 2]\nmicro_batch_size = [1, 2]\nzero_stage = [0, 1, 3]";
    let (played, share) = bounds_hold("gpt2", "", narrow);
    assert!(played > 80, "{played}");
    // The bound is of use: of some plan it knows most.
    assert!(share > 0.75, "{share}");
    let all = "tensor = [1]\nmicro_batch_size = [1]\nzero_stage = [1]\nschedule = [\"1f1b\", \"gpipe\", \"zb-h1\", \
               \"zb-h2\", \"zb-v\", \"v-half\", \"looped-bfs\", \"hanayo\", \"dualpipe\"]";
    let (played, _) = bounds_hold("gpt2", "attention = \"eager\"", all);
    assert!(played > 30, "{played}");
    let shared = "tensor = [1, 2]\npipeline = [1, 2]\ncontext = [1, 2]\nmicro_batch_size = [1]\nzero_stage = [1, 3]\n\
                  offload = [\"none\", \"optimizer\", \"parameters\"]";
    let (played, _) = bounds_hold("llama3.2-1b", "", shared);
    assert!(played > 20, "{played}");
}

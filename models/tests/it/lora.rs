//! Low-rank adapters: counts as PEFT prints them, and what freezing the model saves.

use steptime_models::{
    AttentionKind, Dtype, Kernel, Lora, Model, ModelError, Operation, Overrides, Trainable,
};

use crate::{model, shape};

fn lora(rank: u64, targets: &[&str]) -> Trainable {
    let targets = targets.iter().map(|&target| target.to_owned()).collect();
    Trainable::Lora(Lora { rank, targets, dropout: true })
}

fn adapted(name: &str, rank: u64, targets: &[&str]) -> Model {
    model(name).with_trainable(lora(rank, targets)).unwrap()
}

/// FLOPs of the linear layers' products.
fn products(operations: &[Operation]) -> u64 {
    let gemm = |operation: &&Operation| matches!(operation.kernel, Kernel::Gemm { .. });
    operations.iter().filter(gemm).map(|operation| operation.kernel.flops().0).sum()
}

#[test]
fn counts_are_those_that_peft_prints() {
    // "trainable params: 4,194,304 || all params: 6,742,609,920": Llama 2 7B, r = 8 on q_proj and v_proj.
    let llama = adapted("llama2-7b", 8, &["q_proj", "v_proj"]);
    assert_eq!((llama.trainable_parameters(), llama.parameters()), (4_194_304, 6_742_609_920));
    // Every linear layer of a block: r (h + h) for q and o, r (h + kv) for k and v, r (h + f) three times.
    let all = adapted("llama3-8b", 16, &[Trainable::ALL_LINEAR]);
    let block = 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14_336));
    assert_eq!(all.trainable_parameters(), 32 * block);
}

#[test]
fn a_frozen_model_computes_no_weight_gradients() {
    let shape = shape(1, 512, Dtype::Bf16, AttentionKind::Flash);
    let (whole, part) = (model("llama2-7b"), adapted("llama2-7b", 8, &["q_proj", "v_proj"]));
    let (whole, middle) = (whole.work(5, &shape), part.work(5, &shape));
    // Backward of the frozen layers is half: gradients of the inputs only. The adapters add three products of rank 8
    // for each of their two.
    let adapters = 2 * 2 * 512 * 8 * (4096 + 4096);
    assert_eq!(products(&whole.backward), 2 * products(&whole.forward));
    assert_eq!(products(&middle.forward), products(&whole.forward) + adapters);
    assert_eq!(products(&middle.backward), products(&whole.forward) + 2 * adapters);
    assert!(middle.saved_bytes() < whole.saved_bytes());
}

#[test]
fn nothing_is_kept_before_the_first_adapter() {
    let shape = shape(1, 512, Dtype::Bf16, AttentionKind::Flash);
    let part = adapted("llama2-7b", 8, &["down_proj"]);
    let first = part.work(1, &shape);
    let names: Vec<_> = first.saved.iter().map(|tensor| tensor.name).collect();
    // Not even the mask: the adapter's input needs no gradient either.
    assert_eq!(names, ["lora.dropout.output", "lora.a.output"]);
    assert!(part.work(0, &shape).backward.is_empty());
    // The second block's input needs a gradient: it is another kind of layer.
    assert_ne!(part.layers[1].signature, part.layers[2].signature);
    assert_eq!(part.layers[2].signature, part.layers[32].signature);
}

#[test]
fn a_target_that_is_no_linear_layer_is_refused() {
    let error = model("gpt2").with_trainable(lora(8, &["q_proj"])).unwrap_err();
    let ModelError::NoSuchLinear { target, known } = &error else { panic!("{error}") };
    assert_eq!(target, "q_proj");
    assert!(known.iter().any(|name| name == "query_key_value"), "{known:?}");
    assert!(Model::from_catalogue("gpt2", &Overrides::none()).is_ok());
}

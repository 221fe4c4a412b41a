//! Formats under `torch.autocast`: conversions, what they keep, and that layers agree on what flows between them.

use steptime_models::{
    AttentionKind, Dtype, FieldValue, Formats, Kernel, LayerWork, Model, Operation, Overrides, WorkShape,
    catalogue_names,
};

use crate::{model, shape};

/// Parameters in 32 bits, norms as autocast lists them.
const PLAIN: Formats = Formats::Autocast { parameters: Dtype::Fp32, low_precision_norms: false };

fn autocast(formats: Formats, attention: AttentionKind) -> WorkShape {
    WorkShape { formats, ..shape(2, 128, Dtype::Bf16, attention) }
}

fn gpt(hidden: i64, heads: i64) -> Model {
    let mut fields = Overrides::none().with("hidden", hidden).with("heads", heads);
    fields.set("dropout", FieldValue::Bool(false));
    Model::from_catalogue("gpt3-175b", &fields).unwrap()
}

fn saved(work: &LayerWork, wanted: impl Fn(&str) -> bool) -> u64 {
    work.saved.iter().filter(|it| wanted(it.name)).map(|it| it.bytes.0).sum()
}

fn ending(operations: &[Operation], suffix: &str) -> usize {
    operations.iter().filter(|operation| operation.name.ends_with(suffix)).count()
}

#[test]
fn a_block_of_gpt_by_hand() {
    let (h, a) = (256, 4);
    let work = gpt(256, 4).work(1, &autocast(PLAIN, AttentionKind::Flash));
    let t = 2 * 128;
    // Bytes a token and channel: two inputs of norms in 32 bits (4 + 4), their results converted to 16 (2 + 2), queries,
    // keys and values (6), the attention's result (2), GELU's input and result, four times as wide (8 + 8).
    let values = saved(&work, |name| !name.ends_with(".statistics") && !name.ends_with(".weight_cast"));
    assert_eq!(values, (4 + 4 + 2 + 2 + 6 + 2 + 8 + 8) * t * h);
    // Mean and deviation of two norms, and a sum for each query and head.
    assert_eq!(saved(&work, |name| name.ends_with(".statistics")), (2 * 2 * 4 + 4 * a) * t);
    // The 16-bit copies of four weights of 3, 1, 4 and 4 h^2 values; those of the biases no gradient needs.
    assert_eq!(saved(&work, |name| name.ends_with(".weight_cast")), 2 * 12 * h * h);
    // Two products read norms; four weights and four biases are converted, and all gradients back. The two residual
    // additions hand a 32-bit gradient to a 16-bit branch.
    assert_eq!(ending(&work.forward, ".cast"), 2);
    assert_eq!(ending(&work.forward, ".weight_cast"), 8);
    assert_eq!(ending(&work.backward, ".grad_cast"), 2 + 8 + 2);
}

#[test]
fn products_stay_in_16_bits() {
    let work = gpt(256, 4).work(1, &autocast(PLAIN, AttentionKind::Eager));
    for operation in work.forward.iter().chain(&work.backward) {
        if let Kernel::Gemm { dtype, .. } = operation.kernel {
            assert_eq!(dtype, Dtype::Bf16, "{}", operation.name);
        }
    }
    // The softmax is kept in 32 bits, and once more in 16 for the product: 6 bytes a pair in place of 2.
    let pairs = 2 * 4 * 128 * 128;
    assert_eq!(saved(&work, |name| name == "attention.core.softmax.output"), 4 * pairs);
    assert_eq!(saved(&work, |name| name == "attention.core.context.cast"), 2 * pairs);
}

#[test]
fn sixteen_bit_parameters_and_norms_leave_nothing_to_convert() {
    let formats = Formats::Autocast { parameters: Dtype::Bf16, low_precision_norms: true };
    for name in ["gpt2", "llama3-8b", "bert-base", "opt-1.3b"] {
        let model = model(name);
        let autocast = model.work(1, &autocast(formats, AttentionKind::Flash));
        let uniform = model.work(1, &shape(2, 128, Dtype::Bf16, AttentionKind::Flash));
        assert_eq!(autocast, uniform, "{name}");
    }
}

#[test]
fn layers_agree_on_the_format_between_them() {
    let mut seen = 0;
    for name in catalogue_names() {
        let model = model(name);
        // ConvNeXt's residuals are taken as 32-bit from the downsampling on; T5's decoder hands more than its output.
        let apart = ["convnext", "t5"].iter().any(|family| name.contains(family));
        if !model.follows_autocast() || apart {
            continue;
        }
        let shape = autocast(PLAIN, AttentionKind::Flash);
        let mut last = None;
        for index in 0..model.layers.len() {
            let work = model.work(index, &shape);
            if let Some(output) = last.replace(work.output) {
                assert_eq!(output, work.input, "{name}: what {} receives", model.layers[index].name);
            }
        }
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn metrics_run_forward_only() {
    let gpt = gpt(256, 4);
    let head = gpt.layers.len() - 1;
    let plain = autocast(PLAIN, AttentionKind::Flash);
    let once = gpt.work(head, &plain);
    let followed = gpt.work(head, &WorkShape { loss_metrics: 2, ..plain });
    assert_eq!(ending(&followed.forward, "metric.log_softmax"), 2);
    assert_eq!(once.backward, followed.backward);
    assert_eq!(once.saved, followed.saved);
}

#[test]
fn unpadding_waits_for_the_device() {
    let mut fields = Overrides::none();
    fields.set("unpads", FieldValue::Bool(true));
    let mpt = Model::from_catalogue("mpt-7b", &fields).unwrap();
    let work = mpt.work(1, &autocast(PLAIN, AttentionKind::Flash1));
    assert_eq!(work.forward.iter().filter(|operation| operation.host_sync).count(), 2);
    // Queries, keys and values gathered, their gradients scattered; the result the other way around.
    assert_eq!(ending(&work.forward, "attention.unpad"), 3);
    assert_eq!(ending(&work.backward, "attention.unpad.grad"), 3);
    assert_eq!(ending(&work.backward, "attention.pad.grad"), 1);
}

//! The multi-attention-weight module on encoders, and low-rank adapters beside it.

use steptime_models::{AttentionKind, Dtype, LayerWork, Lora, Model, Trainable};

use crate::{model, shape};

/// Adapters of rank 16 beside queries, keys, values, attention's output, both layers of the feed-forward, and the pooler.
fn with_lora(name: &str) -> Model {
    let targets = ["query", "key", "value", "dense"].map(str::to_owned).to_vec();
    model(name).with_trainable(Trainable::Lora(Lora { rank: 16, targets, dropout: true })).unwrap()
}

#[test]
fn trainable_counts_are_those_of_the_source() {
    // Encoder, the same with the module; trained parameters of adapters alone, adapters and module, everything.
    for (encoder, with_module, dense, both, full) in [
        ("all-minilm-l6-v2", "minilm-l6-maw", 675_840, 1_844_993, 23_882_369),
        ("contriever", "contriever-maw", 2_678_784, 6_011_777, 112_815_233),
    ] {
        assert_eq!(with_lora(encoder).trainable_parameters(), dense, "{encoder}");
        assert_eq!(with_lora(with_module).trainable_parameters(), both, "{with_module}");
        assert_eq!(model(with_module).trainable_parameters(), full, "{with_module}");
    }
}

#[test]
fn the_module_by_hand() {
    for (name, layer, h) in [("minilm-l6-maw", 6, 384_u64), ("contriever-maw", 12, 768)] {
        let model = model(name);
        let sum = |reference: bool| {
            let own = model.layers[layer].parameters.iter().filter(|it| it.name.starts_with("maw."));
            let own = own.filter(|it| it.name.starts_with("maw.reference.") == reference);
            own.inspect(|it| assert_eq!(it.trainable, !reference, "{}", it.name))
                .map(|it| it.count)
                .sum::<u64>()
        };
        // 512 -> 256 -> 128; policy 128 -> 64 -> 64; value 128 -> 64 -> 1.
        let networks = 512 * 256 + 256 + 256 * 128 + 128 + 2 * (128 * 64 + 64) + 64 * 64 + 64 + 64 + 1;
        assert_eq!((networks, sum(true)), (184_961, 184_961));
        // Query, key, value and output, two of 512 depths, the output's bias and the norm.
        assert_eq!(sum(false), 4 * h * h + 2 * 512 * h + 3 * h + networks);
        // Other layers have none.
        assert!(model.layers[layer - 1].parameters.iter().all(|it| !it.name.starts_with("maw.")));
    }
}

fn last_block(name: &str, texts: u64, length: u64) -> LayerWork {
    model(name).work(6, &shape(texts, length, Dtype::Bf16, AttentionKind::Eager))
}

#[test]
fn the_five_dimensional_tensors_are_made_and_made_again() {
    // 96 texts of 256 tokens: 96 * 8 * 256^2 * 64 values, 6 GiB in 16 bits and 12 in 32.
    let values: u64 = 96 * 8 * 256 * 256 * 64;
    assert_eq!(2 * values, 6 << 30);
    let (plain, with) = (last_block("all-minilm-l6-v2", 96, 256), last_block("minilm-l6-maw", 96, 256));
    let count = |operations: &[steptime_models::Operation], name: &str| {
        operations.iter().filter(|operation| operation.name == name).count()
    };
    assert_eq!((count(&with.forward, "maw.softmax"), count(&with.backward, "maw.softmax")), (1, 1));
    assert_eq!(count(&with.backward, "maw.softmax.grad"), 1);
    // The chosen index has no gradient: neither have queries, keys and networks.
    for name in ["maw.query.grad_weight", "maw.key.grad_weight", "maw.network.grad_weight"] {
        assert_eq!(count(&with.backward, name), 0, "{name}");
    }
    for name in ["maw.depth_query.grad_weight", "maw.value.grad_weight", "maw.projection.grad_weight"] {
        assert_eq!(count(&with.backward, name), 1, "{name}");
    }
    // Kept: the module's input, the sum that the norm reads and its statistics, no matter how many depths.
    let tokens = 96 * 256;
    let more = with.saved_bytes().0 - plain.saved_bytes().0;
    assert_eq!(more, 2 * tokens * 384 * 2 + tokens * 2 * 4);
    // At once in forward: the scores in 32 bits and their softmax. In backward the softmax is kept, and beside it are
    // its gradient and the scores', in 32 bits.
    let small = values / 50;
    assert!(
        (8 * values..8 * values + small).contains(&with.forward_temporary.0),
        "{}",
        with.forward_temporary
    );
    let least = (4 + 4 + 4) * values;
    assert!((least..least + least / 4).contains(&with.backward_temporary.0), "{}", with.backward_temporary);
}

#[test]
fn chunks_of_two_texts_are_launched_one_by_one() {
    let launches = |texts| {
        let work = last_block("minilm-l6-maw", texts, 32);
        let of = |operations: &[steptime_models::Operation], name| {
            operations.iter().find(|operation| operation.name == name).unwrap().launches
        };
        (of(&work.forward, "maw.scores"), of(&work.backward, "maw.scores.grad"))
    };
    assert_eq!(launches(2), (3, 11));
    assert_eq!(launches(96), (48 * 2 + 1, 48 * 11));
}

#[test]
fn frozen_layers_before_the_module_keep_nothing() {
    // Without adapters in them (all but the pooler frozen), only the module and what follows it has a backward.
    let targets = vec!["pooler.dense".to_owned()];
    let lora = Lora { rank: 16, targets, dropout: false };
    let model = model("minilm-l6-maw").with_trainable(Trainable::Lora(lora)).unwrap();
    let shape = shape(2, 32, Dtype::Bf16, AttentionKind::Eager);
    assert!(model.work(3, &shape).saved.is_empty());
    let last = model.work(6, &shape);
    assert!(
        last.saved.iter().all(|it| it.name.starts_with("maw.") || it.name.starts_with("mlp.norm")),
        "{last:?}"
    );
    assert!(!last.backward.is_empty());
}

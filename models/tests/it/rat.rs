//! RAT against what its code at commit 29f4723 computes and allocates.

use steptime_models::{
    AttentionKind, Bytes, Dtype, FieldValue, Kernel, LayerRole, LayerWork, Model, Operation, Overrides, Pass,
};

use crate::{model, shape};

/// Entry, parameters, where the number is from. The parts of a block of width d = 256 with 16 heads: filter
/// 49 d^2 + d = 3,211,520; keys and values 2 d^2 + 2 d = 131,584; queries d^2 + d = 65,792; feed-forward
/// 8 d^2 + 5 d = 525,568; a temperature; rotary frequencies 8 x 8 x 2 = 128; three norms 6 d; filler d; the
/// mixing block 12 d^2 + 13 d + 128 = 789,888. Outside: 3 d 49 + d = 37,888, and the head d^2 / 2 + d^2 / 8 + d + 1
/// = 41,217.
const COUNTS: [(&str, u64, &str); 7] = [
    ("rat", 18_984_197, "OPTIMIZED_CONFIGURATIONS.md, counted by the repository"),
    ("rat-sparse", 18_984_197, "attention has no parameters"),
    ("rat-multiscale", 18_984_197, "scales share all parameters"),
    ("rat-optimized", 18_984_197, "OPTIMIZED_CONFIGURATIONS.md"),
    // d = 128, 8 heads: 18,944 + 2 x (985,153 + 198,336) + 10,369.
    ("rat-small", 2_396_291, "worked by hand"),
    // Four such blocks: 18,944 + 4 x 1,183,489 + 10,369.
    ("rat-ray", 4_763_269, "worked by hand"),
    // The segmentation head's 41,217 give way to queries 100 d, attention 4 d^2 + 4 d, classes 92 (d + 1), boxes 4 (d + 1).
    ("rat-detection", 18_984_197 - 41_217 + 25_600 + 263_168 + 23_644 + 1028, "worked by hand"),
];

fn fp32(micro_batch: u64) -> steptime_models::WorkShape {
    shape(micro_batch, 0, Dtype::Fp32, AttentionKind::Flash)
}

fn with(name: &str, field: &str, value: i64) -> Model {
    Model::from_catalogue(name, &Overrides::none().with(field, value)).unwrap()
}

/// Billions of multiply-adds of forward operations whose names begin so, over one image.
fn gmacs(work: &LayerWork, beginnings: &[&str]) -> f64 {
    let chosen = |it: &&Operation| beginnings.iter().any(|begin| it.name.starts_with(begin));
    work.forward.iter().filter(chosen).map(|it| it.kernel.flops().0).sum::<u64>() as f64 / 2e9
}

#[test]
fn counts_are_those_of_the_code() {
    for (name, parameters, source) in COUNTS {
        assert_eq!(model(name).parameters(), parameters, "{name}: {source}");
    }
}

#[test]
fn parts_of_a_block_are_those_of_the_code() {
    let rat = model("rat");
    let of = |layer: usize, begin: &str| -> u64 {
        let named = rat.layers[layer].parameters.iter().filter(|it| it.name.starts_with(begin));
        named.map(|it| it.count).sum()
    };
    assert_eq!(rat.layers.len(), 6);
    assert_eq!((of(0, "init_proj"), of(5, "decoder")), (37_888, 41_217));
    for block in 1..5 {
        assert_eq!(rat.layers[block].role, LayerRole::Block);
        assert_eq!((of(block, "sga."), of(block, "mr_attn.")), (3_936_385, 789_888));
        assert_eq!(of(block, "sga.strider"), 3_211_520);
    }
}

#[test]
fn the_huge_one_is_four_billion_and_not_0_63() {
    // 32 blocks of width 1280; ViT-Huge's blocks have 12 d^2 each, 629 M.
    assert_eq!((model("rat-huge").parameters() + 500_000) / 1_000_000, 3777);
    assert_eq!((with("rat-huge", "kernel", 3).parameters() + 5_000_000) / 10_000_000, 168);
    // From 128 pixels on: 43, 15, 5, 2, 1 and then no smaller, so the last blocks are alike.
    let huge = model("rat-huge");
    assert_eq!(huge.layers[8].signature, huge.layers[32].signature);
    assert_ne!(huge.layers[5].signature, huge.layers[6].signature);
    // A filter of 3 has a stride of 1: every block keeps the 16,384 tokens.
    let work = with("rat-huge", "kernel", 3).work(32, &fp32(1));
    assert!(
        work.temporaries.iter().any(|it| it.name == "attention.map" && it.bytes == Bytes(4 * 16 * (1 << 28)))
    );
}

/// Side of the image, block, cells a side of its coarse grid, and GMACs of an image to the printed digit: filter, linear
/// layers of three iterations, attention of three iterations, mixing block; GiB of one 32-bit map.
type Row = (i64, usize, u64, [(f64, f64); 4], (f64, f64));
const TABLE: [Row; 6] = [
    (256, 1, 86, [(23.75, 0.01), (38.86, 0.01), (744.5, 0.1), (33.8, 0.1)], (28.89, 0.01)),
    (256, 2, 29, [(2.70, 0.01), (4.40, 0.01), (9.55, 0.01), (1.02, 0.01)], (0.371, 0.001)),
    (256, 3, 10, [(0.32, 0.01), (0.51, 0.01), (0.13, 0.01), (0.08, 0.01)], (0.005, 0.001)),
    (256, 4, 4, [(0.05, 0.01), (0.07, 0.01), (0.0, 0.01), (0.01, 0.01)], (0.0, 0.001)),
    (128, 1, 43, [(5.94, 0.01), (9.71, 0.01), (46.5, 0.1), (3.2, 0.1)], (1.81, 0.01)),
    (512, 1, 171, [(93.9, 0.1), (154.8, 0.1), (11_774.0, 1.0), (461.0, 1.0)], (457.0, 1.0)),
];

const LINEAR: [&str; 3] = ["grouping.key_value", "grouping.query", "mlp.fc"];
const MAPS: [&str; 2] = ["cross_attention.scores", "cross_attention.context"];

#[test]
fn blocks_cost_what_the_code_computes() {
    for (side, block, cells, printed, map) in TABLE {
        let work = with("rat", "image_size", side).work(block, &fp32(1));
        let found_map = work.temporaries.iter().find(|it| it.name == "attention.map").unwrap().bytes.gib();
        assert!((found_map - map.0).abs() <= map.1 / 2.0, "{side}, block {block}: {found_map} GiB");
        // The mixing block's feed-forward has the same names as the grouping's: 8 d^2 a cell, once instead of thrice.
        let fed = (8 * 256 * 256 * cells * cells) as f64 / 1e9;
        let found = [
            gmacs(&work, &["grouping.strider"]),
            gmacs(&work, &LINEAR) - fed,
            gmacs(&work, &MAPS),
            gmacs(&work, &["attention."]) + fed,
        ];
        for (found, (printed, digit)) in found.into_iter().zip(printed) {
            assert!(
                (found - printed).abs() <= digit / 2.0 + 1e-9,
                "{side}, block {block}: {found}, {printed}"
            );
        }
    }
}

#[test]
fn whole_models_cost_what_the_code_computes() {
    // Without the products of maps, which the model keeps for inspection, and the head.
    for (model, gmac) in
        [(model("rat"), 862.0), (model("rat-multiscale"), 945.0), (with("rat", "image_size", 128), 69.0)]
    {
        let layers = 0..model.layers.len() - 1;
        let sum: f64 = layers
            .map(|layer| model.work(layer, &fp32(1)))
            .map(|work| (work.forward_flops().0 as f64 / 2e9) - gmacs(&work, &["maps."]))
            .sum();
        assert!((sum - gmac).abs() < 0.6, "{sum}, {gmac}");
    }
    // Projection of 3 channels by 7 x 7 filters: 256^2 x 256 x 147.
    assert_eq!(model("rat").work(0, &fp32(1)).forward_flops().0, 2 * 256 * 256 * 256 * 147);
    // Two maps, 841 x 7396 of block 1 times 7396 x 65536 of block 0, 16 heads each: more than all the rest.
    let products = gmacs(&model("rat").work(2, &fp32(1)), &["maps.accumulate"]);
    assert!((products - 2.0 * 16.0 * 841.0 * 7396.0 * 65_536.0 / 1e9).abs() < 1e-3);
}

/// Batch, heads, groups and tokens of the first block at 256 pixels.
const FIRST_MAP: u64 = 4 * 4 * 16 * 7396 * 65_536;

#[test]
fn the_tensor_that_ran_out_of_memory_has_a_name() {
    // The job at 256 pixels, batch 4, died allocating 115.56 GiB.
    assert_eq!(format!("{:.2}", Bytes(FIRST_MAP).gib()), "115.56");
    for name in ["rat", "rat-sparse", "rat-optimized"] {
        for dtype in [Dtype::Fp32, Dtype::Fp16] {
            let work = model(name).work(1, &shape(4, 0, dtype, AttentionKind::Flash));
            let map = |name| work.temporaries.iter().find(|it| it.name == name).unwrap();
            let (first, clone) = (map("attention.map"), map("attention.map.clone"));
            assert_eq!((first.bytes, first.pass), (Bytes(FIRST_MAP), Pass::Forward), "{name}");
            assert_eq!(clone.bytes, first.bytes);
            assert_eq!(work.forward[first.born].name, "attention.map.clone");
            assert_eq!(
                work.forward[first.freed].name, "cross_attention.softmax",
                "assigned in the first iteration"
            );
            assert_eq!(work.forward[clone.freed].name, "cross_attention.share");
            assert!(work.forward_temporary.0 >= 2 * FIRST_MAP);
        }
    }
}

#[test]
fn dense_maps_are_kept_in_every_iteration() {
    let work = model("rat").work(1, &fp32(4));
    let maps: Vec<_> =
        work.saved.iter().filter(|it| it.bytes == Bytes(FIRST_MAP)).map(|it| it.name).collect();
    assert_eq!(maps, ["cross_attention.softmax.output", "cross_attention.share.output"].repeat(3));
    // A sparse block keeps nine values a group instead, and its temporaries are the two dense arrays alone.
    let sparse = model("rat-sparse").work(1, &fp32(4));
    assert!(sparse.saved.iter().all(|it| it.bytes.0 < FIRST_MAP));
    let nine = sparse.saved.iter().filter(|it| it.bytes == Bytes(4 * 4 * 16 * 7396 * 9)).count();
    assert_eq!(nine, 6);
}

#[test]
fn accumulated_maps_are_handed_from_block_to_block() {
    let rat = model("rat");
    let tokens = |cells: u64| 4 * 2 * cells * cells * 256;
    let maps = |cells: u64| 2 * 4 * 2 * 16 * cells * cells * 65_536;
    let shape = fp32(2);
    // Block 0 keeps its own maps; from block 1 on products with the pixels as columns go along.
    let outputs: Vec<u64> = (0..5).map(|layer| rat.work(layer, &shape).output.0).collect();
    assert_eq!(
        outputs,
        [tokens(256), tokens(86), tokens(29) + maps(29), tokens(10) + maps(10), tokens(4) + maps(4)]
    );
    // Without training nothing is kept, so the first block's own maps go along as well.
    let inference = steptime_models::WorkShape { training: false, ..shape };
    assert_eq!(rat.work(1, &inference).output.0, tokens(86) + maps(86));
    for layer in 1..6 {
        assert_eq!(rat.work(layer, &inference).input, rat.work(layer - 1, &inference).output);
    }
    // A sparse map has no columns to multiply with: the chain begins at the first dense block.
    let mixed = model("rat-optimized");
    let products = |layer| gmacs(&mixed.work(layer, &shape), &["maps."]);
    assert_eq!((products(1), products(2), products(3)), (0.0, 0.0, 0.0));
    assert!(products(4) > 0.0);
}

#[test]
fn what_is_handed_on_is_kept_by_the_layer_that_receives_it() {
    // Residual sums end every block and keep nothing of their own; what comes next reads it in its linear layers.
    for name in ["rat", "rat-multiscale", "rat-optimized", "rat-detection"] {
        let rat = model(name);
        for layer in 1..rat.layers.len() {
            let (before, after) = (rat.work(layer - 1, &fp32(2)), rat.work(layer, &fp32(2)));
            let inputs = after.saved.iter().filter(|it| it.name == "input").map(|it| it.bytes);
            // Detection's head copies its input into another layout and keeps the copy.
            let copies = name == "rat-detection" && layer + 1 == rat.layers.len();
            let wanted = if copies { vec![] } else { vec![before.output] };
            assert_eq!(inputs.collect::<Vec<_>>(), wanted, "{name}, layer {layer}");
        }
    }
}

#[test]
fn backward_computes_twice_as_much_and_needs_room_for_quotients() {
    let work = model("rat").work(1, &fp32(1));
    let gemms = |operations: &[Operation]| -> u64 {
        let gemms = operations.iter().filter(|it| matches!(it.kernel, Kernel::Gemm { .. }));
        gemms.map(|it| it.kernel.flops().0).sum()
    };
    assert_eq!(gemms(&work.backward), 2 * gemms(&work.forward));
    // Four temporaries of the quotient's gradient beside that of the shares and of the map.
    assert!(work.backward_temporary.0 > 6 * FIRST_MAP / 4);
    assert!(work.backward_temporary.0 < 7 * FIRST_MAP / 4);
    assert!(work.temporaries.iter().any(|it| it.pass == Pass::Backward && it.bytes == Bytes(FIRST_MAP)));
}

#[test]
fn samples_hold_images_of_all_scales_and_their_masks() {
    // 3 colours and a mask, 4 bytes each.
    assert_eq!(model("rat").sample_bytes(&fp32(1)), Bytes(256 * 256 * 16));
    assert_eq!(model("rat-multiscale").sample_bytes(&fp32(1)), Bytes((256 * 256 + 128 * 128) * 16));
    // 100 classes of 8 bytes and boxes of 4 values.
    let detection = (512 * 512 + 640 * 640) * 12 + 100 * (8 + 16);
    assert_eq!(model("rat-detection").sample_bytes(&fp32(1)), Bytes(detection));
    assert_eq!(model("rat-multiscale").tokens_per_sample(&fp32(1)), 256 * 256 + 128 * 128);
}

#[test]
fn faults_are_told() {
    let message = |name: &str, field: &str, value: FieldValue| {
        let mut overrides = Overrides::none();
        overrides.set(field, value);
        Model::from_catalogue(name, &overrides).unwrap_err().to_string()
    };
    let number = FieldValue::Integer;
    assert_eq!(message("rat", "kernel", number(4)), "`kernel` is 4, but must be an odd number of pixels");
    assert_eq!(
        message("rat", "heads", number(3)),
        "`heads` is 3, but must be an even number, with dims (256) a multiple of twice that"
    );
    assert_eq!(
        message("rat-optimized", "blocks", number(5)),
        "`attention` is a list of 4, but must be a word, or a list of blocks (5) words"
    );
    assert_eq!(
        message("rat-multiscale", "image_size", number(128)),
        "`image_size` is 128, but must be the first of scales (256), or left out"
    );
    assert_eq!(
        message("rat", "queries", number(10)),
        "`queries` is 10, but must be left out: only a detection head has queries"
    );
    assert_eq!(
        message("rat", "attention", FieldValue::Text("none".to_owned())),
        "`attention` is \"none\", but must be one of \"dense\", \"sparse\""
    );
    assert_eq!(with("rat-multiscale", "scales", 64).tokens_per_sample(&fp32(1)), 64 * 64);
}

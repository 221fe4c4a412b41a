//! Random bytes and spoiled fixtures give results or errors, never a panic.

use proptest::prelude::*;
use steptime_scenarios::import::{
    Frame, TensorTable, deepspeed, hf, megatron, safetensors, swift, torchtitan,
};

use super::fixture;

const FIXTURES: [&str; 12] = [
    "hf/gpt2.json",
    "hf/qwen1.5-moe-a2.7b.json",
    "hf/deepseek-v3.json",
    "hf/switch-base-8.json",
    "hf/roberta-base.json",
    "megatron/gpt3-175b.sh",
    "megatron/mixtral-8x7b.sh",
    "megatron/gpt.yaml",
    "torchtitan/llama3-405b.toml",
    "deepspeed/zero3.json",
    "swift/model.xml",
    "swift/cluster.xml",
];

/// Every importer reads every text.
fn import_all(text: &str) {
    let frame = Frame::default();
    let _ = hf("x", text);
    let _ = deepspeed("x", text, &frame);
    let _ = megatron("x", text, &frame);
    let _ = torchtitan("x", text, &frame);
    let _ = swift("x", text);
    let _ = TensorTable::read_index("x", text);
    if let Ok(table) = TensorTable::read("x", text.as_bytes(), 1 << 20) {
        let _ = safetensors(&table, None);
    }
}

/// Texts that mean something to one of the readers.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "0",
        "-1",
        "1e9",
        "null",
        "true",
        "\"auto\"",
        "[]",
        "{}",
        "\"",
        "'",
        "$",
        "${A}",
        "$((1/0))",
        "`x`",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "<",
        ">",
        "/>",
        "&",
        "#",
        "\\\n",
        "\n",
        ":",
        "- ",
        "=",
        "--",
        ",",
        "18446744073709551616",
        "ü",
        "\u{0}",
        "!!x ",
        "%",
        "|",
        "/",
    ]);
    prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = TensorTable::read("x", &bytes, 1 << 20);
        import_all(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_texts(pieces in prop::collection::vec(pieces(), 0..64)) {
        import_all(&pieces.concat());
    }

    #[test]
    fn spoiled_fixtures(
        which in 0..FIXTURES.len(),
        places in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, pieces()), 1..4),
    ) {
        let mut text = fixture(FIXTURES[which]);
        for (place, length, piece) in places {
            let at = text.floor_char_boundary(place.index(text.len().max(1)));
            let end = text.ceil_char_boundary((at + length).min(text.len()));
            text.replace_range(at..end, &piece);
        }
        import_all(&text);
    }

    #[test]
    fn cut_fixtures(which in 0..FIXTURES.len(), place in any::<prop::sample::Index>()) {
        let text = fixture(FIXTURES[which]);
        import_all(&text[..text.floor_char_boundary(place.index(text.len()))]);
    }
}

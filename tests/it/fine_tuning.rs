//! Memory of the two usual ways to tune a published model: FSDP with checkpointed blocks, and low-rank adapters. Every byte
//! class is reckoned by hand.

use serde_json::Value;

use super::support::{number, steptime};

/// Llama 3 8B: 8,030,261,248 parameters; 32 blocks of hidden 4096; a vocabulary of 128,256.
const PARAMETERS: f64 = 8_030_261_248.0;

fn report_of(text: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scenario.toml");
    std::fs::write(&path, text).unwrap();
    let output = steptime(&["run", "--json", "--quiet", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Within blocks' rounding to 512 bytes and small tensors: 0.2 %.
fn near(found: f64, expected: f64, what: &str) {
    assert!((found / expected - 1.0).abs() < 0.002, "{what}: {found} against {expected}");
}

/// Eight H100s, one sequence of 8,192 tokens each. Shards are 32-bit: 4 bytes of weight and 8 of moments a parameter over
/// 8; gradients are not kept between steps. A block keeps its input alone, 8192 x 4096 values of 2 bytes. The fullest
/// moment is the loss, with three 32-bit arrays of 8192 x 128256: the logarithms, their gradient and the logits'. Then the
/// head is gathered in 16 bits, and FSDP's rate limiter lets two blocks be, one of them for backward.
#[test]
fn fsdp_with_checkpointed_blocks() {
    let report = report_of(
        r#"name = "FSDP"
[model]
name = "llama3-8b"
sequence_length = 8192
[cluster]
name = "dgx-h100"
nodes = 1
[workload]
micro_batch_size = 1
precision = "bf16"
parameter_dtype = "fp32"
attention = "flash"
activation_checkpointing = "full"
[parallelism]
zero_stage = 3
reduce_dtype = "fp32"
"#,
    );
    let memory = &report["peak_memory"];
    let class = |name: &str| number(&memory["breakdown_bytes"][name]);
    near(class("parameters"), PARAMETERS * 4.0 / 8.0, "parameters");
    near(class("optimizer_states"), PARAMETERS * 8.0 / 8.0, "moments");
    let hidden = 8192.0 * 4096.0 * 2.0;
    let logits = 8192.0 * 128_256.0 * 4.0;
    // 32 blocks' inputs; the head keeps its norm's input and result, and the logarithms.
    near(class("activations"), 34.0 * hidden + logits, "activations");
    near(class("workspace"), 2.0 * logits + 64e6 * 1.048_576, "the loss, and cuBLAS");
    let head = 128_256.0 * 4096.0 * 2.0;
    let block = 2.0 * (2.0 * 4096.0 * 4096.0 + 2.0 * 1024.0 * 4096.0 + 3.0 * 14336.0 * 4096.0);
    near(class("buffers"), head + 2.0 * block, "gathered parameters");
    assert!(class("gradients") < 1.0, "none is kept");
}

/// One H100, two sequences of 2,048 tokens. The frozen model is 2 bytes a parameter, without gradients and states. Adapters of
/// rank 16 on queries (4096 to 4096) and values (4096 to 1024): 16 x (8192 + 5120) x 32 values, each 2 bytes, 4 of the
/// 32-bit copy, 8 of moments, and 2 of gradient until the update.
#[test]
fn low_rank_adapters() {
    let scenario = |checkpointing: &str| {
        format!(
            r#"name = "LoRA"
[model]
name = "llama3-8b"
sequence_length = 2048
[cluster]
name = "dgx-h100"
nodes = 1
gpus_per_node = 1
[workload]
micro_batch_size = 2
precision = "bf16"
attention = "flash"
activation_checkpointing = "{checkpointing}"
lora = {{ rank = 16, targets = ["q_proj", "v_proj"] }}
"#
        )
    };
    let adapters = 16.0 * (8192.0 + 5120.0) * 32.0;
    let tokens = 4096.0;
    let (hidden, logits) = (tokens * 4096.0 * 2.0, tokens * 128_256.0 * 4.0);
    let report = report_of(&scenario("none"));
    near(number(&report["parameters"]["trainable"]), adapters, "trainable parameters");
    let memory = &report["peak_memory"];
    let class = |memory: &Value, name: &str| number(&memory["breakdown_bytes"][name]);
    near(class(memory, "parameters"), 2.0 * (PARAMETERS + adapters), "parameters");
    near(class(memory, "optimizer_states"), 12.0 * adapters, "states");
    // A block keeps its input (but the first, before which nothing is trained), the norm's result, on which both adapters
    // work, queries and keys after rotation, values (a fourth as wide), attention's result, and the input of the second
    // norm. Of the frozen feed-forward, whose products keep nothing, gate, its activation and up, 14336 wide; and of each
    // adapter 16 values a token.
    let (narrow, wide) = (tokens * 1024.0 * 2.0, tokens * 14336.0 * 2.0);
    let statistics = tokens * 32.0 * 4.0 + 2.0 * tokens * 4.0;
    let block = 4.0 * hidden + 2.0 * narrow + 3.0 * wide + 2.0 * tokens * 16.0 * 2.0 + statistics;
    let head = hidden + logits;
    near(class(memory, "activations"), 32.0 * block + 31.0 * hidden + head, "activations");

    // Checkpointed, a block keeps its input alone.
    let report = report_of(&scenario("full"));
    let memory = &report["peak_memory"];
    near(class(memory, "activations"), 31.0 * hidden + head, "checkpointed");
    near(class(memory, "workspace"), 2.0 * logits + 64e6 * 1.048_576, "the loss, and cuBLAS");
}

/// One H100, Llama 2 7B on a sequence of 4,096 tokens: attention's products are 6 x 32 x 4096 x 4096 FLOPs of a token and
/// training step in full, and a sixteenth of that within documents of 256. The rest of the step's work stays; packing
/// changes no memory.
#[test]
fn packed_documents_attend_to_themselves() {
    let report = |document: &str| {
        report_of(&format!(
            "name = \"packed\"\n[model]\nname = \"llama2-7b\"\nsequence_length = 4096\n[cluster]\nname = \"dgx-h100\"\n\
             nodes = 1\ngpus_per_node = 1\n[workload]\nmicro_batch_size = 1\nprecision = \"bf16\"\nattention = \"flash-3\"\n\
             lora = {{ rank = 8, targets = [\"q_proj\"] }}\n{document}"
        ))
    };
    let whole = report("");
    let packed = report("document_length = 256\n");
    let flops = |it: &Value| number(&it["flops_per_step"]);
    // Two products forward and four backward, each 2 FLOPs for each of 4096 tokens, 4096 keys and 4096 channels.
    let attention = 12.0 * 32.0 * 4096.0_f64.powi(3);
    near((flops(&whole) - flops(&packed)) / attention, 15.0 / 16.0, "what other documents take");
    let seconds = |it: &Value| number(&it["step_time_s"]);
    assert!(seconds(&packed) < 0.95 * seconds(&whole), "{} {}", seconds(&packed), seconds(&whole));
    let peak = |it: &Value| it["peak_memory"]["allocated_bytes"].as_u64().unwrap();
    assert_eq!(peak(&packed), peak(&whole), "statistics of rows are as many");
    // One document is the sequence.
    assert_eq!(report("document_length = 4096\n")["step_time_s"], whole["step_time_s"]);
}

#[test]
fn documents_fit_into_their_sequence_and_need_fused_attention() {
    let refusal = |model: &str, workload: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scenario.toml");
        let text = format!(
            "name = \"packed\"\n[model]\nname = \"{model}\"\n[cluster]\nname = \"dgx-h100\"\nnodes = 1\n[workload]\n\
             micro_batch_size = 1\nprecision = \"bf16\"\n{workload}\n"
        );
        std::fs::write(&path, text).unwrap();
        let output = steptime(&["run", "--json", "--quiet", &path.display().to_string()]);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let long = refusal("llama2-7b", "document_length = 4097");
    assert!(long.contains("workload.document_length") && long.contains("at most the 4096 tokens"), "{long}");
    let eager = refusal("llama2-7b", "document_length = 256\nattention = \"eager\"");
    assert!(eager.contains("eager attention computes all pairs"), "{eager}");
    let images = refusal("vit_l_16", "document_length = 16");
    assert!(images.contains("takes no sequences"), "{images}");
}

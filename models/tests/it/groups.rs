//! Layers divided by sequences and by experts, and products of less than 16 bits: bytes and FLOPs by hand.

use steptime_models::{
    AttentionKind, ContextMethod, ContextParallel, Division, Dtype, ExchangeGroup, ExchangeKind,
    ExpertParallel, Kernel, Model, Operation, Scaling, TensorParallel, WorkShape,
};

use crate::{model, shape};

fn spread(size: u64, tensor: u64) -> ExpertParallel {
    ExpertParallel { size, tensor, load_millionths: ExpertParallel::BALANCED }
}

/// Values that a rank holds of all layers.
fn held(model: &Model, tensor: u64, expert: Option<ExpertParallel>) -> u64 {
    let division = Division { tensor, expert };
    model.layers.iter().flat_map(|layer| layer.parameters.iter()).map(|it| it.held_in(&division)).sum()
}

fn exchanges(operations: &[Operation]) -> Vec<(ExchangeGroup, ExchangeKind, u64)> {
    let one = |operation: &Operation| match operation.kernel {
        Kernel::Exchange { group, kind, bytes } => Some((group, kind, bytes.0)),
        _ => None,
    };
    operations.iter().filter_map(one).collect()
}

fn model_flops(operations: &[Operation]) -> u64 {
    operations.iter().map(|operation| operation.kernel.model_flops().0).sum()
}

#[test]
fn experts_are_held_by_those_they_are_spread_over() {
    // Mixtral 8x7B: 32 blocks of 8 experts of 3 x 4096 x 14336 values; the other 1,605,439,488 stay.
    let mixtral = model("mixtral-8x7b");
    let experts: u64 = 32 * 8 * 3 * 4096 * 14336;
    assert_eq!(mixtral.parameters(), 46_702_792_704);
    for ranks in [1, 2, 4, 8] {
        assert_eq!(held(&mixtral, 1, Some(spread(ranks, 1))), 46_702_792_704 - experts + experts / ranks);
    }
    // Shared by two ranks each as well.
    assert_eq!(held(&mixtral, 1, Some(spread(4, 2))), 46_702_792_704 - experts + experts / 8);
    // DeepSeek-V3: 58 blocks of 256 experts of 3 x 7168 x 2048 values.
    let deepseek = model("deepseek-v3");
    let all = held(&deepseek, 1, None);
    let experts: u64 = 58 * 256 * 3 * 7168 * 2048;
    for ranks in [8, 32, 64, 256] {
        assert_eq!(held(&deepseek, 1, Some(spread(ranks, 1))), all - experts + experts / ranks);
    }
    assert_eq!((mixtral.experts(), deepseek.experts(), model("gpt2").experts()), (8, 256, 0));
    let fault = mixtral.expert_parallel_fault(3).unwrap();
    assert_eq!(fault, "mixtral-8x7b has 8 experts, which do not divide among 3 ranks");
    assert!(model("gpt2").expert_parallel_fault(2).unwrap().contains("no routed experts"));
    assert!(model("switch-vit-32").expert_parallel_fault(2).unwrap().contains("stay on one rank"));
}

#[test]
fn tokens_go_to_their_experts_and_back() {
    // 1024 tokens, 2 experts each, 4096 values of 2 bytes; beside them one probability a row.
    let mixtral = model("mixtral-8x7b");
    let one = shape(1, 1024, Dtype::Bf16, AttentionKind::Flash);
    let whole = mixtral.work(1, &one);
    let work = mixtral.work(1, &WorkShape { expert: Some(spread(4, 1)), ..one });
    let rows = 1024 * 2;
    let all_to_all = |bytes| (ExchangeGroup::Expert, ExchangeKind::AllToAll, bytes);
    let counts = (ExchangeGroup::Expert, ExchangeKind::AllGather, 8 * 4 * 8);
    let there_and_back = [all_to_all(rows * 8192), all_to_all(rows * 2), all_to_all(rows * 8192)];
    assert_eq!(exchanges(&work.forward), [&[counts][..], &there_and_back].concat());
    assert_eq!(exchanges(&work.backward).iter().map(|it| it.2).sum::<u64>(), 2 * rows * 8192 + rows * 2);
    // Two of the eight experts are here, each with the tokens of four ranks.
    let up = work.forward.iter().find(|operation| operation.name == "moe.experts.up").unwrap();
    assert_eq!(up.kernel, Kernel::Gemm { batch: 2, m: 1024, n: 14336, k: 4096, dtype: Dtype::Bf16 });
    assert_eq!(model_flops(&work.forward), model_flops(&whole.forward));
    assert_eq!(model_flops(&work.backward), model_flops(&whole.backward));
}

#[test]
fn ranks_that_share_an_expert_gather_each_others_rows() {
    let mixtral = model("mixtral-8x7b");
    let tensor = TensorParallel { size: 2, sequence: true };
    let one = WorkShape { tensor, ..shape(1, 1024, Dtype::Bf16, AttentionKind::Flash) };
    let of = |ways| mixtral.work(1, &WorkShape { expert: Some(spread(4, ways)), ..one });
    let (whole, shared) = (of(1), of(2));
    let in_group = |operations: &[Operation], group| {
        exchanges(operations).into_iter().filter(|it| it.0 == group).collect::<Vec<_>>()
    };
    // Each of the two has 512 tokens; an expert that both share sees the rows of both.
    let rows = 512 * 2;
    let group = ExchangeGroup::ExpertTensor;
    assert_eq!(in_group(&whole.forward, group), []);
    let kinds = [
        (group, ExchangeKind::AllGather, 2 * rows * 8192),
        (group, ExchangeKind::AllGather, 2 * rows * 2),
        (group, ExchangeKind::ReduceScatter, 2 * rows * 8192),
    ];
    assert_eq!(in_group(&shared.forward, group), kinds);
    assert_eq!(model_flops(&whole.forward), model_flops(&shared.forward));
    // Attention is divided among the tensor group as ever; the experts have their own way.
    assert_eq!(in_group(&whole.forward, ExchangeGroup::Tensor).len(), 2);
}

#[test]
fn popular_experts_receive_more() {
    let mixtral = model("mixtral-8x7b");
    let one = shape(1, 1024, Dtype::Bf16, AttentionKind::Flash);
    let of = |load_millionths| {
        let expert = Some(ExpertParallel { size: 4, tensor: 1, load_millionths });
        mixtral.work(1, &WorkShape { expert, ..one })
    };
    let (even, hot) = (of(1_000_000), of(1_500_000));
    let rows = |work: &steptime_models::LayerWork| {
        work.forward.iter().find_map(|operation| match operation.kernel {
            Kernel::Gemm { m, .. } if operation.name == "moe.experts.up" => Some(m),
            _ => None,
        })
    };
    assert_eq!((rows(&even), rows(&hot)), (Some(1024), Some(1536)));
    assert!(hot.saved_bytes() > even.saved_bytes());
    assert_eq!(exchanges(&hot.forward)[1].2, 1536 * 2 * 8192);
}

#[test]
fn a_ring_attends_to_every_part_and_keeps_its_own() {
    let llama = model("llama3-8b");
    let whole = shape(1, 8192, Dtype::Bf16, AttentionKind::Flash);
    let context = ContextParallel { size: 4, method: ContextMethod::Ring };
    let part = WorkShape { context, sequence_length: 2048, ..whole };
    let (whole, part) = (llama.work(1, &whole), llama.work(1, &part));
    assert_eq!(model_flops(&whole.forward), 4 * model_flops(&part.forward));
    assert_eq!(model_flops(&whole.backward), 4 * model_flops(&part.backward));
    assert_eq!(whole.forward_flops().0, 4 * part.forward_flops().0);
    assert_eq!(whole.saved_bytes().0, 4 * part.saved_bytes().0);
    // Keys and values of 2048 tokens, 8 heads of 128 values each, three times on; backward as often, and the gradients
    // once more.
    let pair = 2 * 2048 * 1024 * 2;
    let hop = |bytes| (ExchangeGroup::Context, ExchangeKind::SendReceive, bytes);
    assert_eq!(exchanges(&part.forward), [hop(pair); 3]);
    let backward = [hop(pair), hop(2 * pair), hop(2 * pair), hop(pair), hop(pair)];
    assert_eq!(exchanges(&part.backward), backward);
}

#[test]
fn a_window_visits_only_the_parts_that_it_reaches() {
    let gpt_oss = model("gpt-oss-20b");
    let context = ContextParallel { size: 4, method: ContextMethod::Ring };
    let shape = WorkShape { context, ..shape(1, 2048, Dtype::Bf16, AttentionKind::Flash) };
    let hops = |layer| exchanges(&gpt_oss.work(layer, &shape).forward).len();
    assert_eq!((hops(1), hops(2)), (1, 3));
}

#[test]
fn heads_for_tokens_and_back() {
    let llama = model("llama3-8b");
    let context = ContextParallel { size: 8, method: ContextMethod::AllToAll };
    for attention in [AttentionKind::Flash, AttentionKind::Eager] {
        let whole = shape(1, 8192, Dtype::Bf16, attention);
        let part = WorkShape { context, sequence_length: 1024, ..whole };
        let (whole, part) = (llama.work(1, &whole), llama.work(1, &part));
        assert_eq!(model_flops(&whole.forward), 8 * model_flops(&part.forward));
        // Queries and the result 32 heads of 128 values, keys and values 8; 1024 tokens of each.
        let (wide, narrow) = (1024 * 4096 * 2, 1024 * 1024 * 2);
        let bytes: Vec<u64> = exchanges(&part.forward).iter().map(|it| it.2).collect();
        assert_eq!(bytes, [wide, narrow, narrow, wide]);
        let bytes: u64 = exchanges(&part.backward).iter().map(|it| it.2).sum();
        assert_eq!(bytes, 2 * (wide + narrow));
    }
    assert!(model("t5-base").context_parallel_fault().is_some());
    assert!(model("gpt2").context_parallel_fault().is_none());
}

#[test]
fn conversions_read_and_write_what_the_recipe_says() {
    // One block of Llama 3 8B on 1024 tokens: four different inputs of linear layers and seven results.
    let llama = model("llama3-8b");
    let bf16 = shape(1, 1024, Dtype::Bf16, AttentionKind::Flash);
    let wide = llama.work(1, &bf16);
    let inputs = 1024 * (3 * 4096 + 14336);
    let converted = |compute, scaling| {
        let work = llama.work(1, &WorkShape { compute, scaling, ..bf16 });
        let moved = |operation: &&Operation| operation.name == "linear.convert";
        let (mut read, mut written) = (0, 0);
        for operation in work.forward.iter().filter(moved) {
            if let Kernel::MemoryBound { read: r, written: w, .. } = operation.kernel {
                read += r.0;
                written += w.0;
            }
        }
        let kept: u64 =
            work.saved.iter().filter(|it| it.name == "linear.convert.output").map(|it| it.bytes.0).sum();
        assert_eq!(model_flops(&work.forward), model_flops(&wide.forward));
        assert!(work.saved_bytes() < wide.saved_bytes());
        (read, written, kept)
    };
    let eight = |scaling| converted(Dtype::Fp8, scaling);
    assert_eq!(eight(Scaling::Delayed), (2 * inputs, 2 * inputs, inputs));
    assert_eq!(eight(Scaling::Current), (4 * inputs, 2 * inputs, inputs));
    let scaled = inputs + inputs / 32;
    assert_eq!(eight(Scaling::Microscaling), (2 * inputs, 2 * scaled, scaled));
    let four = inputs / 2 + inputs / 16;
    assert_eq!(converted(Dtype::Fp4, Scaling::Delayed), (4 * inputs, 2 * four, four));
    // The head stays in 16 bits.
    let head = llama.work(llama.layers.len() - 1, &WorkShape { compute: Dtype::Fp8, ..bf16 });
    let sixteen = |it: &Operation| matches!(it.kernel, Kernel::Gemm { dtype: Dtype::Bf16, .. });
    assert!(head.forward.iter().any(sixteen));
    assert!(head.forward.iter().all(|it| it.name != "linear.convert"));
}

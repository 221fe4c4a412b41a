//! What sets Megatron-LM apart from plain PyTorch: its Python, its modules, its fused kernels and its gradients.

use crate::error::InputError;
use crate::import::architecture::Transformer;
use crate::import::fields::Fields;
use crate::import::run::Run;

/// Kernels that are fused unless a switch says otherwise.
const FUSED: [&str; 3] = ["bias-dropout-fusion", "bias-swiglu-fusion", "masked-softmax-fusion"];

pub(super) fn framework(
    fields: &Fields<'_, '_>,
    model: &Transformer,
    precision: &str,
    run: &mut Run,
) -> Result<(), InputError> {
    let on = |key: &str| -> Result<bool, InputError> { Ok(fields.flag(key)?.unwrap_or(false)) };
    // In a YAML file a switch has the name of what it switches.
    let off = |key: &str| -> Result<bool, InputError> {
        Ok(on(&format!("no-{key}"))? || fields.flag(key)? == Some(false))
    };
    run.workload.push(("framework", "megatron".into()));
    let modules = [("transformer_engine", "transformer-engine"), ("local", "local")];
    let modules = fields.choice("transformer-impl", &modules)?.unwrap_or("transformer-engine");
    run.workload.push(("transformer_implementation", modules.into()));
    let mut fused = true;
    for key in FUSED {
        fused &= !off(key)?;
    }
    if fused {
        run.workload.push(("fused_kernels", "transformer-engine".into()));
    } else {
        fields.note("kernels of blocks are fused all or none: none are");
    }
    gradients(fields, precision, run)?;
    if off("gradient-accumulation-fusion")? {
        fields.note("gradients of weights are added up by kernels of their own");
    } else {
        run.workload.push(("gradient_accumulation_fusion", true.into()));
    }
    if model.experts.is_some() && !on("moe-grouped-gemm")? && !on("moe-use-legacy-grouped-gemm")? {
        run.workload.push(("moe_grouped_gemm", false.into()));
    }
    if off("check-for-nan-in-loss-and-grad")? {
        run.workload.push(("check_for_nan", false.into()));
    }
    if fields.number("clip-grad")? == Some(0.0) {
        run.workload.push(("gradient_clipping", "none".into()));
    }
    if on("cross-entropy-loss-fusion")? {
        let whose = [("native", "vocabulary-parallel-compiled"), ("te", "fused")];
        let kernels = fields.choice("cross-entropy-fusion-impl", &whose)?;
        run.workload.push(("cross_entropy", kernels.unwrap_or("vocabulary-parallel-compiled").into()));
    }
    if on("deterministic-mode")? {
        run.workload.push(("deterministic", true.into()));
    }
    Ok(())
}

/// With bf16 Megatron-LM adds gradients up and reduces them in 32 bits, asked or not, unless they are reduced in 16; with fp16
/// where it is asked to, and there it scales the loss.
fn gradients(fields: &Fields<'_, '_>, precision: &str, run: &mut Run) -> Result<(), InputError> {
    let asked = fields.flag("accumulate-allreduce-grads-in-fp32")?.unwrap_or(false);
    let narrow = fields.flag("grad-reduce-in-bf16")?.unwrap_or(false);
    match precision {
        "fp32" => return Ok(()),
        "fp16" => run.workload.push(("loss_scaling", true.into())),
        _ => {}
    }
    if asked || precision != "fp16" && !narrow {
        run.workload.push(("gradient_dtype", "fp32".into()));
    }
    Ok(())
}

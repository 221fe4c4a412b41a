//! Prices of the operations of real models, forward and backward, against what each took.
//!
//! [`Operations::read`] takes a table of single operations with their shapes; [`Operations::score`] prices the kernels that
//! PyTorch's eager mode launches for each and returns the errors by kind and pass. Nothing is fitted: it is a test of the
//! prices, and of the list of kernels that stand for an operation.

use std::collections::{BTreeMap, BTreeSet};

use steptime_models::{Bytes, Dtype, Kernel, MemoryBoundKind, Pass};

use super::report::{Errors, Measured};
use super::rows::{Row, RowsError, read};
use crate::catalogue::CatalogueError;
use crate::gpu::Gpu;
use crate::gpu_from_catalogue;
use crate::price::memory::of_rows;
use crate::price::{GemmShape, embedding as embedding_price, gemm as gemm_price};

/// What was timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationPass {
    /// The operation.
    Forward,
    /// Gradients of its inputs and parameters.
    Backward,
    /// Adding the parameters' gradients to those of earlier micro-batches.
    Accumulate,
}

impl OperationPass {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Accumulate => "accumulate",
        }
    }
}

/// One pass of one operation.
struct Timed {
    gpu: String,
    kind: &'static str,
    pass: OperationPass,
    /// Empty where it is not known which kernels run.
    kernels: Vec<Kernel>,
    seconds: f64,
}

/// Measured operations.
#[derive(Default)]
pub struct Operations {
    timed: Vec<Timed>,
}

/// Errors of the operations of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationScore {
    /// Kind of operation; `all` for all of them.
    pub kind: &'static str,
    /// What was timed.
    pub pass: OperationPass,
    /// Errors of prices.
    pub errors: Errors,
    /// Operations so short that the start of the measurement is a good part of them, or of which it is not known what runs.
    pub left_out: usize,
}

/// How long a host takes from one operation of backward to the next where neither launches anything.
#[derive(Clone, Debug, PartialEq)]
pub struct HandedOn {
    /// GPU of the host.
    pub gpu: String,
    /// Operations that were timed.
    pub operations: usize,
    /// The shortest, seconds: what the measurement disturbed least.
    pub shortest_s: f64,
    /// The middle one, seconds.
    pub median_s: f64,
}

/// A time counts if it is at least so many times the shortest one of its GPU and pass: that one is the start of an
/// operation, from Python to the first kernel, of which no price knows.
const ABOVE_START: f64 = 4.0;

/// Kind of all operations; sorts before the others.
const ALL: &str = "";

/// Measured and predicted seconds, and how many operations are left out.
type Pairs = (Vec<(Measured, f64)>, usize);

/// Bytes of a 32-bit float; the tables are of models in that format without tensor cores.
const FLOAT: u64 = 4;

impl Operations {
    /// Adds a table: columns `gpu, model, op_kind, input_shapes, output_shape, forward_us, backward_us, accumulate_us`.
    ///
    /// # Errors
    /// [`RowsError`] with the line.
    pub fn read(&mut self, table: &[u8]) -> Result<(), RowsError> {
        read(table, |row| {
            let word = row.text("op_kind")?;
            let inputs = shapes(row, "input_shapes")?;
            let output = shapes(row, "output_shape")?;
            let output = output.first().cloned().unwrap_or_default();
            let (kind, [forward, backward, accumulate]) =
                kernels(word, row.text("model")?, &inputs, &output).unwrap_or_default();
            let gpu = row.gpu()?;
            for (pass, column, kernels) in [
                (OperationPass::Forward, "forward_us", forward),
                (OperationPass::Backward, "backward_us", backward),
                (OperationPass::Accumulate, "accumulate_us", accumulate),
            ] {
                let seconds = row.microseconds(column)?;
                // Zero stands for a pass that the operation does not have.
                if seconds > 0.0 {
                    self.timed.push(Timed { gpu: gpu.clone(), kind, pass, kernels, seconds });
                }
            }
            Ok(())
        })
    }

    /// Backward of additions, whose gradient is handed on as it is, by GPU: host time alone, of which the catalogue's hosts
    /// have the cost of a launch in backward.
    pub fn handed_on(&self) -> Vec<HandedOn> {
        let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for timed in &self.timed {
            let known = timed.pass == OperationPass::Backward && timed.kind != ALL;
            if known && timed.kernels.is_empty() {
                times.entry(&timed.gpu).or_default().push(timed.seconds);
            }
        }
        let of_gpu = |(gpu, mut times): (&str, Vec<f64>)| {
            times.sort_by(f64::total_cmp);
            let (shortest_s, median_s) = (*times.first()?, *times.get(times.len() / 2)?);
            Some(HandedOn { gpu: gpu.to_owned(), operations: times.len(), shortest_s, median_s })
        };
        times.into_iter().filter_map(of_gpu).collect()
    }

    /// Errors of the catalogue's prices by kind and pass, all of a pass first.
    ///
    /// # Errors
    /// A GPU that the catalogue does not have.
    pub fn score(&self) -> Result<Vec<OperationScore>, CatalogueError> {
        let names: BTreeSet<&str> = self.timed.iter().map(|timed| timed.gpu.as_str()).collect();
        let mut gpus = BTreeMap::new();
        for name in names {
            gpus.insert(name, gpu_from_catalogue(name)?);
        }
        let start = |of: &Timed| {
            let alike = self.timed.iter().filter(|it| it.gpu == of.gpu && it.pass == of.pass);
            // What launches nothing does not even start.
            let alike = alike.filter(|it| !it.kernels.is_empty());
            alike.map(|it| it.seconds).fold(f64::INFINITY, f64::min)
        };
        let mut groups: BTreeMap<(OperationPass, &'static str), Pairs> = BTreeMap::new();
        for timed in &self.timed {
            let start = start(timed);
            let predicted = gpus.get(timed.gpu.as_str()).and_then(|gpu| seconds(gpu, &timed.kernels));
            let counts = timed.seconds >= ABOVE_START * start;
            for kind in [ALL, timed.kind] {
                let (pairs, left_out) = groups.entry((timed.pass, kind)).or_default();
                match predicted.filter(|_| counts) {
                    Some(predicted) => {
                        let measured = Measured { seconds: timed.seconds, flops: 0.0, held_out: true };
                        pairs.push((measured, start + predicted));
                    }
                    None => *left_out += 1,
                }
            }
        }
        let score = |((pass, kind), (pairs, left_out)): ((_, &'static str), Pairs)| OperationScore {
            kind: if kind == ALL { "all" } else { kind },
            pass,
            errors: Errors::new(pairs.into_iter()),
            left_out,
        };
        Ok(groups.into_iter().map(score).collect())
    }
}

/// Kernels one after the other; `None` where none is known or the GPU cannot run one. The start of the first is part of the
/// measurement's.
fn seconds(gpu: &Gpu, kernels: &[Kernel]) -> Option<f64> {
    let one = |kernel: &Kernel| match *kernel {
        Kernel::Gemm { batch, m, n, k, dtype } => {
            gemm_price(gpu, GemmShape { batch, m, n, k, dtype }).ok().map(|price| price.seconds)
        }
        Kernel::MemoryBound { kind, read, written, row, instructions } => {
            Some(of_rows(gpu, kind, [read, written], row, instructions).seconds)
        }
        Kernel::Embedding { tokens, width, vocabulary, pass, dtype } => {
            Some(embedding_price(gpu, tokens, width, vocabulary, pass, dtype).seconds)
        }
        _ => None,
    };
    let total = kernels.iter().map(one).sum::<Option<f64>>()?;
    (!kernels.is_empty()).then_some(total - gpu.kernel_latency_s)
}

/// Lists of whole numbers in brackets of either kind, as Python prints them.
fn shapes(row: &Row<'_>, column: &'static str) -> Result<Vec<Vec<u64>>, RowsError> {
    let text = row.text(column)?;
    let wrong = || row.wrong(column, "lists of whole numbers from 1, e.g. [[8, 16], [16]]");
    let mut found = Vec::new();
    for part in text.split(['[', '(']).flat_map(|part| part.split([']', ')'])) {
        let numbers = part.split(',').map(str::trim).filter(|word| !word.is_empty());
        let numbers: Vec<&str> = numbers.collect();
        if !numbers.is_empty() {
            let parsed = numbers.iter().map(|word| word.parse().ok().filter(|it| (1..=1 << 31).contains(it)));
            found.push(parsed.collect::<Option<Vec<u64>>>().ok_or_else(wrong)?);
        }
    }
    let work = |shape: &Vec<u64>| shape.iter().map(|&size| size as f64).product::<f64>() < 1e15;
    if found.iter().all(work) { Ok(found) } else { Err(wrong()) }
}

type Passes = [Vec<Kernel>; 3];

/// Kind of an operation and the kernels of its passes; `None` for operations that are not known.
fn kernels(word: &str, model: &str, inputs: &[Vec<u64>], output: &[u64]) -> Option<(&'static str, Passes)> {
    let name = word.strip_prefix("module:").unwrap_or(word);
    let y = bytes(output);
    let x = inputs.first().map(|shape| bytes(shape)).unwrap_or_default();
    let last = |shape: &[u64]| shape.last().copied();
    Some(match name {
        "matmul" | "bmm" => {
            let ([.., m, k], n) = (inputs.first()?.as_slice(), last(inputs.get(1)?)?) else { return None };
            let batch = output.iter().rev().skip(2).product();
            let forward = vec![gemm(batch, *m, n, *k)];
            let backward = vec![gemm(batch, *m, *k, n), gemm(batch, *k, n, *m)];
            ("batched product", [forward, backward, Vec::new()])
        }
        "addmm" => linear(output.first().copied()?, last(output)?, last(inputs.get(1)?)?, true),
        "dense" | "decoder" | "key" | "query" | "value" | "seq_relationship" | "fc1" | "fc2" | "k_proj"
        | "q_proj" | "v_proj" | "out_proj" | "lm_head" => {
            let n = last(output)?;
            linear(output.iter().rev().skip(1).product(), n, last(inputs.first()?)?, name != "lm_head")
        }
        "softmax" => {
            let softmax = |read, written| memory(MemoryBoundKind::Softmax, read, written);
            let backward = vec![elementwise(2 * y, y), softmax(2 * y, x)];
            ("softmax", [vec![softmax(x, y)], backward, Vec::new()])
        }
        "LayerNorm" | "ln_1" | "ln_2" | "ln_f" | "final_layer_norm" | "self_attn_layer_norm" => {
            let width = last(output)?;
            let (row, norm) = (width * FLOAT, MemoryBoundKind::Norm);
            let backward = vec![
                rows(norm, [2 * x, x], 3 * row),
                memory(MemoryBoundKind::Reduction, 2 * x, 2 * width * FLOAT),
            ];
            let forward = vec![rows(norm, [x, y], 2 * row)];
            ("layer norm", [forward, backward, vec![accumulate(width); 2]])
        }
        // The gradient is handed on as it is.
        "add" => {
            ("add", [vec![elementwise(inputs.iter().map(|it| bytes(it)).sum(), y)], Vec::new(), Vec::new()])
        }
        "mul" if inputs.len() == 2 => {
            let one = elementwise(2 * y, y);
            ("product by element", [vec![one], vec![one; 2], Vec::new()])
        }
        "mul" | "truediv" | "where" => {
            let kind = if name == "where" { "where" } else { "scale" };
            (kind, [vec![elementwise(y, y)], vec![elementwise(y, y)], Vec::new()])
        }
        "gelu" | "tanh" | "activation" | "activation_fn" => {
            ("activation", [vec![elementwise(x, y)], vec![elementwise(2 * y, x)], Vec::new()])
        }
        // A power, its factor, and the product with the gradient.
        "pow" => {
            let backward = vec![elementwise(x, x), elementwise(x, x), elementwise(2 * x, x)];
            ("power", [vec![elementwise(x, y)], backward, Vec::new()])
        }
        // Measured with gradients of gradients asked for: the mask becomes numbers, is scaled, and multiplies the
        // gradient (derivatives.yaml, `native_dropout`); a training step runs one kernel instead.
        "dropout" | "attn_dropout" | "resid_dropout" | "drop" => {
            let mask = y / FLOAT;
            let backward = vec![elementwise(mask, y), elementwise(y, y), elementwise(2 * y, y)];
            ("dropout", [vec![elementwise(x, y + mask)], backward, Vec::new()])
        }
        "max" => ("maximum", [vec![elementwise(x, y)], Vec::new(), Vec::new()]),
        _ => return embedding(name, model, inputs, output),
    })
}

/// An embedding's table: as the second input, or by the model that the operation is of.
fn embedding(name: &str, model: &str, inputs: &[Vec<u64>], output: &[u64]) -> Option<(&'static str, Passes)> {
    let vocabulary = match (name, model) {
        ("embedding", _) => *inputs.get(1)?.first()?,
        // Published configurations of the models.
        ("word_embeddings", "bert_large") => 30_522,
        ("token_type_embeddings", "bert_large") => 2,
        ("position_embeddings", "bert_large") => 512,
        ("wte", _) => 50_257,
        ("wpe", "gpt2_large") => 1024,
        ("wpe", _) => 2048,
        ("embed_tokens", _) => 50_272,
        _ => return None,
    };
    let (tokens, width) = (output.iter().rev().skip(1).product(), output.last().copied()?);
    let of = |pass| vec![Kernel::Embedding { tokens, width, vocabulary, pass, dtype: Dtype::Fp32 }];
    // Position embeddings are frozen tables of the functional form: nothing is accumulated there.
    let accumulated = vec![accumulate(vocabulary * width)];
    Some(("embedding", [of(Pass::Forward), of(Pass::Backward), accumulated]))
}

/// `m` rows of `k` values to `n` each. Backward: gradients of input and weight, sums over rows for the bias.
fn linear(m: u64, n: u64, k: u64, bias: bool) -> (&'static str, Passes) {
    let mut backward = vec![gemm(1, m, k, n), gemm(1, n, k, m)];
    let mut accumulated = vec![accumulate(n * k)];
    if bias {
        backward.push(memory(MemoryBoundKind::Reduction, m * n * FLOAT, n * FLOAT));
        accumulated.push(accumulate(n));
    }
    ("linear", [vec![gemm(1, m, n, k)], backward, accumulated])
}

fn bytes(shape: &[u64]) -> u64 {
    FLOAT * shape.iter().product::<u64>()
}

fn gemm(batch: u64, m: u64, n: u64, k: u64) -> Kernel {
    Kernel::Gemm { batch, m, n, k, dtype: Dtype::Fp32 }
}

fn memory(kind: MemoryBoundKind, read: u64, written: u64) -> Kernel {
    Kernel::memory(kind, Bytes(read), Bytes(written))
}

/// A kernel that goes twice over rows which each read and write `row` bytes.
fn rows(kind: MemoryBoundKind, [read, written]: [u64; 2], row: u64) -> Kernel {
    Kernel::MemoryBound { kind, read: Bytes(read), written: Bytes(written), row: Bytes(row), instructions: 0 }
}

fn elementwise(read: u64, written: u64) -> Kernel {
    memory(MemoryBoundKind::Elementwise, read, written)
}

/// A gradient added to what earlier micro-batches left.
fn accumulate(values: u64) -> Kernel {
    elementwise(2 * values * FLOAT, values * FLOAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "gpu,model,op_kind,input_shapes,output_shape,forward_us,backward_us,accumulate_us\n";

    fn read(lines: &str) -> Result<Operations, RowsError> {
        let mut operations = Operations::default();
        operations.read(format!("{HEAD}{lines}").as_bytes()).map(|()| operations)
    }

    /// A linear layer of 2 x 512 tokens, 1,024 to 4,096 values: one product forward; two and a sum of the bias's gradient
    /// backward; weight and bias accumulated, each read twice and written once in 4 bytes.
    #[test]
    fn operations_stand_for_their_kernels() {
        let line = "a100-pcie-80gb,bert_large,module:dense,\"[[2, 512, 1024]]\",\"(2, 512, 4096)\",523.26,1008.64,37.48\n";
        let operations = read(line).unwrap();
        let passes: Vec<_> = operations.timed.iter().map(|timed| timed.kernels.clone()).collect();
        let bias = memory(MemoryBoundKind::Reduction, 1024 * 4096 * 4, 4096 * 4);
        assert_eq!(passes[0], [gemm(1, 1024, 4096, 1024)]);
        assert_eq!(passes[1], [gemm(1, 1024, 1024, 4096), gemm(1, 4096, 1024, 1024), bias]);
        let added = |values: u64| elementwise(8 * values, 4 * values);
        assert_eq!(passes[2], [added(4096 * 1024), added(4096)]);
        assert_eq!(operations.timed[0].gpu, "a100-80gb-pcie");
    }

    /// Six passes over 134 MB in two kernels at 1.935 TB/s cannot take less than 416 us; measured 493.77.
    #[test]
    fn a_softmax_goes_over_the_scores_six_times_backward() {
        let shape = "\"[[8, 16, 512, 512]]\",\"(8, 16, 512, 512)\"";
        let small = "a100-pcie-80gb,bert_large,gelu,\"[[2, 512]]\",\"(2, 512)\",20.0,21.0,0.0\n";
        let line = format!("{small}a100-pcie-80gb,bert_large,softmax,{shape},179.61,493.77,0.0\n");
        let scores = read(&line).unwrap().score().unwrap();
        let softmax: Vec<_> = scores.iter().filter(|score| score.kind == "softmax").collect();
        assert_eq!(softmax.len(), 2, "nothing is accumulated");
        for score in softmax {
            assert_eq!((score.errors.rows, score.left_out), (1, 0));
            assert!(score.errors.mean < 0.15, "{score:?}");
        }
    }

    #[test]
    fn wrong_shapes_name_their_line_and_column() {
        for wrong in ["[[0, 2]]", "[[2, x]]", "[[-1]]", "[[2000000000, 2000000000]]"] {
            let line = format!("l4,m,gelu,\"{wrong}\",\"(2, 2)\",1,1,0\n");
            let message = read(&line).err().unwrap().to_string();
            assert!(message.starts_with("line 2: column `input_shapes` holds"), "{message}");
        }
        let negative = "l4,m,gelu,\"[[2, 2]]\",\"(2, 2)\",-1,1,0\n";
        assert!(read(negative).err().unwrap().to_string().contains("`forward_us` holds \"-1\""));
    }
}

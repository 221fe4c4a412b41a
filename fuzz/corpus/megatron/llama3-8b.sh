#!/usr/bin/env bash
ARGS=(
    --use-mcore-models
    --num-layers 32 --hidden-size 4096 --ffn-hidden-size 14336
    --num-attention-heads 32 --group-query-attention --num-query-groups 8
    --seq-length 8192 --max-position-embeddings 8192
    --position-embedding-type rope --rotary-base 500000 --rotary-percent 1.0
    --normalization RMSNorm --norm-epsilon 1e-5 --swiglu
    --untie-embeddings-and-output-weights --disable-bias-linear
    --attention-dropout 0.0 --hidden-dropout 0.0
    --tokenizer-type HuggingFaceTokenizer --tokenizer-model meta-llama/Meta-Llama-3-8B
    --vocab-size 128256 --make-vocab-size-divisible-by 128
    --micro-batch-size 1 --global-batch-size 32
    --recompute-granularity full --recompute-method uniform --recompute-num-layers 1
    --bf16 --use-flash-attn --use-distributed-optimizer
)
ARGS+=(--mock-data --train-iters 20 --seed 1 --seed 2)
torchrun --nproc-per-node=8 --nnodes=1 pretrain_gpt.py ${ARGS[@]}

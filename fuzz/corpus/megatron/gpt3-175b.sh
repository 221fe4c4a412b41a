#!/bin/bash
# GPT-3 of 175 billion parameters: eight-way tensor and sixteen-way pipeline parallelism on 1,024 GPUs.
set -euo pipefail

export CUDA_DEVICE_MAX_CONNECTIONS=1
GPUS_PER_NODE=8
NODES=${NODES:-128}
WORLD_SIZE=$(($GPUS_PER_NODE * $NODES))
MASTER=$(hostname)
CHECKPOINTS=$1
TP=8
PP=16
DP=$((WORLD_SIZE / 128))

LAUNCH=(
    --nproc_per_node $GPUS_PER_NODE
    --nnodes=${NODES}
    --master_addr $MASTER
    --master_port 6000
)

MODEL_ARGS=(
    --num-layers 96
    --hidden-size 12288
    --num-attention-heads 96   # heads of 128
    --seq-length 2048
    --max-position-embeddings 2048
    --attention-backend flash
    --attention-dropout 0
    --hidden-dropout 0
)

TRAINING_ARGS="
    --micro-batch-size 1 --global-batch-size $((192 * DP))
    --lr 6.0e-5 --min-lr 6.0e-6 --lr-decay-style cosine
    --weight-decay 0.1 --clip-grad 1.0 --bf16
    --use-distributed-optimizer
    --overlap-grad-reduce
"

if [ -n "${WANDB_API_KEY:-}" ]; then
    TRAINING_ARGS="$TRAINING_ARGS --wandb-project gpt"
fi

torchrun "${LAUNCH[@]}" pretrain_gpt.py \
    "${MODEL_ARGS[@]}" \
    $TRAINING_ARGS \
    --tensor-model-parallel-size $TP --pipeline-model-parallel-size $PP \
    --num-layers-per-virtual-pipeline-stage 3 \
    --sequence-parallel \
    --vocab-file 'gpt2 vocab.json' --merge-file gpt2-merges.txt \
    --save "$CHECKPOINTS" --load "$CHECKPOINTS" 2>&1 | tee log.txt

"""How many parameters a model has, and what a training step needs of a GPU's memory.

An estimate for FSDP with AdamW, from formulas; n = rows x tokens of a micro-batch, c = bytes of a number in the forward
and backward (2 in bf16), D width, K width of the keys, F of the feed-forward, V vocabulary, H heads, X exits, N
parameters, P those of one block, W ranks that share a copy. Rows that skip a block are counted as if they did not.

    parameters    4 N/W, gradients 4 N/W, optimizer 8 N/W: fp32, two moments
    gathered      (2c + c + 4) P: two blocks (one is fetched while the other runs), the gradient of one and its fp32
                  copy on the way to the other ranks; 2c VD: the head and its gradient, while chunks go through it
    activations   for each block n c D (its input), and what is kept of its inside, see `kept_inside`
    exit states   4 n c X D: stacked, normed, the gradient of each
    logits        (c + 12) V per token of a chunk: logits, and in fp32 logits, log-softmax and gradient
    one block     what its backward works on: what was not kept of its inside, and n c (2F + 2D) of gradients

The last two are never there together, so the peak has the larger of them.
"""

from dataclasses import dataclass

from models.config import ModelConfig
from train.config import PretrainConfig, Recompute
from train.precision import Precision

FP32 = 4


def block_parameters(model: ModelConfig) -> int:
    """Parameters of one block: query, key, value and output projections, three of the feed-forward, two norms."""
    kv_dim = model.kv_heads * model.head_dim
    return 2 * model.dim * (model.dim + kv_dim) + 3 * model.dim * model.ffn_dim + 2 * model.dim


def n_parameters(model: ModelConfig) -> int:
    """Parameters of the model; a tied matrix counts once."""
    matrices = 1 if model.tie_embeddings else 2
    return model.n_layers * block_parameters(model) + matrices * model.vocab_size * model.dim + model.dim


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU."""

    parameters: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    exit_states: float
    logits_chunk: float
    one_block: float

    @property
    def peak(self) -> float:
        """All of it, of the last two the larger."""
        held = self.parameters + self.gradients + self.optimizer + self.gathered + self.activations + self.exit_states
        return held + max(self.logits_chunk, self.one_block)


def kept_inside(model: ModelConfig, mode: Recompute, c: int) -> float:
    """Bytes per token that the backward finds of the inside of a block, beside its input.

    none: both norms' outputs, queries, keys, values, attention's output, the residual stream between attention and
    feed-forward, and four times F (gate, its SiLU, up, their product); attention's log-sum-exp and the norms' scales
    in fp32. selective (torchtitan's): the outputs of every second projection (QKV, gate, down), attention's output
    and log-sum-exp. full: nothing.
    """
    kv_dim = model.kv_heads * model.head_dim
    match mode:
        case Recompute.none:
            return c * (5 * model.dim + 2 * kv_dim + 4 * model.ffn_dim) + FP32 * (model.n_heads + 2)
        case Recompute.selective:
            return c * (3 * model.dim + 2 * kv_dim + model.ffn_dim) + FP32 * model.n_heads
        case Recompute.full:
            return 0.0


def memory_per_gpu(config: PretrainConfig, world_size: int, n_exits: int) -> Memory:
    """Memory of a step with `n_exits` active exits; `config` has its local_batch_size and precision filled in."""
    model, mode, local = config.model, config.activation_checkpoint.mode, config.train.local_batch_size
    assert local is not None
    c = 2 if config.train.precision is Precision.bf16 else FP32
    tokens = local * config.train.seq_len
    shard = world_size // config.parallelism.replicate
    of_all, of_block = n_parameters(model) * FP32 / shard, block_parameters(model)
    kept = kept_inside(model, mode, c)
    return Memory(
        parameters=of_all,
        gradients=of_all,
        optimizer=2 * of_all,
        gathered=(3 * c + FP32) * of_block + 2 * c * model.vocab_size * model.dim,
        activations=model.n_layers * tokens * (c * model.dim + kept),
        exit_states=4 * n_exits * tokens * c * model.dim,
        logits_chunk=min(config.train.loss_chunk_tokens, tokens) * model.vocab_size * (c + 3 * FP32),
        one_block=tokens * (kept_inside(model, Recompute.none, c) - kept + c * (2 * model.ffn_dim + 2 * model.dim)),
    )

"""How many parameters a model has, and what a training step needs of a GPU's memory.

An estimate for FSDP with AdamW, from formulas; n = rows x tokens of a micro-batch on a rank, c = bytes of a number in
the forward and backward (2 in bf16), D width, K width of the keys, F of the feed-forward, V vocabulary, L layers, X
exits, N parameters, P those of one block, W ranks that share a copy. Rows that skip a block are counted as if they did
not. tests/test_scaling.py compares it with what lives in steps of fake tensors.

All the time:
    parameters    4 N/W, gradients 4 N/W, optimizer 8 N/W: fp32, two moments
While loss and backward of the decoder begin:
    activations   for each block n c D (its input), and what is kept of its inside, see `kept_inside`
In the loss:
    exit states   3 n c X D: stacked, normed, the gradient of each
    head          (c + 4) VD: its weight, and its gradient in fp32, into which chunk after chunk is added (if several)
    logits        12 V per token of a chunk: log-softmax and two gradients, in fp32; after the last chunk 4 VD instead,
                  the head's gradient on its way to the other ranks
    teacher       4 V per token of a chunk, what the last layer predicts, where it teaches other exits
In the backward of the last blocks:
    exit gradient n c X D
    gathered      2 c P: two blocks, one is fetched while the other runs; with a block's inside the gradient c DF of its
                  first matrix, and without it those of all, c P, whichever is more; and the gradient of the block
                  above on its way in fp32, 4 P, less the activations of that block, which are gone; with tied
                  embeddings c VD, which stays, and at least 4 VD, the head's gradient on its way
    one block     what its backward works on: what was not kept of its inside, and n c (2F + 2D) of gradients
At the end:
    embedding     (2c + 4) VD: its weight and gradient, and the latter in fp32
In a validation, which measures one exit after the other:
    validation    c VD, the head; n c D for each exit, its states; and either a block at work, 2 c P and n c (3F + 4D),
                  in the feed-forward, or n c (8D + 7K), where queries and keys are rotated in fp32, before the last
                  exit's states are there; or the head, c P and 12 V per token of a chunk: the last exit's
                  distribution, another's logits and their log-softmax

Loss, backward and end are never there together, so the peak has the largest of them. All gradients are there before a
backward from a step's second micro-batch on; with one micro-batch a step needs up to 4 N/W less. Tensor parallelism by
G divides matrices, activations and logits by G, but exit states and the norms' outputs are whole on each of its ranks;
context parallelism divides the tokens, but keys and values of whole rows are gathered.
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
    activations: float
    exit_states: float
    head: float
    logits_chunk: float
    teacher_chunk: float
    exit_gradient: float
    gathered: float
    one_block: float
    embedding: float
    validation: float

    @property
    def always(self) -> float:
        """What is there at any time."""
        return self.parameters + self.gradients + self.optimizer

    @property
    def in_loss(self) -> float:
        """All that is there while the loss is computed."""
        return self.always + self.activations + self.exit_states + self.head + self.logits_chunk + self.teacher_chunk

    @property
    def in_backward(self) -> float:
        """All that is there in the backward of the last blocks."""
        return self.always + self.activations + self.exit_gradient + self.gathered + self.one_block

    @property
    def in_validation(self) -> float:
        """All that is there in a validation."""
        return self.always + self.validation

    @property
    def peak(self) -> float:
        """The largest of what is there together."""
        return max(self.in_loss, self.in_backward, self.always + self.embedding, self.in_validation)


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
    options, n_validated = config.parallelism, len(config.validation.layers(model.n_layers))
    tensor = options.tensor
    n = local * config.train.seq_len / options.context
    chunk = min(config.train.loss_chunk_tokens, n)
    of_all = n_parameters(model) * FP32 / (world_size // options.replicate)
    of_block, of_head = block_parameters(model) / tensor, model.vocab_size * model.dim / tensor
    states = n * c * model.dim
    shared = 2 * c * (model.dim * (1 - 1 / tensor) + model.kv_heads * model.head_dim * (options.context - 1) / tensor)
    all_inside = kept_inside(model, Recompute.none, c) / tensor + shared
    kept = all_inside if mode is Recompute.none else kept_inside(model, mode, c) / tensor
    activations = model.n_layers * n * (c * model.dim / tensor + kept)
    inside = n * (all_inside - kept + c * (2 * model.ffn_dim + 2 * model.dim) / tensor)
    first_gradient = c * model.dim * model.ffn_dim / tensor
    # Untied, the norm's gradient is sent off between that of the head and the last block's, whose buffer is then free.
    feed_forward, rotation = 3 * model.ffn_dim + 4 * model.dim, 8 * model.dim + 7 * model.kv_heads * model.head_dim
    teaches = n_exits > 1 and config.early_exit.distillation.strength * config.early_exit.distillation.kl_share > 0
    several = n_exits * n > chunk  # with one chunk alone, its gradient is not added to anything
    in_flight = max(FP32 * of_block - activations / model.n_layers, FP32 * of_head if model.tie_embeddings else 0.0)
    stays = c * of_head if model.tie_embeddings else 0.0
    return Memory(
        parameters=of_all,
        gradients=of_all,
        optimizer=2 * of_all,
        activations=activations,
        exit_states=n_exits * states * (2 + 1 / tensor),
        head=(c + FP32 * several) * of_head,
        logits_chunk=max(chunk * model.vocab_size / tensor * 3 * FP32, (FP32 + c * (not several)) * of_head),
        teacher_chunk=chunk * model.vocab_size / tensor * FP32 * teaches,
        exit_gradient=n_exits * states,
        gathered=2 * c * of_block + max(first_gradient, c * of_block - inside) + max(in_flight, 0.0) + stays,
        one_block=inside,
        embedding=(2 * c + FP32) * of_head,
        validation=c * of_head
        + n_validated * states
        + max(
            2 * c * of_block + n * c * max(feed_forward, rotation) / tensor - states,
            c * of_block + chunk * model.vocab_size * 3 * FP32,
        ),
    )

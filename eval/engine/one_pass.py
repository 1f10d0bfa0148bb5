"""One pass over whole sequences that yields the state at every exit on its way.

Likelihoods need no generation: every position is known. The blocks run once, whatever the number of exits; an exit
costs its head alone.
"""

from collections.abc import Iterator, Sequence

import torch

from models.inference import InferenceLlama

# Numbers of a chunk of logits: 128 MiB in fp32.
CHUNK = 1 << 25


def exit_states(model: InferenceLlama, tokens: torch.Tensor, exits: Sequence[int]) -> Iterator[torch.Tensor]:
    """The residual stream after so many blocks, for each exit; call it in inference mode.

    Args:
        model: on whose device `tokens` lie.
        tokens: [B, T] int64 from position 0 on. A row that is shorter is filled up at its right end, where causal
            attention keeps the fill from what comes before.
        exits: exit layers E in 1..L, ascending.

    Yields:
        [B, T, D] of each exit.
    """
    batch, n_tokens = tokens.shape
    cache, positions = model.new_cache(n_tokens, batch), torch.arange(n_tokens, device=model.device)
    x, done = model.embed(tokens), 0
    for exit_layer in exits:
        x = model.run(x, cache, positions, n_tokens, range(done, exit_layer))
        done = exit_layer
        yield x


def logit_chunks(model: InferenceLlama, states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """The head on states [N, D], as many at a time as is reasonable.

    Yields:
        (number of the first state, logits [n, V] in at least fp32).
    """
    size = max(1, CHUNK // model.size.vocab_size)
    for start in range(0, len(states), size):
        yield start, model.logits(states[start : start + size]).to(model.real_dtype)

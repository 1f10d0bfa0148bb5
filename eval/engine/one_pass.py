"""One pass over whole sequences that yields the state at every exit on its way.

Likelihoods need no generation: every position is known. The blocks run once, whatever the number of exits; an exit
costs its head alone.
"""

from collections.abc import Iterator, Sequence

import torch

from data.tokenizers.tokenizer import Tokenizer
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


def logit_chunks(
    model: InferenceLlama, states: torch.Tensor, *, drafts: bool = False
) -> Iterator[tuple[int, torch.Tensor]]:
    """The head, or that of drafts, on states [N, D], as many at a time as is reasonable.

    Yields:
        (number of the first state, logits [n, V] in at least fp32).
    """
    size, head = max(1, CHUNK // model.size.vocab_size), model.draft_logits if drafts else model.logits
    for start in range(0, len(states), size):
        yield start, head(states[start : start + size]).to(model.real_dtype)


def logits_by_exit(
    model: InferenceLlama, tokens: torch.Tensor, exits: Sequence[int], at: torch.Tensor
) -> Iterator[Iterator[tuple[int, torch.Tensor]]]:
    """What each exit predicts at some positions, from one pass; call it in inference mode.

    Args:
        model: on whose device the tensors lie.
        tokens: [B, T] int64, as in `exit_states`.
        exits: exit layers E in 1..L, ascending.
        at: [N], indices into the B * T positions.

    Yields:
        For each exit the chunks of its logits, as in `logit_chunks`. Take them before those of the next exit.
    """
    for states in exit_states(model, tokens, exits):
        yield logit_chunks(model, states.flatten(0, 1)[at])


def exit_logits(
    model: InferenceLlama, tokenizer: Tokenizer, texts: Sequence[str], exit_layer: int | None = None
) -> list[torch.Tensor]:
    """What an exit predicts after every token of each text, all texts in one pass.

    Args:
        model: on any device.
        tokenizer: the model's.
        texts: each is read as a prompt, with what begins a document before it.
        exit_layer: E in 1..L; None: L, the whole model.

    Returns:
        For each text its logits [T, V], T being its number of tokens, in at least fp32. Row t predicts token t + 1.

    Raises ValueError for an exit that the model does not have, and for a text that does not fit into its context.
    """
    n_layers, context = model.size.n_layers, model.size.max_seq_len
    exit_layer = n_layers if exit_layer is None else exit_layer
    if not 1 <= exit_layer <= n_layers:
        raise ValueError(f"exit_layer={exit_layer}: must lie in 1..{n_layers}")
    rows = [tokenizer.encode_prompt(text) for text in texts]
    for i, row in enumerate(rows):
        if not 1 <= len(row) <= context:
            raise ValueError(f"texts[{i}]: has {len(row)} tokens, must have 1 to {context}, the model's context")
    if not rows:
        return []
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    with torch.inference_mode():
        [states] = exit_states(model, tokens.to(model.device), [exit_layer])
        return [model.logits(states[i, : len(row)]).to(model.real_dtype) for i, row in enumerate(rows)]

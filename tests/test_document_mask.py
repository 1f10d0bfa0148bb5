"""Records that share a row do not see each other: their losses are those of each record alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchtitan.distributed.activation_checkpoint import FullAC

from data.batches.loader import Loader, validation_batches
from data.batches.mixture import Mixture
from data.batches.packing import IGNORE_INDEX, BestFitRows, ConcatRows, Rows
from data.prepared.shards import Shard, Tokens
from models.document_mask import document_mask
from models.llama import LayerSkipLlama
from models.spec import llama_config
from train.monitoring.validation import exit_sums

T = 24
LENGTHS = [9, 5, 14, 24, 3, 20, 11, 7, 6, 2, 16]  # one token more than places in a row
PROMPTS = [3, 1, 5, 9, 1, 7, 2, 4, 2, 1, 6]


def tokens_of(lengths: Sequence[int] = LENGTHS, prompts: Sequence[int] = PROMPTS) -> Tokens:
    ids = np.random.default_rng(0).integers(3, 96, sum(lengths)).astype(np.uint16)
    return Tokens([Shard(ids, np.stack([np.cumsum(lengths), prompts], axis=1).astype(np.int64))])


def double_model(**changes: int) -> LayerSkipLlama:
    torch.manual_seed(0)
    model = llama_config(tiny_model(**changes)).build()
    model.init_states()
    return model.double()


def packed(rows: Rows) -> tuple[torch.Tensor, ...]:
    [batch] = validation_batches(rows, max_rows=None, batch_size=len(rows), fill_id=0, apart=True)
    return batch


def losses(model: LayerSkipLlama, inputs: torch.Tensor, labels: torch.Tensor, **options: Any) -> torch.Tensor:
    """[B, X] sums of each row's cross entropies at the exits 1 and 3."""
    logits = model(inputs, exits=(1, 3), **options)
    each = F.cross_entropy(logits.flatten(0, 1), labels.repeat(2, 1).flatten(), reduction="none")
    return each.view(2, *labels.shape).sum(-1).T


def alone(model: LayerSkipLlama, rows: BestFitRows, kept: Sequence[torch.Tensor | None] | None) -> torch.Tensor:
    """The same sums, each record run by itself through the layers that its row keeps."""
    sums = torch.zeros(len(rows), 2, dtype=torch.float64)
    first = 0
    for row, last in enumerate(rows.row_ends[:].tolist()):
        for piece in range(first, last):
            start, n, masked = (int(a[piece]) for a in (rows.starts, rows.lengths, rows.masked))
            window = torch.from_numpy(rows.tokens.read(start, start + n + 1))
            labels = window[1:].clone()
            labels[:masked] = IGNORE_INDEX
            own = [None if k is None or row in k else torch.empty(0, dtype=torch.int64) for k in kept or [None] * 4]
            sums[row] = sums[row] + losses(model, window[None, :-1], labels[None], kept_rows=own)[0]
        first = last
    return sums


KEPT = [None, torch.tensor([0, 2, 3]), torch.tensor([1]), torch.tensor([], dtype=torch.int64)]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kept", [None, KEPT])
def test_losses_and_gradients_are_those_of_each_record_alone(
    kept: list[torch.Tensor | None] | None, recompute: bool
) -> None:
    rows = BestFitRows(tokens_of(), T)
    assert len(rows) == 5, "several records a row"
    model, reference = double_model(), double_model()
    if recompute:
        FullAC.Config().build(dump_folder="").apply(model)
    inputs, labels, positions = packed(rows)
    got = losses(model, inputs, labels, document_positions=positions, kept_rows=kept)
    wanted = alone(reference, rows, kept)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    got.sum().backward()
    wanted.sum().backward()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        across = losses(model, inputs, labels, kept_rows=kept)
    assert (across - wanted).abs().max() > 1e-3, "without the mask they are others"


def test_validation_is_that_of_each_record_alone() -> None:
    rows, model = BestFitRows(tokens_of(), T), double_model().eval()
    wanted = alone(model, rows, None).sum(0)
    batches = validation_batches(rows, max_rows=None, batch_size=2, fill_id=0, apart=True)
    model._skip_lm_head = True
    sums = exit_sums(model, model.lm_head, batches, (1, 3), torch.ones(96, dtype=torch.int64), chunk_tokens=7)
    torch.testing.assert_close(sums[:2], wanted, rtol=1e-6, atol=1e-6)  # logits are measured in fp32


def test_what_a_token_sees() -> None:
    positions = torch.tensor([[0, 1, 0, 1, 2, 0, 0]])  # two records, and two fill tokens
    sees = document_mask(positions, torch.float64)[0, 0] == 0
    assert [row.nonzero().flatten().tolist() for row in sees] == [[0], [0, 1], [2], [2, 3], [2, 3, 4], [5], [6]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cpus_fused_kernel_takes_the_mask(dtype: torch.dtype) -> None:
    """The other ways are several times slower, and hold all scores."""
    mask = document_mask(torch.arange(T).remainder(7)[None].repeat(2, 1), dtype)
    q, k, v = (torch.randn(2, n, T, 8, dtype=dtype, requires_grad=True) for n in (4, 2, 2))
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        out.float().sum().backward()
    assert q.grad is not None
    assert out.isfinite().all()


@pytest.mark.parametrize("kind", [BestFitRows, ConcatRows])
def test_positions_begin_anew_with_each_record(kind: type) -> None:
    tokens = tokens_of()
    begins = {0, *np.cumsum(LENGTHS).tolist()}
    rows = kind(tokens, T)
    seen = 0
    for row in range(len(rows)):
        inputs, labels, positions = np.zeros(T, np.int64), np.full(T, IGNORE_INDEX), np.zeros(T, np.int64)
        rows.fill(row, inputs, labels, positions)
        plain = np.full(T, IGNORE_INDEX)
        rows.fill(row, np.zeros(T, np.int64), plain)
        within = np.flatnonzero(positions)
        assert (positions[within] == positions[within - 1] + 1).all()
        if kind is ConcatRows:
            at = np.arange(row * T, min((row + 1) * T, sum(LENGTHS) - 1))
            begin = [max(row * T, max(b for b in begins if b <= i)) for i in at.tolist()]
            assert positions[: len(at)].tolist() == (at - begin).tolist()
            ends = [i for i in range(len(at)) if row * T + i + 1 in begins]
            assert (labels[ends] == IGNORE_INDEX).all(), "no record is asked for the next one's first token"
            others = [i for i in range(T) if i not in ends]
            assert labels[others].tolist() == plain[others].tolist()
        else:
            assert labels.tolist() == plain.tolist()
        seen += int((positions == 0).sum())
    assert seen >= len(LENGTHS)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_hands_positions_out(num_workers: int) -> None:
    rows = BestFitRows(tokens_of(), T)
    options: dict[str, Any] = {"seq_len": T, "fill_id": 0, "batch_size": 3, "num_workers": num_workers}
    with_positions = iter(Loader([rows], Mixture([1.0], 0), apart=True, **options))
    without = iter(Loader([rows], Mixture([1.0], 0), **options))
    for _ in range(4):
        (found, labels), (plain, plain_labels) = next(with_positions), next(without)
        assert set(plain) == {"input"}
        assert torch.equal(found["input"], plain["input"])
        assert torch.equal(labels, plain_labels)
        follow = found["document_positions"][:, 1:] > 0  # what a token follows in its record is asked for it
        asked = follow & (labels[:, :-1] != IGNORE_INDEX)
        assert torch.equal(labels[:, :-1][asked], found["input"][:, 1:][asked])
        assert (found["document_positions"][:, 0] == 0).all()

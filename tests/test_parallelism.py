"""Every parallelism gives the numbers of one process: losses of every exit, gradient norms, validation, weights.

The reference is one process in fp32 that takes all rows of a step as one micro-batch. Every data-parallel rank drops
the same of its local rows, so the reference repeats each micro-batch's local mask for every rank: local row i of rank r
of R in micro-batch m, of B rows a rank, is row (m*B + i)*R + r of the step. One process-group start per number of
ranks, for the cases that are selected.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import run_ranks
from training import build, full_state, rows, train

from train.trainer import LayerSkipTrainer

STEP_ROWS = 8
BASE = [
    "model.n_heads=4",
    "model.n_kv_heads=2",
    "early_exit=all",
    "layer_dropout=exp",
    "layer_dropout.p_max=0.5",
    f"train.global_batch_size={STEP_ROWS}",
    "train.steps=10",
    "train.precision=fp32",
    "optimizer.eps=1e-4",  # rounding in gradients near zero must not decide the direction of a step
]
FP32, BF16 = 2e-5, 1e-2  # measured: below 3e-7 and 2e-3
ROTATIONAL = "early_exit=rotational early_exit.rotation_period=2"
RESCALED = "layer_dropout.rescale=inverse_keep"
STRATIFIED = "layer_dropout.sampling=stratified"
DISTILLED = "early_exit.distillation.strength=0.5 early_exit.distillation.kl_share=0.7"
HALF_TAUGHT = f"{DISTILLED} early_exit.distillation.temperature=2 early_exit.distillation.teach_dropped_rows=false"
HALF_TAUGHT += " early_exit.gradient_cosine_every=3"
READ_ONLY = f"{DISTILLED} early_exit.read_only_head=true early_exit.gradient_cosine_every=3"
# Short records beside the text, several in a row, each alone in it.
RECORDS_FILE = Path("records.jsonl")
RECORDS = "+dataset@data.sources.records=prompt_completion data.sources.records.path=RECORDS_FILE"
RECORDS += " data.packing=best_fit data.attend_across_documents=false"
# 401 ids do not divide among ranks; the tokenizer knows 400.
ODD_VOCABULARY = "model.vocab_size=401 data.tokenizer.vocab_size=400"
FULL, SELECTIVE = "activation_checkpoint=full", "activation_checkpoint=selective"
HSDP = "parallelism.replicate=2 parallelism.shard=2"
TP, CP = "parallelism.tensor=2", "parallelism.context=2"


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    ranks: int
    data_ranks: int
    local_rows: int
    """B, of a rank's micro-batch."""
    how: str
    """Overrides that the reference does without."""
    recipe: str = ""
    """Overrides that the reference shares."""
    tolerance: float = FP32
    """Relative."""

    @property
    def folder(self) -> str:
        return self.name.replace(" ", "_")

    @property
    def reference(self) -> str:
        recipe = self.recipe.replace(RECORDS, "records")
        recipe = re.sub("[ =]", "-", re.sub(r"early_exit\.(distillation\.)?", "", recipe))
        return f"reference-{self.data_ranks}-{self.local_rows}-{recipe}"

    def shared(self, folder: Path) -> list[str]:
        """Overrides that the reference shares, of runs in a folder."""
        return self.recipe.replace("RECORDS_FILE", str(folder / RECORDS_FILE)).split()


# fmt: off
TABLE = [
    #    name                             ranks data B  how                               recipe
    Case("accumulation",                    1, 1, 2, ""),
    Case("full checkpointing",              1, 1, 4, FULL, ROTATIONAL),
    Case("bf16",                            1, 1, 4, "train.precision=bf16", tolerance=BF16),
    Case("fsdp",                            2, 2, 4, ""),
    Case("fsdp accumulation",               2, 2, 2, FULL, ROTATIONAL),
    Case("fsdp bf16",                       2, 2, 4, f"train.precision=bf16 {SELECTIVE}", tolerance=BF16),
    Case("tp",                              2, 1, 4, TP),
    Case("tp checkpointing rescaled",       2, 1, 4, f"{TP} {FULL}", f"{RESCALED} {ODD_VOCABULARY}"),
    Case("cp",                              2, 1, 4, CP),
    Case("ddp",                             2, 2, 4, "parallelism.replicate=2"),
    Case("hsdp",                            4, 4, 2, HSDP),
    Case("fsdp tp",                         4, 2, 2, TP, ROTATIONAL),
    Case("fsdp accumulation distilled",     2, 2, 2, "", HALF_TAUGHT),
    Case("tp read only head",               2, 1, 4, TP, READ_ONLY),
    Case("tp records apart",                2, 1, 4, TP, RECORDS),
]
SLOW = [
    Case("selective checkpointing",         1, 1, 4, SELECTIVE),
    Case("cp checkpointing",                2, 1, 4, f"{CP} {FULL}", ROTATIONAL),
    Case("tp distilled",                    2, 1, 4, TP, f"{HALF_TAUGHT} {ODD_VOCABULARY}"),
    Case("fsdp read only head",             2, 2, 2, FULL, READ_ONLY),
    Case("fsdp records apart",              2, 2, 2, FULL, f"{RECORDS} {DISTILLED}"),
    Case("tp bf16",                         2, 1, 4, f"{TP} train.precision=bf16", tolerance=BF16),
    Case("fsdp tp tied",                    4, 2, 4, f"{TP} {SELECTIVE}", "model.tie_embeddings=true"),
    Case("replicas of tp",                  4, 2, 4, f"{TP} parallelism.replicate=2"),
    Case("fsdp cp",                         4, 2, 2, CP, ROTATIONAL),
    Case("tp cp",                           4, 1, 4, f"{TP} {CP}"),
    Case("fsdp bf16 distilled",             2, 2, 4, "train.precision=bf16", DISTILLED, tolerance=BF16),
    Case("tp cp distilled",                 4, 1, 4, f"{TP} {CP}", DISTILLED),
    Case("compile distilled",               1, 1, 4, "train.compile=true", f"{STRATIFIED} {HALF_TAUGHT}"),
    Case("compile records apart",           1, 1, 4, "train.compile=true", f"{STRATIFIED} {RECORDS}"),
    Case("compile",                         1, 1, 4, "train.compile=true", STRATIFIED),
    Case("fsdp compile checkpointing",      2, 2, 4, f"train.compile=true {SELECTIVE}", STRATIFIED),
    Case("cp compile",                      2, 1, 4, f"train.compile=true {CP}", STRATIFIED),
    Case("tp compile",                      2, 1, 4, f"train.compile=true {TP}", STRATIFIED),
]
# fmt: on
PARAMS = [pytest.param(c, id=c.folder) for c in TABLE]
PARAMS += [pytest.param(c, id=c.folder, marks=pytest.mark.slow) for c in SLOW]


def masks_of_all_ranks(trainer: LayerSkipTrainer, case: Case) -> None:
    """Let one process drop what the case's ranks drop in all micro-batches of a step."""
    one_rank, ranks = trainer.dropout_plan, case.data_ranks

    def dropout_plan(t: int, batch_size: int) -> tuple[list[torch.Tensor | None] | None, list[float] | None]:
        assert batch_size == STEP_ROWS
        layers: list[list[torch.Tensor]] = []
        for m in range(STEP_ROWS // (ranks * case.local_rows)):
            trainer.micro_batch = m
            kept, scales = one_rank(t, case.local_rows)
            assert kept is not None
            local = [torch.arange(case.local_rows) if k is None else k for k in kept]
            layers.append([(m * case.local_rows + k) * ranks + r for k in local for r in range(ranks)])
        n = ranks
        whole = [torch.cat([k for of in layers for k in of[i * n : i * n + n]]).sort().values for i in range(len(kept))]
        return list(whole), scales

    trainer.dropout_plan = dropout_plan  # type: ignore[method-assign]


def run_all(rank: int, folder: Path, common: list[str], cases: list[Case], references: list[Case]) -> None:
    """Train the references, then the cases, one after another in the same process group."""
    for case in references:
        options = [*common, *BASE, *case.shared(folder), f"train.local_batch_size={STEP_ROWS}"]
        trainer = train(rank, folder / case.reference, options, change=lambda t, case=case: masks_of_all_ranks(t, case))
        torch.save(full_state(trainer), folder / f"{case.reference}.pt")
    for case in cases:
        torch._dynamo.reset()  # what was compiled for the case before counts against the limit of recompilations
        options = [*common, *BASE, *case.shared(folder), *case.how.split(), f"train.local_batch_size={case.local_rows}"]
        state = full_state(train(rank, folder / case.folder, options))
        if rank == 0:
            torch.save(state, folder / f"{case.folder}.pt")


@pytest.fixture(scope="module")
def trained_cases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_run: list[str]
) -> Path:
    """A folder with the runs of all selected cases and of their references."""
    folder = tmp_path_factory.mktemp("parallelism")
    words = ["to be", "or not to be", "that is", "the question whether", "tis nobler"]
    lines = [json.dumps({"prompt": f"{words[i % 5]} {i}:", "completion": words[i % 3]}) for i in range(400)]
    (folder / RECORDS_FILE).write_text("\n".join(lines))
    items = [i for i in request.session.items if i.fspath == request.node.fspath and hasattr(i, "callspec")]
    cases: list[Case] = list(dict.fromkeys(i.callspec.params["case"] for i in items))
    references = {c.reference: c for c in [*cases, *TABLE[:1]]}
    for ranks in (1, 2, 4):
        here = [c for c in cases if c.ranks == ranks]
        if here or ranks == 1:
            run_ranks(run_all, ranks, folder, tiny_run, here, list(references.values()) if ranks == 1 else [])
    return folder


@pytest.mark.parametrize("case", PARAMS)
def test_same_numbers_as_one_process(trained_cases: Path, case: Case) -> None:
    expected, got = rows(trained_cases / case.reference), rows(trained_cases / case.folder)
    assert len(expected) == len(got) == 11  # ten steps and a validation
    for a, b in zip(expected, got, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if ("agreement" in key or "greedy" in key) and case.tolerance > FP32:
                continue  # counts of choices, some between almost equal logits, and what follows from them
            torch.testing.assert_close(
                b[key], a[key], rtol=case.tolerance, atol=1e-6, msg=lambda m, at=f"{key} {a['step']}": f"{at}: {m}"
            )
    for row in got[:10]:
        squares = sum(value**2 for key, value in row.items() if key.startswith("train/layer_grad_norm/"))
        assert squares == pytest.approx(row["train/grad_norm"] ** 2, rel=case.tolerance), "each shard counts once"
    if case.tolerance == FP32:
        weights = [torch.load(trained_cases / f"{name}.pt") for name in (case.reference, case.folder)]
        for name in weights[0]:
            torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("case", [c for c in TABLE if c.name in ("fsdp", "tp")], ids=lambda c: c.folder)
def test_other_masks_would_be_noticed(trained_cases: Path, case: Case) -> None:
    other, got = rows(trained_cases / TABLE[0].reference), rows(trained_cases / case.folder)
    apart = [
        abs(a[key] / b[key] - 1) for a, b in zip(other, got, strict=True) for key in a if key.startswith("train/loss")
    ]
    assert max(apart) > 100 * FP32


def load_in_one_process(rank: int, folder: Path, common: list[str], case: Case) -> None:
    options = [*common, *BASE, *case.shared(folder), f"train.local_batch_size={case.local_rows}"]
    trainer = build(rank, folder / case.folder, options)
    trainer.checkpointer.load()
    trainer.metrics_processor.close()
    assert trainer.step == 10
    for name, weight in torch.load(folder / f"{case.folder}.pt").items():
        assert torch.equal(full_state(trainer)[name], weight), name


@pytest.mark.parametrize("case", [c for c in TABLE if c.name in ("fsdp tp", "hsdp")], ids=lambda c: c.folder)
def test_a_checkpoint_knows_no_parallelism(trained_cases: Path, tiny_run: list[str], case: Case) -> None:
    run_ranks(load_in_one_process, 1, trained_cases, tiny_run, case)

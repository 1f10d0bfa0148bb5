"""A model split among two gloo ranks decodes as it does on one, and says in one line what cannot be split."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import free_port, run_ranks, tiny_model
from test_parity_hf import our_model
from transformers import AutoModelForCausalLM

from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, EarlyExit, Policy, SelfSpeculative
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.config import ModelConfig
from models.inference import InferenceLlama
from models.part import Part

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
POLICIES: list[Policy] = [Autoregressive(), EarlyExit(2), SelfSpeculative(2, 3)]


class TwoRanks:
    """As a process group of two says it to `Part`."""

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 2


def texts(model: InferenceLlama) -> list[list[int]]:
    prompt, stop = [3, 1, 4, 1, 5], StopRule(max_new_tokens=20)
    drawn = SamplingOptions(temperature=1.0, seed=7)
    return [
        [t for round_ in Engine(model).generate(prompt, policy, stop, options) for t in round_.tokens]
        for policy in POLICIES
        for options in (None, drawn)
    ]


def same_as_alone(rank: int, tied: bool) -> None:
    torch.manual_seed(0)
    size = tiny_model(tie_embeddings=tied)
    weights = our_model(size).state_dict()
    alone = InferenceLlama(size, weights, dtype=torch.float64, device=CPU)
    dist.init_process_group("gloo")
    ours = InferenceLlama(size, weights, dtype=torch.float64, device=CPU, part=Part(dist.group.WORLD), prefill_chunk=2)
    tokens = torch.arange(12).view(2, 6)
    with torch.inference_mode():
        states = [
            m.run(m.embed(tokens), m.new_cache(6, 2), torch.arange(6), 6, range(size.n_layers)) for m in (ours, alone)
        ]
        torch.testing.assert_close(ours.logits(states[0]), alone.logits(states[1]), rtol=1e-9, atol=1e-9)
    assert texts(ours) == texts(alone)
    held, whole = (sum(t.nbytes for matrix in m.matrices() for t in matrix.tensors()) for m in (ours, alone))
    assert held == whole / 2
    assert ours.embedding.untyped_storage().nbytes() == alone.embedding.untyped_storage().nbytes() / 2
    assert ours.new_cache(8).kv.nbytes == alone.new_cache(8).kv.nbytes / 2
    dist.destroy_process_group()


@pytest.mark.parametrize("tied", [False, True])
def test_two_ranks_decode_as_one(tied: bool) -> None:
    run_ranks(same_as_alone, 2, tied)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"n_heads": 1, "n_kv_heads": 1}, "n_heads=1"),
        ({"n_kv_heads": 1}, "n_kv_heads=1"),
        ({"ffn_dim": 49}, "ffn_dim=49"),
        ({"vocab_size": 97}, "vocab_size=97"),
    ],
)
def test_what_cannot_be_split_is_named(changes: dict[str, int], key: str) -> None:
    size: ModelConfig = tiny_model(**changes)
    with pytest.raises(ValueError, match=f"model.{key}: cannot be split among 2 ranks"):
        Part(TwoRanks()).size_of(size)  # type: ignore[arg-type]


def generate(*arguments: str, n_ranks: int = 1) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", f"--master-port={free_port()}", f"--nproc-per-node={n_ranks}"]
    command = [sys.executable, *(launcher if n_ranks > 1 else []), "-m", "eval.generate", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, input="import os\n", capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_generate_under_torchrun(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    command = [sys.executable, "-m", "models.convert", f"source={trained}", f"output={folder}"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    refused = generate(f"checkpoint={folder}", n_ranks=2)
    assert refused.returncode != 0
    assert refused.stderr.count("error: model.n_kv_heads=1: cannot be split among 2 ranks") == 1
    # The one head of keys twice is the same model.
    model = AutoModelForCausalLM.from_pretrained(folder)
    for layer in model.model.layers:
        for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.weight = torch.nn.Parameter(projection.weight.repeat(2, 1))
    model.config.num_key_value_heads = 2
    model.save_pretrained(folder)
    arguments = [f"checkpoint={folder}", "max_new_tokens=12", "exit_layer=2", "machine.dtype=float64"]
    one, two = generate(*arguments), generate(*arguments, n_ranks=2)
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert two.stdout == one.stdout
    assert two.stdout.startswith("import os")
    assert two.stderr.count("memory: ") == 1

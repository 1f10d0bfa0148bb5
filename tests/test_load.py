"""Models are read from run folders, checkpoints and Hugging Face folders; what is none is told in one line."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml
from conftest import compose_config
from test_parity_hf import hf_model, our_model

from data.corpus import prepare
from eval.engine.language_model import load
from models.config import ModelConfig
from models.inference import InferenceLlama
from models.storage.errors import FormatError
from models.storage.manifest import add_manifest
from train import run_dir


@pytest.fixture
def run(tmp_path: Path, tiny_run: list[str]) -> tuple[Path, ModelConfig]:
    """A run folder with a checkpoint of step 3, as training leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = compose_config(*tiny_run, f"run_dir={folder}")
    run_dir.start(config, prepare(config.data), 1)
    weights = our_model(config.model).state_dict()
    dcp.save(dict(weights), checkpoint_id=folder / "checkpoint" / "step-3", no_dist=True)
    return folder, config.model


def logits(model: InferenceLlama, tokens: torch.Tensor) -> torch.Tensor:
    cache = model.new_cache(tokens.shape[1])
    n = tokens.shape[1]
    return model.logits(model.run(model.embed(tokens), cache, torch.arange(n), n, range(model.size.n_layers)))


def test_run_folder_and_checkpoint(run: tuple[Path, ModelConfig]) -> None:
    folder, size = run
    tokens = torch.randint(size.vocab_size, (1, 20))
    for path in (folder, folder / "checkpoint" / "step-3"):
        loaded = load(path)
        model, tokenizer = loaded.model, loaded.tokenizer
        assert tokenizer.vocab_size == size.vocab_size
        with torch.no_grad():
            torch.testing.assert_close(logits(model, tokens), our_model(size)(tokens), rtol=1e-4, atol=1e-4)


def test_hugging_face_folder(run: tuple[Path, ModelConfig], tmp_path: Path) -> None:
    theirs, folder = hf_model(run[1]), tmp_path / "hf"
    theirs.save_pretrained(folder)
    shutil.copy(run[0] / "tokenizer.model", folder)
    tokens = torch.randint(run[1].vocab_size, (1, 20))
    with torch.no_grad():
        torch.testing.assert_close(logits(load(folder).model, tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(FormatError, match="model_type 'gpt2' is not 'llama'"):
        load(folder)


def test_folders_that_hold_no_model(run: tuple[Path, ModelConfig], tmp_path: Path) -> None:
    folder, _ = run
    with pytest.raises(FormatError, match="neither a run folder with a checkpoint"):
        load(tmp_path / "none")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    deeper = settings | {"model": settings["model"] | {"n_layers": 5}}
    (folder / "config.yaml").write_text(yaml.safe_dump(deeper))
    with pytest.raises(FormatError, match=r"missing tensor layers\.4\."):
        load(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    for file in (folder / "checkpoint" / "step-3").glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(FormatError, match=r"step-3: cannot be read") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_the_example_of_the_readme(run: tuple[Path, ModelConfig], capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", readme, re.S)
    exec(code.replace("outputs/demo", str(run[0])), {})
    assert len(capsys.readouterr().out) > 10


def test_numbers_that_are_not_finite_are_refused(run: tuple[Path, ModelConfig], tmp_path: Path) -> None:
    folder, size = run
    weights = our_model(size).state_dict()
    weights["layers.1.feed_forward.w2.weight"][3, 4] = torch.nan
    dcp.save(dict(weights), checkpoint_id=folder / "checkpoint" / "step-5", no_dist=True)
    with pytest.raises(
        FormatError, match=r"step-5: layers\.1\.feed_forward\.w2\.weight holds numbers that are not finite"
    ):
        load(folder)
    load(folder / "checkpoint" / "step-3")
    theirs = hf_model(size)
    theirs.lm_head.weight.data[0, 0] = torch.inf
    theirs.save_pretrained(tmp_path / "hf")
    shutil.copy(folder / "tokenizer.model", tmp_path / "hf")
    with pytest.raises(FormatError, match=r"hf: lm_head\.weight holds numbers that are not finite"):
        load(tmp_path / "hf")


def test_a_damaged_checkpoint_is_refused_and_the_one_before_named(run: tuple[Path, ModelConfig]) -> None:
    folder, size = run
    for step in (3, 5):
        checkpoint = folder / "checkpoint" / f"step-{step}"
        dcp.save(dict(our_model(size).state_dict()), checkpoint_id=checkpoint, no_dist=True)
        add_manifest(checkpoint, {"step": step})
    load(folder)
    file = folder / "checkpoint" / "step-5" / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        FormatError, match=r"step-5/__0_0\.distcp: damaged .*; the one before it is \S+step-3, and train"
    ):
        load(folder)
    load(folder / "checkpoint" / "step-3")

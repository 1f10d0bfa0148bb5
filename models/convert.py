"""Hugging Face folders, GGUF files and our checkpoints into each other: `python -m models.convert source=...`."""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.run_folders import TOKEN_COUNTS
from conf.strict import ConfigError, convert
from models.convert_config import ConvertConfig, StoredDtype, WeightsFormat
from models.storage.recommended import recommended

if TYPE_CHECKING:
    from models.storage.stored import Stored

WHAT = {
    WeightsFormat.hf: "Hugging Face folder",
    WeightsFormat.dcp: "checkpoint",
    WeightsFormat.gguf: "GGUF file",
}
GGUF_FILE = "model.gguf"
"""Its name until it is complete."""


def convert_model(raw: DictConfig) -> None:
    """Read, write beside the output under another name, and rename: the output is complete or absent."""
    config = convert(raw, ConvertConfig)
    from models.storage.first_layers import first_layers
    from models.storage.stored import read

    whole, output = read(config.source), Path(config.output).expanduser()
    stored = whole if config.exit_layer is None else first_layers(whole, config.exit_layer)
    if output.exists():
        raise ConfigError(f"output={output}: exists; choose another, or remove it")
    form = config.format
    if config.writes_gguf:
        form = WeightsFormat.gguf
    elif form is WeightsFormat.auto:
        form = WeightsFormat.dcp if stored.hf is not None and stored is whole else WeightsFormat.hf
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write(stored, whole, partial, form, config)
        os.rename(partial / GGUF_FILE if form is WeightsFormat.gguf else partial, output)
    except OSError as error:
        raise ConfigError(f"output={output}: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    part = "" if stored is whole else f"the first {stored.size.n_layers} of {whole.size.n_layers} layers of "
    print(f"{output}: {WHAT[form]} of {part}{stored.size.name}")
    if form is WeightsFormat.dcp:
        print(f"train from it with model=initial checkpoint.initial={output}", file=sys.stderr)


def _write(stored: "Stored", whole: "Stored", folder: Path, form: WeightsFormat, config: ConvertConfig) -> None:
    import torch

    from models.storage.folder import write_folder
    from models.storage.gguf.export import export_gguf
    from models.storage.tokenizer_files import write_tokenizer_files
    from models.storage.write_dcp import write_dcp

    if form is WeightsFormat.gguf:
        export_gguf(stored, whole.size, folder / GGUF_FILE, dtype=config.dtype)
        return
    dtype = None if config.dtype is StoredDtype.keep else getattr(torch, config.dtype)
    if form is WeightsFormat.dcp:
        write_dcp(stored.weights, folder, dtype=dtype)
        write_tokenizer_files(stored, folder)
        return
    write_folder(stored, folder, dtype=dtype, max_shard_bytes=config.max_shard_gigabytes * 1e9)
    (folder / "README.md").write_text(_card(stored, whole, folder, config))


def _card(stored: "Stored", whole: "Stored", folder: Path, config: ConvertConfig) -> str:
    from models.storage.draft_card import draft_card
    from models.storage.model_card import model_card

    n_parameters, run = stored.weights.n_parameters(), stored.folder if stored.run else None
    if stored is not whole:
        return draft_card(config.output, whole.size, stored.size, n_parameters, stored.weights.where, run, stored.run)
    counts = stored.folder / TOKEN_COUNTS
    if counts.is_file():
        shutil.copy(counts, folder)  # from which the tokens of machine.draft_vocab are chosen
    if run and (found := recommended(run)):
        shutil.copy(found.file, folder)  # from which eval.generate takes the fastest setting
    return model_card(stored.size.name, config.output, stored.size, n_parameters, run, stored.run)


if __name__ == "__main__":
    command("convert", ConvertConfig, convert_model, verbatim=["source", "output"])

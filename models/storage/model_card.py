"""The README.md of an exported model: what it is, how it was trained, what each exit is good for, how to serve it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from conf.hub import HUB
from conf.metrics_file import METRICS, read_metrics
from models.config import ModelConfig
from models.exits import exit_name
from models.storage.recipe import recipe_of
from models.storage.recommended import Recommended, default_exit, recommended

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- llama
- layerskip
- early-exit
- self-speculative-decoding
---

# {name}

{n_parameters:,} parameters, {n_layers} layers. {how} The layout is Hugging Face's Llama.
"""
USE = """
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
inputs = tokenizer("import os", return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=64, do_sample=False{draft})
print(tokenizer.decode(output[0], skip_special_tokens=True))
```

`assistant_early_exit={exit_layer}` drafts with the first layers and verifies with all of them; the text is that of
autoregressive decoding. The same in the framework this model comes from, with one cache and without computing a layer
twice: `python -m eval.generate checkpoint={folder}`. vLLM serves the folder at full depth: `vllm serve {folder}`.
"""
SOURCE = ("path", "format", "weight", "epochs")
OF_THE_HUB = ("subset", "split", "revision")
PATHS = ("initial", "path")


def model_card(
    name: str, folder: str, size: ModelConfig, n_parameters: int, run: Path | None, config: Mapping[str, Any] | None
) -> str:
    """The text; of a run, with its recipe, the perplexity of its exits and the setting that decodes fastest."""
    recipe = config or {}
    how = "Trained with LayerSkip (arXiv 2404.16710)." if "early_exit" in recipe else "Converted, not trained further."
    text = HEAD.format(name=name, n_parameters=n_parameters, n_layers=size.n_layers, how=how)
    text += recipe_table(recipe) + (exits_table(run, range(1, size.n_layers + 1)) if run else "")
    best = recommended(run) if run else None
    exit_layer = best.exit_layer if best else default_exit(size.n_layers)
    # Drafts that cost more than they save are no example to follow.
    draft = f", assistant_early_exit={exit_layer}" if best is None or best.pays else ""
    return text + (_recommended(best) if best else "") + USE.format(folder=folder, exit_layer=exit_layer, draft=draft)


def _recommended(best: Recommended) -> str:
    setting = f"`exit_layer={best.exit_layer}`, `num_speculations={best.num_speculations}`"
    setting = setting if best.policy == "fixed" else f"`policy={best.policy}` ({setting} where both are fixed)"
    accepted = "" if best.acceptance_rate is None else f", {best.acceptance_rate:.0%} of the drafts accepted"
    how = ", ".join(["batch 1, greedy", *([best.provenance] if best.provenance else [])])
    found = f"{best.speedup:.2f} times the speed of autoregressive decoding{accepted} ({how})"
    first = "" if best.pays else "Autoregressive decoding. The fastest drafts that were tried, "
    return f"\n## Recommended\n\n{first}{setting}: {found}.\n"


def recipe_table(config: Mapping[str, Any]) -> str:
    """A section with what decides about the weights that come out of a run; empty for none."""
    found = list(recipe_of(config).items())
    for name, source in config.get("data", {}).get("sources", {}).items():
        keys = (*SOURCE, *OF_THE_HUB) if source["path"].startswith(HUB) else SOURCE
        found += [(f"data.sources.{name}.{key}", source.get(key)) for key in keys]
    shown = [(key, _name(value) if key.endswith(PATHS) else value) for key, value in found if value is not None]
    rows = [f"| {key} | {value} |" for key, value in shown]
    return "\n".join(["\n## Recipe\n", "| key | value |", "|---|---|", *rows, ""]) if rows else ""


def _name(path: str) -> str:
    """Without the folders of the machine that has trained."""
    return path if path.startswith(HUB) else Path(path).name


def exits_table(run: Path, exits: Iterable[int]) -> str:
    """A section with the run's last validation at these exits; empty without one."""
    metrics = run / METRICS
    validations = [row for row in read_metrics(metrics) if "val/tokens" in row] if metrics.exists() else []
    found = validations[-1] if validations else {}
    rows = [f"| {e} | {found[key]:.4g} |" for e in exits if (key := f"val/ppl/{exit_name(e)}") in found]
    if not rows:
        return ""
    lines = [f"\n## Held-out perplexity by exit, step {found['step']}\n", "| exit_layer | perplexity |", "|---:|---:|"]
    return "\n".join([*lines, *rows, ""])

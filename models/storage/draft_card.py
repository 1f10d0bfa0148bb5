"""The README.md of an exported draft model: of what run and layer it is, and how to have it draft."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.config import ModelConfig
from models.storage.model_card import exits_table, recipe_table

CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- llama
- layerskip
- speculative-decoding
- draft-model
---

# {name}, the first {exit_layer} layers

A draft model of {n_parameters:,} parameters: the first {exit_layer} of the {n_layers} layers of {name}, with its
embedding, its final norm and its head. It was taken from {source}. The layout is Hugging Face's
Llama, the tokenizer is that of the whole model. Alone it writes what early exit at layer {exit_layer} writes. It is
made to draft for the whole model, which decides about every token; the text is then that of the whole model.
"""
USE = """
## Use

WHOLE is the folder of all layers (`python -m models.convert` without `exit_layer`). The number of drafts, 3 here, is a
setting; `python -m eval.autotune` finds it. docs/serving.md says what each engine shares and what it computes twice.

transformers:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("WHOLE")
model = AutoModelForCausalLM.from_pretrained("WHOLE")
draft = AutoModelForCausalLM.from_pretrained("{folder}")
draft.generation_config.num_assistant_tokens = 3
inputs = tokenizer("import os", return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=64, do_sample=False, assistant_model=draft)
print(tokenizer.decode(output[0], skip_special_tokens=True))
```

vLLM:

```
vllm serve WHOLE --speculative-config '{{"method": "draft_model", "model": "{folder}", "num_speculative_tokens": 3}}'
```

SGLang:

```
python -m sglang.launch_server --model-path WHOLE --speculative-algorithm STANDALONE \\
    --speculative-draft-model-path {folder} --speculative-num-steps 3 \\
    --speculative-eagle-topk 1 --speculative-num-draft-tokens 4
```

llama.cpp reads GGUF: `python -m models.convert` with `format=gguf`, with `exit_layer={exit_layer}` for the draft and
without it for the whole model.
"""


def draft_card(
    folder: str,
    whole: ModelConfig,
    size: ModelConfig,
    n_parameters: int,
    source: Path,
    run: Path | None,
    config: Mapping[str, Any] | None,
) -> str:
    """The text; of a run, with its recipe and the held-out perplexity of the draft and of the whole model.

    Args:
        folder: that the export goes to.
        whole: sizes of the model that the layers are from.
        size: those of the draft.
        n_parameters: of the draft.
        source: the folder or file that holds the weights.
        run: the run folder, if it is a run.
        config: its configuration.
    """
    origin = f"the run `{run.name}` (`{source.name}`)" if run else f"`{source.name}`"
    text = CARD.format(
        name=whole.name, exit_layer=size.n_layers, n_layers=whole.n_layers, n_parameters=n_parameters, source=origin
    )
    text += recipe_table(config or {}) + (exits_table(run, [size.n_layers, whole.n_layers]) if run else "")
    return text + USE.format(folder=folder, exit_layer=size.n_layers)

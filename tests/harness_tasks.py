"""Tasks in lm-eval's format over local files, and checkpoints to try them on: no hub is needed."""

import json
import random
from pathlib import Path
from typing import Any

import torch
import yaml
from conftest import TINY_TEXT, tiny_model
from sentencepiece import SentencePieceTrainer
from test_parity_hf import hf_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from models.storage.hf_tokenizer import write_tokenizer

CONTEXT = 64
CHOICES = {"output_type": "multiple_choice", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
TASKS: dict[str, dict[str, Any]] = {
    # As HellaSwag: endings of several tokens.
    "local_endings": CHOICES
    | {
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{label}}",
        "doc_to_choice": "{{choices}}",
        "num_fewshot": 1,
        "fewshot_split": "train",
    },
    # As MMLU: letters, which share what they are asked after; the text ends in a space, which goes to the letter.
    "local_letters": CHOICES
    | {"doc_to_text": "{{question}}\nAnswer: ", "doc_to_target": "{{label}}", "doc_to_choice": ["A", "B", "C", "D"]},
    # As GSM8K: a text up to a stop string.
    "local_text": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {"until": ["\n\n", "def"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    # As WikiText: whole texts, longer than the context.
    "local_rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{page}}",
        "metric_list": [{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
}


def write_tasks(folder: Path) -> Path:
    """The task files and their data; a folder for include_path."""
    lines, rng = [line for line in TINY_TEXT.split("\n") if len(line) > 20], random.Random(0)
    documents = [
        {
            "question": "\n".join(lines[i : i + 1 + i % 3]),
            "choices": [" " + rng.choice(lines).strip()[: rng.randint(5, 30)] for _ in range(4)],
            "label": rng.randrange(4),
            "target": rng.choice(lines),
            "page": TINY_TEXT[i * 300 : i * 300 + 40 + 100 * i],
        }
        for i in range(1, 13)
    ]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(d) + "\n" for d in documents))
    files = {"train": str(data), "test": str(data)}
    for name, task in TASKS.items():
        head = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(head | task))
    return folder


def write_checkpoint(folder: Path, kind: str) -> Path:
    """A Hugging Face folder of 4 random layers, with a tokenizer like Llama's (sentencepiece) or GPT-2's (bytes)."""
    theirs = hf_model(tiny_model(vocab_size=400, max_seq_len=CONTEXT))
    theirs.save_pretrained(folder)
    if kind == "sentencepiece":
        text, model = folder / "text.txt", folder / "tokenizer"
        text.write_text(TINY_TEXT)
        SentencePieceTrainer.Train(
            input=str(text),
            model_prefix=str(model),
            vocab_size=400,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
        write_tokenizer(folder / "tokenizer.model", folder, CONTEXT)
    else:
        fast = Tokenizer(models.BPE())
        fast.pre_tokenizer, fast.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        fast.train_from_iterator([TINY_TEXT], trainer)
        PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


def their_likelihood(model: Any, context: list[int], continuation: list[int], exit_layer: int) -> float:
    """By transformers' hidden states: nats of the continuation after so many blocks."""
    ids = torch.tensor([context + continuation])
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
        last = exit_layer == model.config.num_hidden_layers
        logits = out.logits if last else model.lm_head(model.model.norm(out.hidden_states[exit_layer]))
        nats = logits[0].log_softmax(-1)[range(len(context) - 1, ids.shape[1] - 1), continuation]
    return float(nats.sum())

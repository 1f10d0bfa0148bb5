"""Configurations that cannot run: each ends in one line, with status 2, at once, and leaves everything as it was.

Every command runs in this process as `python -m` would run it, in a folder of its own.
"""

import os
import re
import runpy
import socket
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

TEXT = "import os\n" * 400
LONG = "x" * 300
# Beyond what 64 bits hold.
BIG = "99999999999999999999999"
# What the words of a case may name: made anew in the folder of each.
THERE = ["afile", "text/a.txt", "afolder/", "link -> nothing", "asocket", "afifo"]
TINY = [
    *("model.dim=32", "model.n_layers=4", "model.n_heads=2", "model.n_kv_heads=1", "model.ffn_dim=48"),
    *("model.vocab_size=400", "data=text", "data.source=text", "data.cache_dir=cache", "run_dir=run"),
    *("train.seq_len=32", "train.global_batch_size=8", "train.steps=3", "wandb.mode=disabled"),
]
PREPARE = ["dataset.path=text", "output=shards", "tokenizer.vocab_size=400"]

PRETRAIN = {
    # Folders.
    "run_dir=": r"run_dir: is empty; give a value",
    "run_dir=afile": r"run_dir=afile: .*/afile is no folder; choose another",
    "run_dir=afile/run": r"run_dir=afile/run: .*/afile is no folder",
    "run_dir=link": r"run_dir=link: .*/link is a link to nothing",
    "run_dir=asocket": r"run_dir=asocket: .*/asocket is no folder",
    "run_dir=afifo": r"run_dir=afifo: .*/afifo is no folder",
    "run_dir=/dev/null": r"run_dir=/dev/null: /dev/null is no folder",
    "run_dir=/proc/x": r"run_dir=/proc/x: nothing can be written in /proc \(no folder can be made there\)",
    "run_dir=/proc/self/fd": r"run_dir=/proc/self/fd: nothing can be written in /proc/self/fd",
    f"run_dir={LONG}": r"run_dir=x+: a name in it is longer than 255 bytes",
    f"run_dir='{'ä' * 150}'": r"run_dir=ä+: a name in it is longer than 255 bytes",
    "run_dir=ä": r"run_dir=ä: .*a value with other characters goes in two pairs of quotes, 'run_dir=\"VALUE\"'",
    "run_dir=null": r"run_dir=null: cannot be null; give a value",
    "run_dir=???": r"run_dir: missing",
    "run_dir=[a]": r"run_dir",
    "data.cache_dir=": r"data\.cache_dir: is empty",
    "data.cache_dir=afile": r"data\.cache_dir=afile: .*/afile is no folder",
    "data.cache_dir=/proc/x": r"data\.cache_dir=/proc/x: nothing can be written in /proc",
    "data.cache_dir=/dev/null/x": r"data\.cache_dir=/dev/null/x: /dev/null is no folder",
    # Numbers.
    f"train.seed={BIG}": rf"train\.seed={BIG}: must fit into 64 bits",
    "train.seed=18446744073709551615": r"train\.seed=18446744073709551615: must fit into 64 bits",
    f"train.seed=-{BIG}": r"train\.seed=-9+: must fit into 64 bits",
    f"train.steps={BIG}": r"train\.steps=9+: must fit into 64 bits",
    "train.steps=9000000000000000000": r"train\.steps=9000000000000000000: .* tokens must be fewer than 2\^63",
    "train.steps=-1": r"train\.steps=-1: must be at least 1",
    "train.steps=nan": r"train\.steps: .*nan.*[Ii]nteger",
    "train.steps=inf": r"train\.steps: .*inf.*[Ii]nteger",
    "train.steps=1e3": r"train\.steps: .*1000.0.*[Ii]nteger",
    "train.steps=true": r"train\.steps: .*[Tt]rue",
    "train.steps={a:1}": r"train\.steps",
    "train.seq_len=0": r"train\.seq_len=0: must be at least 1",
    "train.max_grad_norm=nan": r"train\.max_grad_norm=nan: must be a finite number",
    "train.max_grad_norm=inf": r"train\.max_grad_norm=inf: must be a finite number",
    "train.max_grad_norm=-1": r"train\.max_grad_norm=-1\.0: must be above 0",
    "optimizer.lr=nan": r"optimizer\.lr=nan: must be a finite number",
    "optimizer.lr=inf": r"optimizer\.lr=inf: must be a finite number",
    "optimizer.lr=-inf": r"optimizer\.lr=-inf: must be a finite number",
    "optimizer.lr=1e39": r"optimizer\.lr=1e\+39: must be 0, or",
    "optimizer.lr=1e-320": r"optimizer\.lr=1e-320: must be 0, or",
    "optimizer.beta2=nan": r"optimizer\.beta2=nan",
    "optimizer.eps=1e-50": r"optimizer\.eps=1e-50",
    "optimizer.weight_decay=inf": r"optimizer\.weight_decay=inf",
    "optimizer.weight_decay=-0.1": r"optimizer\.weight_decay=-0\.1: must be at least 0",
    "lr_scheduler.warmup_ratio=nan": r"lr_scheduler\.warmup_ratio=nan",
    "lr_scheduler.min_lr_factor=2": r"lr_scheduler\.min_lr_factor=2\.0: must lie in 0\.\.1",
    "layer_dropout.p_max=nan": r"layer_dropout\.p_max=nan",
    "early_exit.e_scale=nan": r"early_exit\.e_scale=nan",
    "model.norm_eps=nan": r"model\.norm_eps=nan",
    "model.norm_eps=inf": r"model\.norm_eps=inf",
    "model.norm_eps=5": r"model\.norm_eps=5\.0: must be above 0 and below 1",
    "model.rope_theta=nan": r"model\.rope_theta=nan",
    "model.rope_factor=inf": r"model\.rope_factor=inf",
    "model.n_kv_heads=0": r"model\.n_kv_heads=0: must divide",
    "data.sources.text.weight=nan": r"data\.sources\.text\.weight=nan",
    "data.sources.text.weight=inf": r"data\.sources\.text\.weight=inf",
    "data.sources.text.weight=0": r"weight=0\.0: a source's weight must be above 0",
    "data.sources.text.epochs=nan": r"data\.sources\.text\.epochs=nan",
    "data.sources.text.epochs=inf": r"data\.sources\.text\.epochs=inf",
    "data.validation_fraction=nan": r"data\.validation_fraction=nan",
    "data.num_workers=-1": r"data\.num_workers=-1: must be at least 0",
    "data.num_workers=100000": r"data\.num_workers=100000: must be at most \d+, 4 for each of the \d+ cores",
    "data.stream_lanes=1000000000": r"data\.stream_lanes=1000000000: must be at most 65,536",
    "data.tokenizer.max_train_megabytes=0": r"tokenizer\.max_train_megabytes=0: must be at least 1",
    "data.tokenizer.vocab_size=100000000": r"tokenizer\.vocab_size=100000000: must be at most 16,777,216",
    "checkpoint.every=0": r"checkpoint\.every=0: must be null or at least 1",
    "validation.tokens=-5": r"validation\.tokens=-5: must be at least 1",
    # Sizes that this machine does not have.
    "model.dim=100000000": r"model=llama_debug: [\d,]+ parameters .* GB of memory on each rank, which has \d+ GB",
    "model.ffn_dim=100000000000": r"model=llama_debug: [\d,]+ parameters",
    "model.n_layers=1000000000": r"model\.n_layers=1000000000: must be at most 10,000",
    "model.n_layers=10000 model.dim=65536 model.ffn_dim=65536": r"model=llama_debug: [\d,]+ parameters",
    "model.vocab_size=100000000000 data.tokenizer.vocab_size=400": r"model=llama_debug: [\d,]+ parameters",
    "model.max_seq_len=100000000000": r"model=llama_debug: positions up to model\.max_seq_len=100,000,000,000",
    "train.global_batch_size=100000000000": r"model=llama_debug: a batch of 3,200,000,000,000 tokens",
    # Keys and groups.
    "~train": r"train: missing; leave ~train out",
    "~train.steps": r"train\.steps: cannot be taken away; leave ~train\.steps out",
    "~model": r"model: missing",
    "~data": r"data",
    "~nothing": r"nothing",
    "model=null": r"must be a string or a list. Got NoneType \(one of .*model=null\)",
    "train=null": r"train=null: cannot be null; give a value, or leave it out",
    "train=5": r"train: is a section of keys; set one of them",
    "train=[1]": r"train",
    "optimizer=sgd": r"optimizer/sgd.*Available options.*adamw",
    "train.precision=": r"train\.precision",
    "train.precision=null": r"train\.precision",
    "wandb.mode=sometimes": r"wandb\.mode: .*offline",
    "data.source=": r"data\.source: is empty",
    "data.source=nowhere": r"nowhere: no \.txt",
    "data.source=afile": r"afile: not one of \.txt",
    "data.source=afolder": r"afolder: no \.txt",
    "data.source=hf://": r"path=hf://: names nothing",
    "data.text_field=": r"data\.text_field: is empty",
    "data.tokenizer.path=": r"data\.tokenizer\.path: is empty; give a value, or null for none",
    "data.tokenizer.path=afile": r"afile",
    "data.tokenizer.path=afolder": r"afolder",
    "recipe=": r"recipe: is empty",
    "wandb.entity=": r"wandb\.entity: is empty; give a value, or null for none",
    "wandb.tags=[demo,'']": r"wandb\.tags=: each must have 1 to 64 characters",
    "checkpoint.initial=": r"checkpoint\.initial",
    "checkpoint.initial=afile": r"afile",
    "checkpoint.initial=nowhere": r"nowhere",
    "layer_dropout.depth_schedule=no.such.module:f": r"layer_dropout\.depth_schedule=no\.such\.module:f: no module",
    "early_exit.curriculum=os:getcwd": r"early_exit\.curriculum=os:getcwd: must take",
    "train.steps=${nowhere}": r"nowhere",
    "train.steps=${train.steps}": r"train\.steps",
    "train.steps": r"train\.steps",
    "=3": r"=3",
    "train..steps=3": r"train\.\.steps",
    # Flags.
    "--nosuchflag": r"unrecognized arguments: --nosuchflag; --hydra-help lists the flags",
    "--cfg nothing": r"argument --cfg/-c: invalid choice: 'nothing'",
    "--config-name nothing": r"nothing",
    "--config-dir nowhere": r"nowhere",
    "--experimental-rerun nowhere": r"nowhere",
    "--multirun": r"--multirun: no key has several values",
    "--multirun train.steps=1,2 optimizer.lr=nan": r"optimizer\.lr=nan",
}
OTHERS = {
    "train.describe": {
        "~train": r"train: missing",
        "~describe": r"describe: missing",
        "describe.deadline_days=nan": r"describe\.deadline_days=nan",
        "describe.speedup=inf": r"describe\.speedup=inf",
        "describe.speedup=1": r"describe\.speedup=1\.0: must be above 1",
        "describe.world_size=0": r"describe\.world_size=0: must be null or at least 1",
        f"describe.world_size={BIG}": r"describe\.world_size=9+: must fit into 64 bits",
        "describe.output=": r"describe\.output: is empty",
        "describe.output=/dev/null": r"describe\.output=/dev/null: is no file",
        "describe.output=afolder": r"describe\.output=afolder: is no file",
        "describe.output=afile/x.png": r"describe\.output=afile/x\.png: .*/afile is no folder",
        "describe.output=x.nothing": r"describe\.output=x\.nothing",
        "train.global_batch_size=0": r"train\.global_batch_size=0: must be at least 1",
        "train.local_batch_size=0": r"train\.local_batch_size=0: must be null or at least 1",
        "train=null": r"train",
    },
    "train.benchmark": {
        "output=": r"output: is empty",
        "output=/dev/null": r"output=/dev/null: must end in \.json",
        "output=afolder": r"output=afolder: must end in \.json",
        "output=/proc/x.json": r"output=/proc/x\.json: nothing can be written in /proc",
        "output=b.json machine.threads=0": r"machine\.threads=0: must be at least 1",
        "output=b.json machine.threads=100000000": r"machine\.threads=100000000: must be at most \d+, 4 for each",
        "output=b.json p_max=[nan]": r"p_max=nan",
        "output=b.json n_exits=[0]": r"n_exits=0: must lie in 1",
        "output=b.json model.dim=100000000": r"model=\w+: [\d,]+ parameters",
        "output=b.json seq_len=0": r"seq_len=0: must be at least 1",
        "output=b.json device=tpu": r"device",
    },
    "data.prepare": {
        "output=": r"output: is empty",
        "output=afile": r"output=afile: .*/afile is no folder",
        "output=/dev/null": r"output=/dev/null: /dev/null is no folder",
        "output=/proc/x": r"output=/proc/x: nothing can be written in /proc",
        "output=link": r"output=link: .*/link is a link to nothing",
        f"output={LONG}": r"output=x+: a name in it is longer than 255 bytes",
        "workers=0": r"workers=0: must be at least 1",
        "workers=100000": r"workers=100000: must be at most \d+, 4 for each",
        "validation_fraction=nan": r"validation_fraction=nan",
        "validation_fraction=-0.1": r"validation_fraction=-0\.1: must be at least 0",
        "shard_tokens=0": r"shard_tokens=0: must be at least 1",
        f"shard_tokens={BIG}": r"shard_tokens=9+: must fit into 64 bits",
        "max_errors=-1": r"max_errors=-1: must be at least 0",
        "dataset.path=": r"dataset\.path: is empty",
        "dataset.path=nowhere": r"nowhere: no \.txt",
        "dataset.weight=nan": r"dataset\.weight=nan",
        "~dataset": r"dataset",
        "tokenizer.vocab_size=100000000000": r"tokenizer\.vocab_size=100000000000: must be at most",
        "tokenizer.vocab_size=5": r"tokenizer\.vocab_size=5: must be at least 300",
        "on_error=maybe": r"on_error: .*stop",
    },
    "data.benchmark": {
        "output=": r"output: is empty",
        "output=/dev/null": r"output=/dev/null: must end in \.json",
        "output=b.json seconds=nan": r"seconds=nan",
        "output=b.json max_megabytes=1000000000": r"max_megabytes=1000000000: must be at most",
        "output=b.json seq_len=1000000000000": r"seq_len=1000000000000: must be at most",
        "output=b.json workers=100000": r"workers=100000: must be at most \d+",
    },
    "models.convert": {
        "source= output=x": r"source: is empty",
        "source=afile output=x": r"afile",
        "source=nowhere output=x": r"nowhere",
        "source=afolder output=": r"output: is empty",
        "source=afolder output=x max_shard_gigabytes=nan": r"max_shard_gigabytes=nan",
        "source=afolder output=x max_shard_gigabytes=inf": r"max_shard_gigabytes=inf",
        "source=afolder output=x format=zip": r"format",
        "source=afolder": r"output: missing",
    },
    "eval.generate": {
        "checkpoint=": r"checkpoint: is empty",
        "checkpoint=nowhere": r"nowhere",
        f"checkpoint=nowhere sampling.seed={BIG}": r"sampling\.seed=9+: must fit into 64 bits",
        f"checkpoint=nowhere sampling.seed=-{BIG}": r"sampling\.seed=-9+: must fit into 64 bits",
        "checkpoint=nowhere sampling.temperature=1e-320": r"sampling\.temperature=1e-320",
        "checkpoint=nowhere sampling.temperature=1e-9": r"sampling\.temperature=1e-09: must be 0 \(greedy\) or",
        "checkpoint=nowhere sampling.temperature=nan": r"sampling\.temperature=nan",
        "checkpoint=nowhere sampling.temperature=-1": r"sampling\.temperature=-1",
        "checkpoint=nowhere sampling.top_p=nan": r"sampling\.top_p=nan",
        "checkpoint=nowhere sampling.min_p=1.5": r"sampling\.min_p=1\.5: must be from 0 \(all\) to 1",
        "checkpoint=nowhere sampling.repetition_penalty=0": r"sampling\.repetition_penalty=0\.0: must be above 0",
        "checkpoint=nowhere sampling.repetition_penalty=nan": r"sampling\.repetition_penalty=nan",
        "checkpoint=nowhere machine.threads=100000000": r"machine\.threads=100000000: must be at most \d+, 4 for each",
        "checkpoint=nowhere machine.threads=0": r"machine\.threads=0: must be at least 1",
        "checkpoint=nowhere machine.device=": r"machine\.device: is empty",
        "checkpoint=nowhere machine.device=toaster": r"machine\.device=toaster: cannot be used here",
        "checkpoint=nowhere machine=null": r"machine",
        "checkpoint=nowhere prompt=": r"prompt: is empty",
        "checkpoint=nowhere max_new_tokens=0": r"max_new_tokens=0: must be at least 1",
        "checkpoint=nowhere output=/dev/null": r"output=/dev/null: must end in \.html",
    },
    "eval.benchmark": {
        "checkpoint=nowhere repeats=0": r"repeats=0: must be at least 1",
        "checkpoint=nowhere machine.threads=100000000": r"machine\.threads=100000000: must be at most",
        "checkpoint=nowhere task=nothing": r"task/nothing",
        "checkpoint=nowhere task=null": r"task",
        "checkpoint=nowhere output=": r"output: is empty; give a value, or null for none",
        f"checkpoint=nowhere task.seed={BIG}": r"task\.seed=9+: must fit into 64 bits",
        "checkpoint=nowhere modes=[fast]": r"modes",
    },
    "eval.sweep": {
        "checkpoint=nowhere repeats=-1": r"repeats=-1: must be at least 1",
        "checkpoint=nowhere quality=beauty": r"quality=beauty: must be",
    },
    "eval.figures": {
        "runs=[]": r"runs: give run folders",
        "runs=[nowhere]": r"runs: nowhere is nothing that exists",
        "runs=[afolder]": r"runs: afolder holds no run",
        "runs=nowhere": r"runs: is a list; write its values in brackets, 'runs=\[VALUE\]'",
        "runs=[nowhere] figures=[beauty]": r"figures",
        "arms={ours:[nowhere]}": r"arms\.ours: a new key of a table begins with a plus sign",
        "+arms.ours=[]": r"arms\.ours: names no run",
    },
    "eval.lens": {"checkpoint=nowhere top_k=0": r"top_k=0: must be at least 1"},
    "eval.perplexity": {
        "checkpoint=nowhere stride=0": r"stride=0: must be at least 1",
        "checkpoint=nowhere source=": r"source: is empty",
        "checkpoint=nowhere output=x.txt": r"output=x\.txt: must end in \.json",
    },
    "eval.compare": {"checkpoint=nowhere n_samples=0": r"n_samples=0: must be at least 1"},
    "eval.compare_peers": {
        "checkpoint=nowhere batch_size=0": r"batch_size=0: must be at least 1",
        "checkpoint=nowhere systems=[vllm]": r"systems",
    },
    "eval.correctness": {
        "checkpoint=nowhere near_tie=nan": r"near_tie=nan",
        "checkpoint=nowhere draws=0": r"draws=0: must be at least 1",
        f"checkpoint=nowhere sampling.seed={BIG}": r"sampling\.seed=9+: must fit into 64 bits",
    },
    "eval.rejections": {"checkpoint=nowhere num_speculations=0": r"num_speculations=0: must be at least 1"},
    "eval.harness": {
        "checkpoint=nowhere tasks=[]": r"tasks: empty",
        "checkpoint=nowhere tasks=[arc_easy] n_samples=nan": r"n_samples=nan",
        "checkpoint=nowhere tasks=[arc_easy] n_samples=inf": r"n_samples=inf",
    },
    "eval.exits": {
        "checkpoint=nowhere tasks=[arc_easy] n_samples=1.5": r"n_samples=1\.5: must be a share",
        f"checkpoint=nowhere tasks=[arc_easy] seed={BIG}": r"seed=9+: must fit into 64 bits",
    },
    "eval.execute": {
        "samples=nowhere.jsonl": r"nowhere\.jsonl",
        "samples=": r"samples: is empty",
        "samples=s.jsonl wall_seconds=nan": r"wall_seconds=nan",
        "samples=s.jsonl wall_seconds=inf": r"wall_seconds=inf",
        "samples=s.jsonl wall_seconds=1e30": r"wall_seconds=1e\+30: must be at most 86,400",
        "samples=s.jsonl cpu_seconds=1000000000000": r"cpu_seconds=1000000000000: must be at most 86,400",
        f"samples=s.jsonl cpu_seconds={BIG}": r"cpu_seconds=9+: must fit into 64 bits",
        "samples=s.jsonl memory_mib=1000000000000": r"memory_mib=1000000000000: must be at most [\d,]+",
        "samples=s.jsonl workers=100000": r"workers=100000: must be at most \d+",
        "samples=s.jsonl k=[]": r"k: give at least one number",
    },
}
CASES = [("train.pretrain", words, line) for words, line in PRETRAIN.items()]
CASES += [(module, words, line) for module, cases in OTHERS.items() for words, line in cases.items()]
# Composing takes half a second: every sixth case is run each time, all of them with the slow tests.
PARAMETERS = [
    pytest.param(*case, id=f"{case[0]} {case[1][:60]}", marks=[] if i % 6 == 0 else pytest.mark.slow)
    for i, case in enumerate(CASES)
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with things of every kind."""
    monkeypatch.chdir(tmp_path)
    Path("afile").write_text("content")
    Path("afolder").mkdir()
    Path("text").mkdir()
    Path("text/a.txt").write_text(TEXT)
    Path("link").symlink_to("nothing")
    os.mkfifo("afifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("asocket")
    return tmp_path


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder: name -> (size, time of the last change)."""
    files = (path for path in folder.rglob("*"))
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in files if not path.is_dir()}


def run(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The status that a command ends with."""
    monkeypatch.setattr(sys, "argv", [module, *words])
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", module, *words])
    GlobalHydra.instance().clear()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize(("module", "words", "line"), PARAMETERS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # runpy's, of a module that is imported already
def test_one_line_and_status_2(
    module: str,
    words: str,
    line: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, first = listing(place), {"train.pretrain": TINY, "train.describe": TINY, "data.prepare": PREPARE}
    given = words.split(" ")
    keys = {word.partition("=")[0] for word in given}
    rest = [word for word in first.get(module, []) if word.partition("=")[0] not in keys]
    status = run(module, [*rest, *given], monkeypatch)
    out, err = capsys.readouterr()
    assert (status, out) == (2, ""), (out, err)
    assert re.fullmatch(r"error: [^\n]+\n", err), err
    assert re.search(line, err), err
    assert listing(place) == before

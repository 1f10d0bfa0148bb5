"""Results of different settings lie beside each other, in the checkpoint's folder; none replaces another."""

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from conf.strict import ConfigError, convert, register_schema
from eval.depth.lens_config import LensConfig
from eval.depth.perplexity_config import PerplexityConfig
from eval.drafts.config import RejectionsConfig
from eval.exactness.compare_config import CompareConfig
from eval.exactness.correctness_config import CorrectnessConfig
from eval.humaneval.config import ExecuteConfig
from eval.lm.config import ExitsConfig, HarnessConfig
from eval.measure.config import BenchmarkConfig
from eval.measure.result_file import output_of, replacing
from eval.measure.result_name import changed_from_default, named
from eval.results.sweep_config import SweepConfig
from models.storage.recommended import recommended
from models.storage.stored import read

SCHEMAS: dict[str, type] = {
    "benchmark": BenchmarkConfig,
    "sweep": SweepConfig,
    "rejections": RejectionsConfig,
    "correctness": CorrectnessConfig,
    "perplexity": PerplexityConfig,
    "harness": HarnessConfig,
    "exits": ExitsConfig,
    "lens": LensConfig,
    "compare": CompareConfig,
    "execute": ExecuteConfig,
}
for _name, _schema in SCHEMAS.items():
    register_schema(_name, _schema)


def config_of(command: str, *overrides: str) -> Any:
    with initialize_config_module("conf", version_base="1.3"):
        return convert(compose(command, list(overrides)), SCHEMAS[command])


NAMES = {
    ("benchmark",): "benchmark",
    ("benchmark", "fresh=true", "detail=true", "recommend=true"): "benchmark",
    ("benchmark", "task.source=tests", "exit_layers=[2,3]", "machine.dtype=float64"): (
        "benchmark_source-tests_exit_layers-2-3_dtype-float64"
    ),
    ("benchmark", "task=humaneval", "task.n_samples=20"): "benchmark_humaneval_n_samples-20",
    ("benchmark", "modes=[self_speculative]", "transformers=false"): (
        "benchmark_modes-self_speculative_transformers-false"
    ),
    ("benchmark", "task.n_samples=4", "task.seed=7"): "benchmark_n_samples-4_seed-7",
    ("sweep", "recommend=true"): "sweep",
    ("sweep", "task=cnn_dm", "task.n_samples=null"): "sweep_cnn_dm_n_samples-null",
    ("rejections", "exit_layer=3"): "rejections_exit_layer-3",
    ("correctness", "show=3"): "correctness",
    ("correctness", "sampled=true", "sampling.top_k=4"): "correctness_sampled-true_top_k-4",
    ("perplexity", "batch_size=2"): "perplexity",
    ("benchmark", "batch_size=8"): "benchmark_batch_size-8",
    ("perplexity", "source=README.md", "stride=64"): "perplexity_source-README.md_stride-64",
    ("harness", "tasks=[gsm8k]", "mode=early_exit", "n_samples=0.5"): "harness_gsm8k_n_samples-0.5_mode-early_exit",
    ("exits", "tasks=[hellaswag,piqa]"): "exits_hellaswag-piqa",
}


@pytest.mark.parametrize(("words", "name"), NAMES.items(), ids=lambda x: " ".join(x) if isinstance(x, tuple) else "")
def test_names_say_what_is_not_the_default(words: tuple[str, ...], name: str) -> None:
    command, *overrides = words
    assert named(command, changed_from_default(config_of(command, "checkpoint=x", *overrides))) == name


def test_what_words_do_not_say_a_digest_does() -> None:
    def name(value: Any) -> str:
        return named("perplexity", {"source": value})

    sources = ["a/b", "c/b", "a b", "a-b", "a_b", "hf://org/name", "*.py", "日本", "x" * 60, "x" * 61]
    assert len({name(source) for source in sources}) == len(sources)
    assert name("a/b").startswith("perplexity_source-b_")
    assert all(len(name(source)) < 80 and "/" not in name(source) for source in sources)
    long = {f"key_{i}": "value" for i in range(40)}
    assert len(named("harness", long)) < 140
    assert named("harness", long) != named("harness", long | {"key_39": "other"})


def test_the_results_of_executed_samples() -> None:
    given = config_of("execute", "samples=s.jsonl", "execute=true", "workers=2", "truncate=true")
    assert changed_from_default(given, ("samples", "execute", "partial")) == {"truncate": True}


def test_every_command_writes_into_the_checkpoints_folder(trained: Path) -> None:
    stored = read(trained)
    for command in SCHEMAS.keys() - {"execute"}:
        tasks = ["tasks=[a]"] if command in ("harness", "exits") else []
        text = "import os" if command in ("lens", "compare") else None
        config = config_of(command, f"checkpoint={trained}", *tasks)
        assert config.output is None
        assert output_of(config, stored, command, text=text).parent == trained
    page = output_of(config_of("lens", f"checkpoint={trained}", "top_k=3"), stored, "lens", ".html", text="import os")
    other = output_of(config_of("lens", f"checkpoint={trained}"), stored, "lens", ".html", text="import os, sys")
    assert page.name.startswith("lens_import-os_top_k-3_")
    assert page.suffix == ".html"
    assert page != other
    again = config_of("lens", f"checkpoint={trained}", "top_k=3", "prompt=import os")
    assert output_of(again, stored, "lens", ".html", text="import os") == page, "however the text is given"
    assert output_of(replace(again, output=str(trained / "a.html")), stored, "lens") == trained / "a.html"


def test_an_older_checkpoint_has_files_of_its_own(trained: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "tokenizer.model"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    (tmp_path / "checkpoint").mkdir()
    for step in (5, 40):
        (tmp_path / f"checkpoint/step-{step}").symlink_to(trained / "checkpoint/step-40")

    def name(checkpoint: Path) -> str:
        config = config_of("perplexity", f"checkpoint={checkpoint}")
        return output_of(config, read(checkpoint)._replace(folder=tmp_path), "perplexity").name

    assert name(tmp_path) == "perplexity.json"
    (tmp_path / "checkpoint/step-5").unlink()
    assert name(tmp_path / "checkpoint/step-40") == "perplexity.json"
    (tmp_path / "checkpoint/step-5").mkdir()
    (tmp_path / "checkpoint/step-5/.metadata").touch()
    stored = read(tmp_path)
    older = config_of("perplexity", f"checkpoint={tmp_path}/checkpoint/step-5")
    assert output_of(older, stored, "perplexity").name == "perplexity_step-5.json"


def test_a_gguf_file_has_a_folder_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.storage.stored.GGUFWeights", lambda path: SimpleNamespace(size=None))
    (tmp_path / "a.Q4.gguf").touch()
    stored = read(tmp_path / "a.Q4.gguf")
    config = config_of("perplexity", f"checkpoint={tmp_path}/a.Q4.gguf")
    assert output_of(config, stored, "perplexity") == tmp_path / "a.Q4.results" / "perplexity.json"


def test_a_folder_that_cannot_be_written_to_is_told_with_what_to_do(trained: Path) -> None:
    stored = read(trained)._replace(folder=Path("/proc"))
    with pytest.raises(ConfigError, match=r"output=/proc/perplexity\.json: .*; say where to write, with output=PATH"):
        output_of(config_of("perplexity", f"checkpoint={trained}"), stored, "perplexity")


def test_another_measurement_of_the_same_name_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "benchmark.json", tmp_path / "benchmark.csv", tmp_path / "none.png"]
    old = json.dumps([{"samples_file": "benchmark.samples-0a0a0a0a.jsonl"}])
    files[0].write_text(old)
    files[1].write_text("old")
    with replacing(files, "benchmark.samples-0a0a0a0a.jsonl"):
        pass
    assert files[0].read_text() == old, "the same measurement renews its own"
    with replacing(files, "benchmark.samples-1b1b1b1b.jsonl"):
        pass
    assert sorted(f.name for f in tmp_path.iterdir()) == ["benchmark.0a0a0a0a.csv", "benchmark.0a0a0a0a.json"]
    assert (tmp_path / "benchmark.0a0a0a0a.json").read_text() == old
    assert "it is benchmark.0a0a0a0a.json now" in capsys.readouterr().err
    with replacing(files, "benchmark.samples-1b1b1b1b.jsonl"):
        pass
    files[0].write_text("[]")
    with replacing(files, "benchmark.samples-1b1b1b1b.jsonl"):
        pass
    assert files[0].exists(), "what is none of ours is left alone"


def test_two_measurements_that_end_at_once_both_stay(tmp_path: Path) -> None:
    files, order = [tmp_path / "benchmark.json"], []
    first_is_in = threading.Event()

    def write(name: str) -> None:
        with replacing(files, f"benchmark.samples-{name}.jsonl"):
            order.append(name)
            first_is_in.set()
            time.sleep(0.3)  # in which the other would look for what is in the way, and find nothing yet
            files[0].write_text(json.dumps([{"samples_file": f"benchmark.samples-{name}.jsonl"}]))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("0a0a0a0a", "1b1b1b1b")]
    threads[0].start()
    first_is_in.wait()
    threads[1].start()
    for thread in threads:
        thread.join()
    assert order == ["0a0a0a0a", "1b1b1b1b"]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["benchmark.0a0a0a0a.json", "benchmark.json"]
    assert "1b1b1b1b" in files[0].read_text()


def row(speedup: float, d: int) -> str:
    return json.dumps([{"mode": "self_speculative", "exit_layer": 2, "num_speculations": d, "speedup": speedup}])


def test_whose_setting_is_recommended(tmp_path: Path) -> None:
    assert recommended(tmp_path) is None
    for i, (name, known) in enumerate(
        {
            "benchmark_step-300.json": False,
            "benchmark_dtype-float64.0a0a0a0a.json": False,
            "benchmark_dtype-float64.json": True,
            "benchmark_source-tests.json": True,
            "benchmark.json": True,
            "benchmark_later.json": False,
            "recommended.json": True,
        }.items(),
        2,
    ):
        before = recommended(tmp_path)
        (tmp_path / name).write_text(row(1.5, i))
        os.utime(tmp_path / name, (i, i))
        found = recommended(tmp_path)
        if known:
            assert found is not None
            assert (found.file.name, found.num_speculations, found.pays) == (name, i, True)
        else:
            assert found == before
    for broken in ("{", "[]", "[1]", row(0.5, 2).replace("2", '"x"')):
        (tmp_path / "recommended.json").write_text(broken)
        assert recommended(tmp_path).file.name == "benchmark.json"  # type: ignore[union-attr]
    (tmp_path / "benchmark.json").write_text(row(0.15, 2))
    assert not recommended(tmp_path).pays  # type: ignore[union-attr]

"""Every task: its prompts byte for byte, its choice of samples, its scores against hand computations, its mistakes."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from evaluation import Bytes, articles, checkpoint, write_jsonl
from hydra import compose, initialize_config_module

from conf.strict import ConfigError, convert, register_schema
from data.config import DataError
from data.sources.topv2 import Rendering
from eval.engine.sampling_options import SamplingOptions
from eval.humaneval.problems import read_problems
from eval.measure.config import BenchmarkConfig
from eval.prompts.text import continuation
from eval.tasks.choices import TASKS
from eval.tasks.cnn_dm import CnnDm
from eval.tasks.cnn_dm_lm import CnnDmLm
from eval.tasks.held_out import HeldOut
from eval.tasks.humaneval import HumanEval
from eval.tasks.prompts import Prompts
from eval.tasks.rouge import rouge
from eval.tasks.task import Task
from eval.tasks.topv2 import TopV2
from eval.tasks.xsum import XSum

register_schema("benchmark", BenchmarkConfig)
CONF = Path(__file__).parent.parent / "conf" / "task"
PARSE = "[IN:CREATE_ALARM Set alarm [SL:DATE_TIME for 7 am ] ]"
JSON = '{"IN:CREATE_ALARM": ["Set alarm", {"SL:DATE_TIME": "for 7 am"}]}'
NEEDED = {
    "topv2": ["task.source=x"],
    "topv2_json": ["task.source=x"],
    "prompts": ["task.source=x"],
    "custom": ["task.path=test_tasks:Own"],
}


class Own(Task):
    """A task of the user's own."""


def configured(*overrides: str) -> Task:
    with initialize_config_module("conf", version_base="1.3"):
        return convert(compose("benchmark", ["checkpoint=x", *overrides]), BenchmarkConfig).task


@pytest.mark.parametrize("choice", sorted(f.stem for f in CONF.glob("*.yaml")))
def test_every_yaml_is_a_task(choice: str) -> None:
    task = configured(f"task={choice}", *NEEDED.get(choice, []))
    assert type(task) is TASKS[choice.removesuffix("_json")]
    assert task.name == choice.removesuffix("_json")


def test_every_task_has_a_yaml() -> None:
    assert {f.stem for f in CONF.glob("*.yaml")} == {*TASKS, "topv2_json"}
    assert configured("task=topv2_json", "task.source=x") == TopV2(source="x", rendering=Rendering.json)


def test_a_key_of_another_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task.domains: unknown key; allowed: name, .*n_shots"):
        configured("task=cnn_dm", "+task.domains=[alarm]")


def test_the_papers_protocol() -> None:
    assert [(t.n_samples, t.max_new_tokens) for t in (CnnDm(), XSum(), HumanEval(), TopV2(source="x"))] == [
        (1000, 512),
        (1000, 512),
        (None, 512),
        (1000, None),  # the paper's 80 cut our answers: as many as the longest needs
    ]
    assert (CnnDm().n_shots, XSum().n_shots, CnnDm().seed) == (1, 0, 42)
    assert (CnnDm().exit_layers(32), CnnDm().DRAFTS) == ([8], (12,))
    assert (XSum().exit_layers(32), XSum().DRAFTS) == ([8], (12,))
    assert (HumanEval().exit_layers(32), HumanEval().DRAFTS) == ([8], (6,))
    assert (TopV2(source="x").exit_layers(24), TopV2(source="x").DRAFTS) == ([6, 12, 18], (8,))


def test_zero_shot_prompts(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [{"id": "7", "document": "It rained.\nA lot.", "summary": "Rain."}])
    (sample,) = XSum(source=str(path), n_samples=1).samples(checkpoint()).samples
    assert sample.prompt == "Article: It rained.\nA lot.\nSummary:"
    assert sample.tokens == [256, *sample.prompt.encode()]
    assert (sample.id, sample.reference) == ("7", " Rain.")


def test_one_shot_prompts(tmp_path: Path) -> None:
    shots, test = articles(tmp_path / "train.jsonl", 1, "s"), articles(tmp_path / "test.jsonl", 2)
    chosen = CnnDm(source=str(test), shot_source=str(shots), n_samples=None).samples(checkpoint())
    assert [s.prompt for s in chosen.samples] == [
        "Article: s article 0 says much.\nSummary: One 0 .Two 0 .\n\nArticle: a article 0 says much.\nSummary:",
        "Article: s article 0 says much.\nSummary: One 0 .Two 0 .\n\nArticle: a article 1 says much.\nSummary:",
    ]
    assert chosen.samples[1].reference == " One 1 .\nTwo 1 ."
    assert chosen.selection.shots == [{"id": "s0", "at": f"{shots}:1", "begins": "s article 0 says much."}]


def test_samples_and_shots_are_drawn_by_the_seed(tmp_path: Path) -> None:
    shots, test = articles(tmp_path / "train.jsonl", 1100, "s"), articles(tmp_path / "test.jsonl", 50)

    def drawn(**changes: Any) -> tuple[list[str], list[str]]:
        task = CnnDm(source=str(test), shot_source=str(shots), **{"n_samples": 9} | changes)
        chosen = task.samples(checkpoint())
        return [s.id for s in chosen.samples], [s["id"] for s in chosen.selection.shots or []]

    assert drawn() == drawn()
    assert drawn()[0] != drawn(seed=1)[0]
    assert drawn()[1] != drawn(seed=1)[1]
    assert drawn(draw=False)[0] == [f"a{i}" for i in range(9)]
    assert all(int(drawn(seed=s, n_shots=3)[1][0][1:]) < 1000 for s in range(20)), "from the first 1,000"
    assert len(set(drawn(n_shots=30)[1])) == 30
    with pytest.raises(ConfigError, match=r"task.n_samples=51: there are 50 samples only"):
        drawn(n_samples=51)


def test_parquet_and_gzip_give_the_same_samples(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = articles(tmp_path / "test.jsonl", 5)
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    pq.write_table(
        pa.Table.from_pylist([json.loads(x) for x in plain.read_text().split("\n")[:-1]]), tmp_path / "t.parquet"
    )
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "test.jsonl").write_bytes(plain.read_bytes())
    texts = [
        [
            (s.id, s.prompt)
            for s in CnnDm(source=source, subset=None, n_shots=0, n_samples=3).samples(checkpoint()).samples
        ]
        for source in (str(plain), f"{plain}.gz", str(tmp_path / "t.parquet"), f"hf://{hub}")
    ]
    assert texts == texts[:1] * 4


def test_too_long_is_told_and_can_be_cut(tmp_path: Path) -> None:
    rows = [{"document": "word " * n, "summary": "x"} for n in (3, 40, 60)]
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    task = XSum(source=str(path), n_samples=None, max_new_tokens=20)
    told = r"task.max_new_tokens=20: .* 2 of 3 prompts do not fit into the context's 150 \(the longest has 319 tokens\)"
    with pytest.raises(ConfigError, match=told):
        task.samples(checkpoint(150))
    task.truncate = True
    chosen = task.samples(checkpoint(150))
    assert chosen.selection.n_truncated == 2
    assert [len(s.tokens) for s in chosen.samples] == [34, 130, 130], "as much as fits"
    assert chosen.samples[2].prompt == f"Article: {rows[2]['document'][:111]}\nSummary:"
    with pytest.raises(ConfigError, match="3 of 3 prompts do not fit"):
        task.samples(checkpoint(30))


def test_continuation_of_100_words(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(130)]
    rows = [{"article": "  ".join(words)}, {"article": "too\nshort"}]
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    chosen = CnnDmLm(source=str(path), n_samples=None).samples(checkpoint())
    (sample,) = chosen.samples
    assert sample.prompt == " ".join(words[:100])
    assert sample.reference == " ".join(words[100:])
    assert chosen.selection.n_too_short == 1


def test_rouge_by_hand() -> None:
    # the cat, sat down | the cat sat: attached punctuation is another word; of 4 and 3 words 2 agree, no pair does.
    scores = rouge("The cat, sat down", "the cat sat")
    assert scores["rouge1_paper"] == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert scores["rouge2_paper"] == 0
    assert scores["rougeL_paper"] == pytest.approx(4 / 7)
    # Without punctuation 3 of 4 and 3 words agree, 2 of 3 and 2 pairs.
    assert scores["rouge1"] == pytest.approx(6 / 7)
    assert scores["rouge2"] == pytest.approx(4 / 5)
    assert scores["rougeL"] == scores["rouge1"]
    # The stemmer makes cats, jumping and jumped alike.
    assert rouge("cats jumping", "cat jumped")["rouge1"] == 0
    assert rouge("cats jumping", "cat jumped")["rouge1_stem"] == 1
    # Clipped counts: "a" is matched once.
    assert rouge("a a a", "a b")["rouge1_paper"] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert set(rouge("", "a b").values()) == {0.0}


def topv2_folder(folder: Path) -> Path:
    header = "domain\tutterance\tsemantic_parse\n"
    (folder / "alarm_test.tsv").write_text(f"{header}alarm\tSet alarm for 7am\t{PARSE}\nalarm\tsnooze\t[IN:SNOOZE ]\n")
    (folder / "weather_test.tsv").write_text(f"{header}weather\train?\t[IN:GET_WEATHER rain ? ]\n")
    (folder / "weather_train.tsv").write_text(f"{header}weather\tsun?\t[IN:GET_WEATHER sun ? ]\n")
    return folder


def test_topv2_prompts_are_those_of_training(tmp_path: Path) -> None:
    task = TopV2(source=str(topv2_folder(tmp_path)), n_samples=None)
    samples = task.samples(checkpoint()).samples
    assert [(s.id, s.group) for s in samples] == [
        ("alarm_test.tsv:2", "alarm"),
        ("alarm_test.tsv:3", "alarm"),
        ("weather_test.tsv:2", "weather"),
    ]
    assert samples[0].prompt == "Utterance: Set alarm for 7am\nParse:\n"
    assert samples[0].reference == PARSE
    task.rendering = Rendering.json
    assert task.samples(checkpoint()).samples[0].reference == JSON
    task.domains, task.split = ["weather"], "train"
    assert [s.prompt for s in task.samples(checkpoint()).samples] == ["Utterance: sun?\nParse:\n"]


def test_topv2_scores(tmp_path: Path) -> None:
    bracketed = TopV2(source=str(topv2_folder(tmp_path)), n_samples=None)
    sample = bracketed.samples(checkpoint()).samples[0]
    right, wrong, malformed = ({"exact_match": float(r), "malformed": float(m)} for r, m in ((1, 0), (0, 0), (0, 1)))
    assert bracketed.score(sample, PARSE) == right
    assert bracketed.score(sample, f" {PARSE.replace(' ]', ']')}\nUtterance: more") == right, "white space is free"
    assert bracketed.score(sample, PARSE.replace("7", "8")) == wrong
    for bad in ("", PARSE[:-1], "Set alarm", f"{PARSE} ]", JSON, "[" * 1000):
        assert bracketed.score(sample, bad) == malformed, bad
    json_task = TopV2(source=str(tmp_path), n_samples=None, rendering=Rendering.json)
    sample = json_task.samples(checkpoint()).samples[0]
    assert json_task.score(sample, JSON) == right
    assert json_task.score(sample, JSON.replace("7", "8")) == wrong
    for bad in ("", JSON[:-1], PARSE, "[" * 100_000):
        assert json_task.score(sample, bad) == malformed, bad


def test_humaneval() -> None:
    chosen = HumanEval().samples(checkpoint())
    problem = next(iter(read_problems().values()))
    assert len(chosen.samples) == 164
    assert chosen.samples[0].prompt == problem.prompt
    assert chosen.samples[0].reference == problem.canonical_solution
    scores = HumanEval().score(chosen.samples[0], problem.canonical_solution)
    assert scores["rouge2_paper"] == 1
    assert "passed" not in scores, "nothing is run unless asked for"


@pytest.mark.sandbox
def test_humaneval_without_the_line_break() -> None:
    task = HumanEval(execute=True, n_samples=1, draw=False, strip_prompt=True)
    (sample,) = task.samples(checkpoint()).samples
    assert sample.prompt.endswith('"""')
    assert sample.tokens == checkpoint().tokenizer.encode_prompt(sample.prompt)
    assert sample.reference is not None
    assert task.score(sample, "\n" + sample.reference)["passed"] == 1
    assert task.score(sample, sample.reference)["passed"] == 0, "no line break, neither from us nor from the model"


def test_humaneval_pass_at_k_by_problem() -> None:
    task = HumanEval(n_samples=2, draw=False, n_per_problem=4, k=[1, 2], sampling=SamplingOptions(temperature=0.8))
    samples = task.samples(checkpoint()).samples
    assert [s.id for s in samples[:5]] == [*(f"HumanEval/0#{i}" for i in range(4)), "HumanEval/1#0"]
    assert len({task.sampling_of(i).seed for i in range(8)}) == 8
    task.execute = True
    passed = [1, 0, 0, 1, 0, 0, 0, 0]
    units = task.units([(s, {"rouge2": p / 2, "passed": float(p)}) for s, p in zip(samples, passed, strict=True)])
    # Of 4 with 2 right: one right of two drawn unless both are wrong, 1 - 1/6.
    assert units == {"pass@1": [0.5, 0.0], "pass@2": [pytest.approx(5 / 6), 0.0], "rouge2": [0.25, 0.0]}


@pytest.mark.sandbox
def test_humaneval_runs_what_it_is_asked_to() -> None:
    task = HumanEval(execute=True, n_samples=1, draw=False)
    (sample,) = task.samples(checkpoint()).samples
    assert sample.reference is not None
    assert task.score(sample, sample.reference + "\ndef other():\n    nonsense(\n")["passed"] == 1, (
        "cut at the next def"
    )
    assert task.score(sample, "    return not True\n")["passed"] == 0


def test_own_prompts(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "Hi", "id": 3, "reference": "Hi there"}, {"prompt": "Ho"}])
    task = Prompts(source=str(path))
    first, second = task.samples(checkpoint()).samples
    assert (first.id, second.id) == ("3", "p.jsonl:2")
    assert task.score(first, "Hi there")["rouge2"] == 1
    assert task.score(second, "Hi there") == {}
    assert task.units([(first, task.score(first, "Hi there")), (second, {})])["rouge2"] == [1]


def test_the_end_of_text_ends_a_text() -> None:
    assert CnnDm().stop(Bytes()).eos_ids == {257}
    assert CnnDm(ignore_eos=True).stop(Bytes()).eos_ids == set()
    assert HeldOut().stop(Bytes()).eos_ids == set()
    assert XSum(max_new_tokens=7).stop(Bytes()).max_new_tokens == 7


class Stripping(Bytes):
    """As SentencePiece: a text's first space is not text."""

    def decode(self, ids: list[int]) -> str:
        return super().decode(ids).removeprefix(" ")


def test_the_text_of_new_tokens_is_what_they_add() -> None:
    assert Stripping().decode([*b" a"]) == "a"
    assert continuation(Stripping(), [256, *b"def f():"], [*"  été".encode(), 257]) == "  été"


LINE_17 = [{"prompt": "x"}] * 16 + [{"text": "x"}]
BAD: dict[str, tuple[str, type[Task], dict[str, Any], str]] = {
    "field": ("\n".join(map(json.dumps, LINE_17)), Prompts, {}, r"p\.jsonl:17: no field 'prompt'; fields: text"),
    "empty": ("", Prompts, {}, r"p\.jsonl: the file is empty"),
    "blank": ("\n\n", Prompts, {}, r"p\.jsonl: the file is empty"),
    "json": ('{"prompt": "x"}\n{"prompt": ', Prompts, {}, r"p\.jsonl:2: broken JSON"),
    "list": ("[1]", Prompts, {}, r"p\.jsonl:1: not an object"),
    "null": ('{"prompt": null}', Prompts, {}, r"p\.jsonl:1: no text in field 'prompt'"),
    "nothing": ('{"prompt": ""}', Prompts, {}, r"p\.jsonl:1: the prompt is empty"),
    "reference": ('{"prompt": "x", "reference": 3}', Prompts, {}, r"p\.jsonl:1: no text in field 'reference'"),
    "twice": ('{"prompt": "x", "id": 1}\n' * 2, Prompts, {}, r"p\.jsonl:2: the id '1' is also that of .*p\.jsonl:1"),
    "cnn_dm": ('{"document": "x"}', CnnDm, {"n_shots": 0}, r"p\.jsonl:1: no field 'article'; fields: document"),
    "xsum": ('{"article": "x"}', XSum, {}, r"p\.jsonl:1: no field 'document'"),
    "humaneval": ('{"task_id": "x"}', HumanEval, {}, r"p\.jsonl:1: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_told_by_file_and_line(tmp_path: Path, name: str) -> None:
    content, kind, options, message = BAD[name]
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        kind(source=str(tmp_path / "p.jsonl"), **options).samples(checkpoint())


def test_held_out_text_needs_a_run_or_a_source(tmp_path: Path) -> None:
    exported: Any = checkpoint()
    exported.stored.run = None
    with pytest.raises(ConfigError, match=r"task\.source: missing; the checkpoint is no run folder"):
        HeldOut().samples(exported)
    (tmp_path / "a.txt").write_text("abcdefgh" * 100)
    chosen = HeldOut(source=str(tmp_path), n_samples=3, prompt_tokens=8).samples(exported)
    assert [(s.id, len(s.tokens)) for s in chosen.samples] == [("0", 8), ("1", 8), ("2", 8)]
    exported.stored.size.max_seq_len = 100
    with pytest.raises(ConfigError, match=r"task\.prompt_tokens \+ task\.max_new_tokens=104: must be at most"):
        HeldOut(source=str(tmp_path), n_samples=3, prompt_tokens=8).samples(exported)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl: no .* file there"):
        XSum(source=str(tmp_path / "nothing.jsonl")).samples(checkpoint())
    with pytest.raises(ConfigError, match=r"no \{domain\}_valid\.tsv there"):
        TopV2(source=str(topv2_folder(tmp_path)), split="valid").samples(checkpoint())
    with pytest.raises(ConfigError, match=r"task.domains: no music in .*; there are alarm, weather"):
        TopV2(source=str(tmp_path), domains=["music"]).samples(checkpoint())
    (tmp_path / "alarm_test.tsv").write_text("domain\tutterance\tsemantic_parse\nalarm\tx\t[IN:A\n")
    with pytest.raises(DataError, match=r"alarm_test\.tsv:2: not a parse \(1 of the brackets"):
        TopV2(source=str(tmp_path), n_samples=None).samples(checkpoint())
    hub = tmp_path / "hub"
    hub.mkdir()
    articles(hub / "test.jsonl", 2)
    with pytest.raises(DataError, match=r"cannot be opened .*check name, subset, split"):
        CnnDm(source=f"hf://{hub}", subset=None, split="validation", n_shots=0).samples(checkpoint())


MISTAKES = {
    ("task=cnn_dm", "task.source=x.jsonl"): r"task.shot_source: missing; n_shots=1 needs examples",
    ("task=cnn_dm", "task.n_shots=-1"): r"task.n_shots=-1: must be at least 0",
    ("task=xsum", "task.n_samples=0"): r"task.n_samples=0: must be at least 1",
    (
        "task=humaneval",
        "task.n_per_problem=5",
    ): r"task.n_per_problem=5: would all be alike; give task.sampling.temperature",
    ("task=humaneval", "task.k=[1,10]"): r"task.k=\[1, 10\]: must lie in 1\.\.1",
    ("task=humaneval", "task.sampling.temperature=-1"): r"sampling.temperature=-1.0: must be 0 \(greedy\) or at least",
    ("task=humaneval", "+task.temperature=0.8"): r"task.temperature: is now task.sampling.temperature",
    ("task.sampling.min_p=2",): r"sampling.min_p=2.0: must be from 0",
    ("task=topv2",): r"task.source: missing",
    ("task.n_samples=null",): r"task.n_samples=null: the text is not made of samples",
}


@pytest.mark.parametrize(("overrides", "message"), MISTAKES.items(), ids=[" ".join(m) for m in MISTAKES])
def test_mistakes_in_the_configuration(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(*overrides)

"""The limit of new tokens: room for the longest reference, and one line on what a smaller one costs."""

import json
from pathlib import Path

import pytest
from evaluation import Bytes, articles, checkpoint, write_jsonl

from conf.strict import ConfigError
from data.sources.topv2 import Rendering
from eval.tasks.custom import Custom
from eval.tasks.held_out import HeldOut
from eval.tasks.prompts import Prompts
from eval.tasks.references import answer_tokens
from eval.tasks.task import Chosen, Sample, Selection, Task
from eval.tasks.topv2 import TopV2
from eval.tasks.xsum import XSum

SHORT, LONG = "[IN:GET_ALARM ]", "[IN:CREATE_ALARM " + "Set an alarm " * 9 + "[SL:DATE_TIME for 7 am ] ]"


@pytest.fixture
def topv2(tmp_path: Path) -> str:
    for domain in ("alarm", "weather"):
        rows = [f"{domain}\twords {i}\t{LONG if i == 2 else SHORT}" for i in range(8)]
        (tmp_path / f"{domain}_test.tsv").write_text("\n".join(["domain\tutterance\tsemantic_parse", *rows, ""]))
    return str(tmp_path)


def perfect_score(task: TopV2, chosen: Chosen) -> float:
    """Of a model that always writes the reference, as far as it may."""
    tokenizer, stop = Bytes(), task.stop(Bytes())  # type: ignore[arg-type]
    scores = []
    for sample in chosen.samples:
        ids = answer_tokens(tokenizer, sample.reference or "")[: stop.max_new_tokens]  # type: ignore[arg-type]
        scores.append(task.score(sample, tokenizer.decode(ids))["exact_match"])
    return sum(scores) / len(scores)


@pytest.mark.parametrize("rendering", list(Rendering))
def test_a_perfect_model_scores_1(topv2: str, rendering: Rendering) -> None:
    task = TopV2(source=topv2, n_samples=None, rendering=rendering)
    assert task.num_speculations() == [8], "known before the samples are read"
    chosen = task.samples(checkpoint())
    longest = max(len((s.reference or "").encode()) + 1 for s in chosen.samples)
    assert longest + 8 <= task.limit == task.stop(Bytes()).max_new_tokens <= longest * 1.2  # type: ignore[arg-type]
    assert task.max_new_tokens == task.limit, "result files say the number"
    assert perfect_score(task, chosen) == 1.0
    assert "warning" not in chosen.described(task)


def test_a_limit_that_is_too_small_is_told_with_the_score_that_is_left(topv2: str) -> None:
    task = TopV2(source=topv2, n_samples=None, rendering=Rendering.json, max_new_tokens=80)
    chosen = task.samples(checkpoint())
    assert perfect_score(task, chosen) == 0.875
    assert chosen.selection.best_possible == {"exact_match": 0.875}
    [line] = [line for line in chosen.described(task).splitlines() if "warning" in line]
    assert "task.max_new_tokens=80 is less than 2 of the references need (the longest 1" in line
    assert "a model that always writes the reference scores exact_match 0.875; null takes" in line


def test_other_tasks_with_references(tmp_path: Path) -> None:
    rows = [{"document": "It rained.", "summary": "Rain. " * n} for n in (1, 20)]
    path = str(write_jsonl(tmp_path / "x.jsonl", rows))
    task = XSum(source=path, n_samples=None, max_new_tokens=None)
    task.samples(checkpoint())
    assert 122 <= task.limit <= 140
    told = XSum(source=path, n_samples=None, max_new_tokens=20)
    assert "scores rouge1 0." in told.samples(checkpoint()).described(told)
    assert "warning" not in (default := XSum(source=path, n_samples=None)).samples(checkpoint()).described(default)


def test_without_a_reference_a_number_is_needed(tmp_path: Path) -> None:
    prompts = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a"}])
    with pytest.raises(ConfigError, match=r"task\.max_new_tokens=null: no sample has a reference"):
        Prompts(source=str(prompts), max_new_tokens=None).samples(checkpoint())
    with pytest.raises(ValueError, match=r"task\.max_new_tokens=null: pieces of text have no references"):
        HeldOut(max_new_tokens=None)
    with pytest.raises(ConfigError, match=r"task\.max_new_tokens=null: test_references:Own does not fill it in"):
        Custom(path="test_references:Own", max_new_tokens=None).samples(checkpoint())
    custom = Custom(path="test_references:Own", max_new_tokens=7)
    assert custom.samples(checkpoint()).samples[0].id == "0"
    assert custom.limit == 7


class Own(Task):
    """A task of the user's own."""

    def samples(self, checkpoint: object) -> Chosen:
        """One."""
        return Chosen([Sample(id="0", prompt="a", tokens=[1])], Selection())


def test_the_first_samples_of_files_in_order_are_told_to_be_of_one_group(topv2: str) -> None:
    first = TopV2(source=topv2, n_samples=8, draw=False)
    chosen = first.samples(checkpoint())
    assert {s.group for s in chosen.samples} == {"alarm"}
    assert "warning: the first samples are all of alarm; task.draw=true draws from all groups" in chosen.described(
        first
    )
    drawn = TopV2(source=topv2, n_samples=8)
    chosen = drawn.samples(checkpoint())
    assert {s.group for s in chosen.samples} == {"alarm", "weather"}
    assert "warning" not in chosen.described(drawn)
    only = TopV2(source=topv2, n_samples=None, draw=False, domains=["alarm"])
    assert "warning" not in only.samples(checkpoint()).described(only)


def test_articles_have_no_groups(tmp_path: Path) -> None:
    task = XSum(source=str(articles(tmp_path / "a.jsonl", 5)), n_samples=2, draw=False)
    task.ARTICLE, task.SUMMARY = "article", "highlights"  # type: ignore[misc]
    assert "warning" not in task.samples(checkpoint()).described(task)
    assert json.dumps(task.samples(checkpoint()).selection.as_json())

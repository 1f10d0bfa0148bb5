"""The pages in a real browser: they load nothing, fit a narrow window, answer mouse and keys, do no harm."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from browser import Browser
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from test_lens import data_of

from conf.page import page as page_module
from conf.page.page import embedded
from conf.strict import register_schema
from eval.compare import compare
from eval.config import GenerateConfig
from eval.depth.lens_config import LensConfig
from eval.exactness.compare_config import CompareConfig
from eval.generate import generate
from eval.lens import lens
from eval.pages.page import page

for name, schema in {"lens": LensConfig, "compare": CompareConfig, "generate": GenerateConfig}.items():
    register_schema(name, schema)
EVIL = '</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script><!--<script>'
# Some drafts are rejected: 29 of 69 here, and at least 8 with the seeds 0 and 2.
UNSURE = {"sampling.temperature": 1.0, "sampling.seed": 1, "exit_layer": 1}
ODD = EVIL + "\u202e &amp; 漢字 😀 שלום \u2581\x07\r\n\t\u2028end"


class Pages(NamedTuple):
    """One of each."""

    lens: Path
    drafts: Path
    compare: Path


@pytest.fixture(scope="module")
def pages(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    folder = tmp_path_factory.mktemp("pages")
    out = Pages(folder / "lens.html", folder / "drafts.html", folder / "compare.html")
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("import", ODD)))
    for name, action, options in (
        ("lens", lens, {"output": str(out.lens), "prompt": ODD, "max_new_tokens": 8}),
        ("generate", generate, {"output": str(out.drafts), "prompt": ODD, "max_new_tokens": 60} | UNSURE),
        ("compare", compare, {"output": str(out.compare), "prompt_file": str(prompts), "max_new_tokens": 40}),
    ):
        with initialize_config_module("conf", version_base="1.3"):
            raw = compose(name, [f"checkpoint={trained}"])
        for key, value in options.items():
            OmegaConf.update(raw, key, value)
        action(raw)
    return out


@pytest.mark.parametrize("view", Pages._fields)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_loads_alone_and_without_a_word(browser: Browser, pages: Pages, view: str, scheme: str) -> None:
    path = getattr(pages, view)
    browser.open(path, scheme=scheme)
    assert browser.said() == []
    assert [url for url in browser.asked() if not url.startswith("data:")] == [path.as_uri()]
    assert browser.one("h1").text
    assert browser.one("main").text
    assert "NaN" not in browser.one("body").text
    assert "undefined" not in browser.one("body").text
    background = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_console_and_the_network_are_watched(browser: Browser, tmp_path: Path) -> None:
    """The test above can fail."""
    bad = tmp_path / "bad.html"
    bad.write_text('<body><script src="http://127.0.0.1:9/x.js"></script><script>throw Error("no")</script>')
    browser.open(bad)
    assert any("no" in line for line in browser.said())
    assert "http://127.0.0.1:9/x.js" in browser.asked()


@pytest.mark.parametrize("view", Pages._fields)
def test_a_narrow_window_needs_no_scrolling_sideways(browser: Browser, pages: Pages, view: str) -> None:
    browser.open(getattr(pages, view), width=360, height=740)
    width, inner = browser.js("return [document.scrollingElement.scrollWidth, innerWidth]")
    assert inner == 360
    assert width <= 360
    if view == "lens":  # the table scrolls by itself, below its first column
        assert browser.js("const s = document.querySelector('.scroll'); return s.scrollWidth > s.clientWidth")
        before = browser.one(".lens tbody th").rect["x"]
        browser.js("document.querySelector('.scroll').scrollLeft = 400")
        assert browser.one(".lens tbody th").rect["x"] == before


# The lowest contrast of text with what is behind it, over all text that is not struck out or for the eye alone.
CONTRAST = """
const parse = (c) => {
  const n = c.match(/[\\d.e-]+/g).map(Number);
  const unit = c.startsWith("color(") ? 1 : 255;
  return [n[0] / unit, n[1] / unit, n[2] / unit, n[3] ?? 1];
};
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
const back = (e) => e === null ? [1, 1, 1] : over(parse(getComputedStyle(e).backgroundColor), back(e.parentElement));
const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
let worst = [99, ""];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || !e.getClientRects().length || e.closest("[aria-hidden],script")) continue;
  const b = back(e), f = over(parse(getComputedStyle(e).color), b);
  const [hi, lo] = [light(b), light(f)].sort((x, y) => y - x);
  const ratio = (hi + 0.05) / (lo + 0.05);
  if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 200)];
}
return worst;
"""


@pytest.mark.parametrize("view", Pages._fields)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Browser, pages: Pages, view: str, scheme: str) -> None:
    """WCAG AA, with every toggle on and off."""
    browser.open(getattr(pages, view), scheme=scheme)
    for clicks in range(2):
        ratio, element = browser.js(CONTRAST)
        assert 4.5 <= ratio < 99, (clicks, element)
        for control in browser.all("input:not(:checked)"):
            control.click()
    browser.js("document.querySelector('h1').style.color = '#777'")
    assert browser.js(CONTRAST)[0] < 4.5, "it can fail"


def rows_of_panel(browser: Browser) -> list[list[str]]:
    return browser.js(
        "return [...document.querySelectorAll('.panel tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    )


def expected_rows(data: dict[str, Any], layer: int, at: int) -> list[list[str]]:
    last = data["top_ids"][-1][at][0]
    rows = []
    for i, p in zip(data["top_ids"][layer - 1][at], data["top_probabilities"][layer - 1][at], strict=True):
        text = "".join({"\n": "↵", "\t": "⇥"}.get(x, x) if k % 2 else x for k, x in enumerate(data["shown"][str(i)]))
        rows.append([text + (" =" if i == last else ""), f"{100 * p:.1f}%" if p >= 0.001 else "< 0.1%"])
    return rows


def test_pointing_at_a_prediction_shows_its_best_tokens(browser: Browser, pages: Pages) -> None:
    browser.open(pages.lens)
    data = data_of(pages.lens)
    for layer, at in ((2, 3), (4, 0), (1, 5)):
        cell = browser.one(f'[data-at="{layer},{at}"]')
        ActionChains(browser.driver).move_to_element(cell).perform()
        assert browser.one(".panel h3").text == f"Layer {layer} of 4, position {at}"
        assert rows_of_panel(browser) == expected_rows(data, layer, at)
        settled = data["layers_needed"][at]
        assert ("last layer" if settled == 4 else f"layer {settled};") in browser.one(".panel p:last-child").text


def first_number(pattern: str, browser: Browser) -> float:
    """A number of the page's totals: what lies half way is rounded up there, and to the even digit by Python."""
    found = re.search(pattern, browser.one(".totals").text)
    assert found, pattern
    return float(found[1])


def test_the_table_is_the_data(browser: Browser, pages: Pages) -> None:
    browser.open(pages.lens)
    data = data_of(pages.lens)
    layers = browser.js("return [...document.querySelectorAll('.lens tbody th')].map((e) => e.textContent)")
    assert layers == ["4", "3", "2", "1"], "the last on top"
    settles = browser.js("return [...document.querySelectorAll('td.settles')].map((e) => e.dataset.at)")
    assert sorted(settles) == sorted(f"{layer},{at}" for at, layer in enumerate(data["layers_needed"]))
    same = browser.js("return [...document.querySelectorAll('td.same')].map((e) => e.dataset.at)")
    best = [[ids[0] for ids in layer] for layer in data["top_ids"]]
    equal = {(i, at) for i, layer in enumerate(best, 1) for at, id_ in enumerate(layer) if id_ == best[-1][at]}
    assert set(same) == {f"{layer},{at}" for layer, at in equal}
    assert first_number(r"(\d\.\d\d) of 4", browser) == pytest.approx(data["mean_layers_needed"], abs=0.005 + 1e-9)
    assert len(browser.all("thead .generated")) == data["n_generated"] - 1


def test_the_lens_by_keyboard(browser: Browser, pages: Pages) -> None:
    browser.open(pages.lens, width=600)
    n = len(data_of(pages.lens)["tokens"])
    keys = lambda *k: ActionChains(browser.driver).send_keys(*k).perform()  # noqa: E731
    at = lambda: browser.js("return document.activeElement.dataset.at")  # noqa: E731
    for _ in range(4):  # the radio buttons, the scrolling region, the table
        keys(Keys.TAB)
        if at():
            break
    assert at() == "4,0", "one cell is in the tab order"
    keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert at() == "3,2"
    assert browser.one(".panel h3").text == "Layer 3 of 4, position 2"
    assert browser.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keys(Keys.END)
    assert at() == f"3,{n - 1}"
    left, right = browser.js("const r = document.activeElement.getBoundingClientRect(); return [r.left, r.right]")
    assert 0 <= left < right <= 600, "what has the focus is in view"
    keys(Keys.HOME, Keys.ARROW_LEFT, Keys.PAGE_UP, Keys.ARROW_UP)
    assert at() == "4,0", "it ends at the edges"
    assert len(browser.all('.lens [tabindex="0"]')) == 1


def test_tap_and_colours_of_the_lens(browser: Browser, pages: Pages) -> None:
    browser.open(pages.lens, width=360, height=740)
    browser.js("document.querySelector('[data-at=\"2,1\"]').click()")
    assert browser.one(".panel h3").text == "Layer 2 of 4, position 1"
    colour = "return getComputedStyle(document.querySelector('[data-at=\"4,1\"]')).backgroundColor"
    before = browser.js(colour)
    browser.one('input[value="agreement"]').click()
    assert browser.js(colour) != before
    weights = browser.js(
        "return [...document.querySelectorAll('.lens td[data-at]')]"
        ".map((e) => [e.classList.contains('same'), Number(getComputedStyle(e).fontWeight) > 500])"
    )
    assert all(same == bold for same, bold in weights), "agreement is told by weight as well"
    assert not browser.one(".for-probability").is_displayed()
    browser.one("summary").click()
    assert "100.0%" in browser.one("details .numbers").text


def test_drafts(browser: Browser, pages: Pages) -> None:
    browser.open(pages.drafts)
    data = data_of(pages.drafts)
    drafted, full = browser.all(".flow .drafted"), browser.all(".flow .full")
    assert len(drafted) == sum(r["n_accepted"] for r in data["rounds"])
    assert len(drafted) + len(full) == len(data["ids"])
    rejected = [shown for r in data["rounds"] for shown in r["rejected"] if r["n_tokens"] > r["n_accepted"]]
    shown = browser.all(".flow .rejected")
    assert len(shown) == len(rejected) > 0
    assert not shown[0].is_displayed()
    browser.one("#show-rejected").click()
    assert shown[0].is_displayed()
    ActionChains(browser.driver).move_to_element(shown[0]).perform()
    assert browser.one(".panel h3").text == "Drafted and rejected"
    assert "the full model has" in browser.one(".panel").text
    assert len(browser.all(".round")) == len(data["rounds"])
    browser.one("#show-rounds").click()
    assert not browser.one(".round").is_displayed()
    browser.one("#show-colours").click()
    assert browser.js("return getComputedStyle(document.querySelector('.flow .drafted')).borderBottomWidth") == "0px"
    share = len(drafted) / sum(r["n_drafted"] for r in data["rounds"])
    assert first_number(r"accepted of the drafts\n(\d+\.\d)%", browser) == pytest.approx(100 * share, abs=0.05 + 1e-9)
    browser.js("document.querySelector('.flow [data-at=\"0\"]').focus()")
    assert browser.one(".panel h3").text == "Supplied by all 4 layers"
    ActionChains(browser.driver).send_keys(Keys.ARROW_RIGHT).perform()
    assert browser.js("return document.activeElement.dataset.at") == "1"


def test_compare(browser: Browser, pages: Pages) -> None:
    browser.open(pages.compare)
    data = data_of(pages.compare)
    cards = browser.all(".side")
    sides = [side for prompt in data["prompts"] for side in prompt["sides"]]
    assert len(cards) == len(sides) == 2 * len(data["rows"])
    for card, side in zip(cards, sides, strict=True):
        first = card.find_elements("css selector", ".text .first")
        assert len(first) == (side["differs_at"] is not None)
        if first:
            assert f"differs from token {side['differs_at'] + 1} on" in card.text
            place = browser.js("return [...arguments[0].parentNode.children].indexOf(arguments[0])", first[0])
            assert place == side["differs_at"]
        if side["must_be_same"]:
            assert "same as autoregressive" in card.text
    drafted = browser.one(".side .drafted")
    look = lambda: browser.js("return getComputedStyle(arguments[0]).borderBottomWidth", drafted)  # noqa: E731
    assert look() == "0px"
    browser.one("#show-drafted").click()
    assert look() == "2px"


@pytest.mark.parametrize("view", Pages._fields)
def test_text_that_looks_like_markup_is_text(browser: Browser, pages: Pages, view: str) -> None:
    browser.open(getattr(pages, view))
    assert browser.js("return window.hacked") is None
    assert not browser.all("img")
    assert len(browser.all("script")) == 2
    text = browser.js("return document.getElementById('main').textContent")
    # In the lens each token has its own cell, and this tokenizer spells rare characters in bytes.
    whole = [EVIL, "U+202E", "␇", "U+2028", "漢字 😀 שלום ▁"]
    for part in ["<", "onerror", "E2", "␇"] if view == "lens" else whole:
        assert part in text, part
    assert not re.search("[\u202e\u2028\x07]", text)


def test_facts_and_title_are_text(browser: Browser, tmp_path: Path, pages: Pages) -> None:
    content = page(view="lens", title=EVIL, facts={EVIL: EVIL}, data=data_of(pages.lens))
    (tmp_path / "a.html").write_text(content)
    browser.open(tmp_path / "a.html")
    assert browser.said() == []
    assert browser.js("return [window.hacked, document.title]") == [None, EVIL]
    assert EVIL in browser.one(".facts").text


def test_what_would_be_harmful_is_seen(
    browser: Browser, tmp_path: Path, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unescaped, the same data run as code; the policy of the page alone stops that, too."""
    assert json.loads(embedded({"a": ODD})) == {"a": ODD}
    monkeypatch.setattr(page_module, "embedded", lambda data: json.dumps(data))
    content = page(view="lens", title="a", facts={}, data={"text": EVIL})
    policy = re.search(r"<meta http-equiv=.*\n", content)
    assert policy
    for name, html, hacked in (("bare", content.replace(policy[0], ""), 1), ("policy", content, None)):
        (tmp_path / f"{name}.html").write_text(html)
        browser.open(tmp_path / f"{name}.html")
        assert browser.js("return window.hacked") == hacked
        assert browser.said()


def test_paper_has_every_column(browser: Browser, pages: Pages) -> None:
    browser.open(pages.lens, width=1032, media="print")  # A4 landscape less its margins
    n = len(data_of(pages.lens)["tokens"])
    browser.js("dispatchEvent(new Event('beforeprint'))")
    assert len(browser.all(".print thead th")) == n + len(browser.all(".print table"))
    assert (
        browser.js("return Math.max(...[...document.querySelectorAll('.print table')].map((t) => t.offsetWidth))")
        <= 1032
    )
    assert not browser.one(".panel").is_displayed()
    assert not browser.one(".scroll.lenses").is_displayed()
    browser.js("dispatchEvent(new Event('afterprint'))")
    assert not browser.all(".print table")
    pdf = browser.cdp("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})["data"]
    assert len(pdf) > 10_000

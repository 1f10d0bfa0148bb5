"""The page of training runs in a real browser: lines, mouse, keys, narrow windows, paper, reloading, no harm."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from browser import Browser
from run_folders import rows_of, write_run
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from test_lens import data_of
from test_pages import CONTRAST

from train.report_page.document import document
from train.report_page.run_record import RunRecord

EVIL = '<img src=x onerror="window.hacked=1"> &amp; 漢字'


class Pages(NamedTuple):
    """Of one run that training has left, and of several, one of which is of another depth and has an evil name."""

    one: Path
    several: Path


def write_page(path: Path, *folders: Path, refresh: float | None = None) -> Path:
    records = [RunRecord(folder, folder.name) for folder in folders]
    for record in records:
        record.read()
    path.write_text(document(records, refresh))
    return path


@pytest.fixture(scope="module")
def pages(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    folder = tmp_path_factory.mktemp("report")
    evil = write_run(folder / EVIL, "early_exit=gradual", "early_exit.e_scale=0.2", n_layers=8, done=30)
    (evil / "config.yaml").write_text((evil / "config.yaml").read_text() + f"\nextra: '{EVIL}'\n")
    with (evil / "starts.jsonl").open("a") as stream:
        stream.write(json.dumps({"from_step": 20, "host": f"</script>{EVIL}", "time": EVIL}) + "\n")
    (evil / "bad_steps.jsonl").write_text(json.dumps({"step": 13, "why": EVIL}) + "\n")
    early = write_run(folder / "early", done=4)
    return Pages(write_page(folder / "one.html", trained), write_page(folder / "several.html", trained, evil, early))


def at(browser: Browser, page: Path, state: str, **options: Any) -> None:
    """Open a page as a reader has left it."""
    browser.open(page, **options)
    browser.driver.get("about:blank")
    browser.driver.get(f"{page.as_uri()}#{state}")


def press(browser: Browser, *keys: str) -> None:
    ActionChains(browser.driver).send_keys(*keys).perform()


def readout(browser: Browser, figure: str) -> str:
    return browser.one(f"#{figure} .readout").text  # type: ignore[no-any-return]


def wait_for(holds: Callable[[], object]) -> None:
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.parametrize("view", Pages._fields)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_loads_alone_and_without_a_word(browser: Browser, pages: Pages, view: str, scheme: str) -> None:
    path = getattr(pages, view)
    browser.open(path, scheme=scheme)
    assert browser.said() == []
    assert [url for url in browser.asked() if not url.startswith("data:")] == [path.as_uri()]
    text = browser.one("body").text
    assert "NaN" not in text
    assert "undefined" not in text
    assert browser.js("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 22, 26)"
    )


@pytest.mark.parametrize("view", Pages._fields)
@pytest.mark.parametrize("state", ["", "view=over&metric=val/agreement&x=token"])
def test_a_narrow_window_needs_no_scrolling_sideways(browser: Browser, pages: Pages, view: str, state: str) -> None:
    at(browser, getattr(pages, view), state, width=360, height=740)
    assert browser.js("return [document.scrollingElement.scrollWidth, innerWidth]") == [360, 360]
    widths = browser.js("return [...document.querySelectorAll('.chart svg')].map((e) => e.viewBox.baseVal.width)")
    assert widths
    assert max(widths) <= 360, "a chart is drawn for its window: its letters stay as large"


@pytest.mark.parametrize("view", Pages._fields)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Browser, pages: Pages, view: str, scheme: str) -> None:
    browser.open(getattr(pages, view), scheme=scheme)
    ratio, element = browser.js(CONTRAST)
    assert 4.5 <= ratio < 99, element
    colours = browser.js("return [...document.querySelectorAll('.chart text')].map((e) => getComputedStyle(e).fill)")
    assert set(colours) == {browser.js("return getComputedStyle(document.querySelector('.facts')).color")}


def test_the_lines_are_the_metrics(browser: Browser, pages: Pages) -> None:
    browser.open(pages.one)
    run = data_of(pages.one)["runs"][0]
    assert len(browser.all("#curve-0 .line")) == 4, "one for each exit"
    ppl = run["validations"]["metrics"]["val/ppl"]
    circles = browser.js(
        "return [...document.querySelectorAll('#curve-0 .line')].map((e) => [...e.querySelectorAll('circle')]"
        ".map((c) => Number(c.getAttribute('cy'))))"
    )
    assert [len(of_line) for of_line in circles] == [len(ppl)] * 4
    heights = [of_line[-1] for of_line in circles]
    order = sorted(range(4), key=lambda i: ppl[-1][i])
    assert sorted(range(4), key=lambda i: -heights[i]) == order, "the lower perplexity lies lower"
    titles = browser.js("return [...document.querySelectorAll('figcaption b')].map((e) => e.textContent)")
    assert {"Gradient norm before clipping", "Learning rate", "Tokens per second, all ranks", "p(l, t)"} <= set(titles)
    assert "Training loss of each exit, nats per token" in browser.one("#metric").text
    totals = browser.one(".totals").text
    assert "finished" in totals
    assert "40 of 40" in totals


def test_pointing_at_a_line_tells_its_value(browser: Browser, pages: Pages) -> None:
    browser.open(pages.one)
    last = browser.all("#curve-0 .line")[-1].find_elements("css selector", "circle")[-1]
    ActionChains(browser.driver).move_to_element(last).perform()
    value = data_of(pages.one)["runs"][0]["validations"]["metrics"]["val/ppl"][-1][3]
    assert readout(browser, "curve-0").startswith(f"exit 4: {value:.3g} at step 40")


def test_charts_by_keyboard(browser: Browser, pages: Pages) -> None:
    at(browser, pages.one, "metric=train/loss")
    series = data_of(pages.one)["runs"][0]["series"]
    for _ in range(12):
        press(browser, Keys.TAB)
        if browser.js("return document.activeElement.id") == "curve-0":
            break
    press(browser, Keys.ARROW_LEFT)
    steps, values = series["train/loss/exit_04"]
    told = lambda exit_, i: f"exit {exit_}: {values[i]:.3g} at step {steps[i]}"  # noqa: E731
    assert readout(browser, "curve-0").split(";")[0] == told(4, -1), "the first key goes to the last point"
    press(browser, Keys.ARROW_LEFT)
    assert readout(browser, "curve-0") == told(4, -2)
    press(browser, Keys.HOME, Keys.ARROW_LEFT)
    assert readout(browser, "curve-0") == told(4, 0)
    press(browser, Keys.ARROW_DOWN)
    assert readout(browser, "curve-0").startswith("exit 3: ")
    press(browser, *[Keys.ARROW_UP] * 5)
    assert readout(browser, "curve-0").startswith("exit 4: "), "it ends at the edges"
    assert len(browser.all("#curve-0 .cursor circle")) == 1


def test_the_slider_goes_through_the_validations(browser: Browser, pages: Pages) -> None:
    browser.open(pages.several)
    assert browser.one("#validation-step").text.startswith("step 40, ")
    assert len(browser.all("#depth .line")) == 2, "runs without a validation have no line"
    browser.js("document.getElementById('validation').focus()")
    press(browser, Keys.HOME)
    assert browser.one("#validation-step").text.startswith("step 10, 1 of ")
    assert "at=10" in browser.js("return location.hash")
    assert len(browser.all("#depth .line")) == 1, "trained is validated at step 40 alone"
    browser.js("document.getElementById('depth').focus()")
    press(browser, Keys.END)
    value = data_of(pages.several)["runs"][1]["validations"]["metrics"]["val/ppl"][0][-1]
    assert readout(browser, "depth") == f"{EVIL}, step 10: {value:.3g} at exit layer 8"


def test_runs_side_by_side_and_overlaid(browser: Browser, pages: Pages) -> None:
    browser.open(pages.several)
    assert [len(browser.all(f"#curve-{i} .line")) for i in range(3)] == [4, 8, 0]
    ticks = browser.js(
        "return [0, 1].map((i) => [...document.querySelectorAll(`#curve-${i} text`)].map((e) => e.textContent).join())"
    )
    assert ticks[0] == ticks[1], "they have the same axes"
    assert not browser.one("#exit").is_displayed()
    browser.one("#view-over").click()
    assert browser.one("#exit").is_displayed()
    assert len(browser.all("#curve-over .line")) == 2
    browser.js("const e = document.getElementById('exit'); e.value = '7'; e.dispatchEvent(new Event('change'))")
    assert len(browser.all("#curve-over .line")) == 1, "the other has no seventh layer"
    browser.one("#run-1").click()
    assert not browser.all("#curve-over .line")
    assert "Nothing here yet" in browser.one("#curve-over").text
    assert "hide=1" in browser.js("return location.hash")


def test_heat_maps(browser: Browser, pages: Pages) -> None:
    browser.open(pages.several)
    maps = data_of(pages.several)["runs"][1]["schedules"]
    for i, schedule in enumerate(maps):
        columns, most = schedule["columns"], max(v for column in schedule["columns"] for v in column)
        alphas = browser.js(
            f"const c = document.querySelector('#heat-1-{i} canvas');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return [c.width, c.height, [...d].filter((_, j) => j % 4 === 3)]"
        )
        assert alphas[:2] == [len(columns), 8]
        expected = [round(255 * (column[7 - y] / most) ** 0.5) if most else 0 for y in range(8) for column in columns]
        assert all(abs(a - b) <= 1 for a, b in zip(alphas[2], expected, strict=True)), "the last layer on top"
    browser.js("document.getElementById('heat-1-2').focus()")
    press(browser, Keys.ARROW_RIGHT)
    assert readout(browser, "heat-1-2").endswith("in layer 7 (exit 8), step 0")
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert readout(browser, "heat-1-2").endswith("in layer 5 (exit 6), step 1")
    assert len(browser.all(".heat")) == 9
    assert "0 everywhere" in browser.one("#heat-1-0").text


def test_tables(browser: Browser, pages: Pages) -> None:
    browser.open(pages.several)
    text = browser.js("return document.getElementById('main').textContent")
    for told in ("update skipped", "continued from step 20", "early_exit.curriculum", "no validation yet", "killed"):
        assert told in text, told
    browser.one("#same summary").click()
    assert "train.seed" in browser.one("#same").text
    browser.open(pages.one)
    rows = browser.js(
        "return [...document.querySelectorAll('.numbers')].map((t) => [...t.rows].map((r) => r.cells.length))"
    )
    assert rows[0] == [6] * 5, "loss, perplexity, bits per byte, agreement and acceptance of four exits"


def test_the_address_keeps_what_was_chosen(browser: Browser, pages: Pages) -> None:
    browser.open(pages.several)
    browser.one("#view-over").click()
    browser.one("#x-token").click()
    browser.one("#run-2").click()
    browser.js(
        "const e = document.getElementById('metric'); e.value = 'val/loss'; e.dispatchEvent(new Event('change'))"
    )
    before = browser.js("return document.getElementById('main').innerHTML")
    browser.driver.refresh()
    assert browser.one("#metric").get_attribute("value") == "val/loss"
    assert browser.one("#view-over").is_selected()
    assert browser.one("#x-token").is_selected()
    assert not browser.one("#run-2").is_selected()
    assert browser.js("return document.getElementById('main').innerHTML.length") == pytest.approx(len(before), abs=40)
    at(browser, pages.several, "metric=nonsense&view=what&from=x&exit=99&at=-1&hide=7,a&depth=")
    assert browser.said() == [], "an address that somebody has made up"


def test_a_page_that_is_rewritten_loads_itself_and_stays_as_it_was(browser: Browser, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", done=20)
    page = write_page(tmp_path / "page.html", folder, refresh=2)
    text = "return document.querySelector(arguments[0])?.textContent ?? ''"  # at once: the page may go at any moment
    browser.open(page)
    browser.js(
        "const e = document.getElementById('metric'); e.value = 'val/loss'; e.dispatchEvent(new Event('change'))"
    )
    browser.js("scrollTo(0, 500); document.getElementById('depth').focus({ preventScroll: true })")
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in rows_of(30, 4)))
    write_page(page, folder, refresh=2)
    wait_for(lambda: "30 of 40" in browser.js(text, ".totals"))
    browser.js("document.getElementById('reload').click(); window.same = true")
    assert browser.js("return document.getElementById('metric').value") == "val/loss"
    assert browser.js("return [document.activeElement.id, Math.round(scrollY)]") == ["depth", 500]
    assert browser.js(text, "#validation-step") == "step 30, 3 of 3", "the newest, as before"
    assert "rewritten every 2 s" in browser.js(text, "[role=status]")
    time.sleep(4)
    assert browser.js("return window.same"), "it may be told to stay"
    assert browser.said() == []


def test_paper(browser: Browser, pages: Pages) -> None:
    browser.open(pages.several, width=1032, scheme="dark", media="print")  # A4 landscape less its margins
    assert browser.js("return document.scrollingElement.scrollWidth") <= 1032
    hidden = browser.js(
        "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollHeight > e.clientHeight + 1).length"
    )
    assert hidden == 0, "paper does not scroll"
    assert not browser.one(".controls").is_displayed()
    assert browser.js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    pdf = browser.cdp("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})["data"]
    assert len(pdf) > 10_000


def test_names_and_texts_do_no_harm(browser: Browser, pages: Pages) -> None:
    browser.open(pages.several)
    assert browser.js("return window.hacked") is None
    assert not browser.all("img")
    assert len(browser.all("script")) == 2
    assert EVIL in browser.one("#runs").text
    assert browser.js("return document.getElementById('main').textContent").count("onerror") >= 4

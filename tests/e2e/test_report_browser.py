"""The report in a real browser: every figure is drawn, the legend works, nothing complains, it fits a phone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, find_browser, open_browser
from synthetic_runs import write_campaign
from timetrial_scoring.report import command

HOSTILE = "<img src=x onerror=window.ran=1>"
ECDF_SCALE = "figure:has(.ecdf) .scale"
CURVES_SCALE = "figure:has(.curves) .scale"
DRAWN = "window.dispatchEvent(new Event('beforeprint'))"

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="needs Chromium to open a report: apt install chromium fonts-dejavu-core"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    pace = {"muon": 0.25, "adamw": 0.35, HOSTILE: 0.45, "lion": 0.5, "sgd_momentum": 3.0}
    runs = write_campaign(folder / "runs", pace, {"schedule_free_adamw": 0.4, "prodigy": 0.6})
    assert command.main([str(runs), "--out", str(folder / "out")]) == 0
    return folder / "out" / command.PAGE


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    """The report, freshly opened on a large screen; whatever it complains of fails the test."""
    browser.problems.clear()
    browser.view(1440, 900)
    browser.open(report)
    browser.settle()
    yield browser
    assert browser.problems == []


CHARTS = """[...document.querySelectorAll(".plot")].map(plot => {
  const box = e => (({left, top, right, bottom}) => ({left, top, right, bottom}))(e.getBoundingClientRect());
  const svg = plot.querySelector("svg");
  return {
    name: plot.dataset.label,
    svg: svg && box(svg),
    series: [...plot.querySelectorAll(".series")].map(group => ({
      s: group.dataset.s, clipped: group.querySelector("[clip-path]") !== null,
      shapes: [...group.querySelectorAll("path")].map(box)})),
    texts: [...plot.querySelectorAll("text")].map(text => ({text: text.textContent, ...box(text)})),
  };
})"""


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The share of the smaller of two boxes that the other covers."""
    width = min(one["right"], other["right"]) - max(one["left"], other["left"])
    height = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
    areas = [(box["right"] - box["left"]) * (box["bottom"] - box["top"]) for box in (one, other)]
    return max(0.0, width) * max(0.0, height) / min(areas)


def inside(box: dict[str, Any], frame: dict[str, Any], slack: float) -> bool:
    return (
        box["left"] >= frame["left"] - slack
        and box["right"] <= frame["right"] + slack
        and box["top"] >= frame["top"] - slack
        and box["bottom"] <= frame["bottom"] + slack
    )


@pytest.mark.parametrize("width", [360, 768, 1440, 2560])
def test_every_chart_is_drawn_within_its_frame_and_its_labels_keep_apart(page: Page, width: int):
    page.view(width, 900)
    page.js(DRAWN)
    page.settle()
    charts = page.js(CHARTS)
    assert len(charts) == 2 * (2 + 5) + 2  # profiles, ECDFs, five workloads on each board; two hyperparameters on one
    for chart in charts:
        assert {series["s"] for series in chart["series"]} == {
            str(s) for s in range(2 if len(chart["series"]) == 2 else 5)
        }, chart["name"]
        for series in chart["series"]:
            assert series["shapes"], chart["name"]
            assert all(box["right"] - box["left"] + box["bottom"] - box["top"] > 2 for box in series["shapes"])
            assert series["clipped"] or all(inside(shape, chart["svg"], 1) for shape in series["shapes"]), chart["name"]
        for i, text in enumerate(chart["texts"]):
            assert inside(text, chart["svg"], 3), (chart["name"], text)
            for other in chart["texts"][:i]:
                assert overlap(text, other) < 0.2, (chart["name"], text["text"], other["text"])


@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_never_scrolls_sideways(page: Page, width: int, dark: bool, tmp_path: Path):
    page.view(width, 800, dark=dark)
    page.js(DRAWN)
    page.settle()
    assert page.js("document.documentElement.scrollWidth") == width
    page.screenshot(tmp_path / "page.png", whole=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000


def shown(page: Page, s: int) -> list[bool]:
    """For each chart and table row of a submission of the first board: whether it is to be seen, and undimmed."""
    return page.js(
        f"""[...document.querySelectorAll('#external .series[data-s="{s}"], #external tr[data-s="{s}"]')]
        .map(e => e.getBoundingClientRect().width > 0 && getComputedStyle(e).opacity === "1")"""
    )


def test_a_click_in_the_legend_hides_a_submission_everywhere_and_another_shows_it(page: Page):
    page.js(DRAWN)
    key = '#external .key[data-s="1"]'
    before = shown(page, 1)
    assert len(before) >= 2 + 5 + 2 + 4
    assert all(before)
    page.click(key)
    page.move(1, 1)
    assert not any(shown(page, 1))
    assert all(shown(page, 0))
    assert page.js(f"document.querySelector('{key}').getAttribute('aria-pressed')") == "false"
    page.view(900, 900)  # drawn again at another width, it stays hidden
    page.settle()
    assert not any(shown(page, 1))
    page.click(key)
    page.move(1, 1)
    assert all(shown(page, 1))


def test_the_legend_works_from_the_keyboard(page: Page):
    page.js(DRAWN)
    page.js("document.querySelector('#external .key').focus()")
    assert page.js("document.querySelector('#external .key').matches(':focus-visible')")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    page.settle()
    assert not any(shown(page, 0))


def test_one_button_hides_and_shows_all(page: Page):
    page.js(DRAWN)
    for expected in (False, True):
        page.click("#external .every")
        page.move(1, 1)
        assert [shown(page, s) for s in range(5)] == [[expected] * len(shown(page, s)) for s in range(5)]


def tip(page: Page) -> str | None:
    return page.js("document.getElementById('tip').hidden ? null : document.getElementById('tip').textContent")


def end_of_curve(page: Page, chart: str, s: int) -> tuple[float, float]:
    """Where a submission's curve is in the view, 40 pixels before its end."""
    curve = json.dumps(f'{chart} .series[data-s="{s}"] .curve')
    x, y = page.js(f"""(p => {{ const d = p.getPointAtLength(p.getTotalLength() - 40), m = p.getScreenCTM();
        return [d.x + m.e, d.y + m.f]; }})(document.querySelector({curve}))""")
    return x, y


def test_pointing_at_a_profile_names_submission_tau_and_share(page: Page):
    page.scroll_to("#external .profiles")
    page.move(*end_of_curve(page, "#external .profiles", 1))
    assert (tip(page) or "").startswith("adamw\nτ 3.8")
    assert (tip(page) or "").endswith("share 1")
    page.move(1, 1)
    assert tip(page) is None


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_pointing_at_a_run_time_distribution_names_submission_budget_and_share(page: Page, scale: str):
    choose(page, f"#external {ECDF_SCALE}", scale)
    page.scroll_to("#external .ecdf")
    page.move(*end_of_curve(page, "#external .ecdf", 4))
    name, budget, share = (tip(page) or "").split("\n")
    assert name == "sgd_momentum"
    assert 80 < float(budget.removesuffix(" % of the budget")) < 100
    assert 0 < float(share.removeprefix("share ")) < 1


def test_pointing_at_a_crossing_names_the_trial_and_its_time(page: Page):
    page.scroll_to("#external .curves")
    page.move(*page.middle('#external .curves .series[data-s="0"] .mark'))
    (name, trial, value) = (tip(page) or "").split("\n")
    assert name == "muon"
    assert "reached at" in trial
    assert "s: error_rate 0." in value


def test_pointing_at_a_cell_of_the_matrix_gives_its_p_value(page: Page):
    page.scroll_to("#external .matrix")
    page.move(*page.middle("#external .matrix td.faster"))
    assert (tip(page) or "").startswith("muon\nis faster than adamw\np = 0.0")


def test_pointing_at_a_trial_gives_its_hyperparameter(page: Page):
    page.scroll_to("#external .tuning")
    page.move(*page.middle('#external .tuning .series[data-s="0"] .mark'))
    assert "learning_rate 0.0" in (tip(page) or "")


def choose(page: Page, selector: str, value: str) -> None:
    element = f"document.querySelector({json.dumps(selector)})"
    page.js(f"{element}.value = {json.dumps(value)}; {element}.dispatchEvent(new Event('change'))")
    page.settle()


def labels(page: Page, selector: str) -> list[str]:
    return page.js(f"[...document.querySelectorAll({json.dumps(selector + ' .label')})].map(e => e.textContent)")


def test_the_curves_can_be_drawn_over_the_logarithm_of_the_charge(page: Page):
    page.js(DRAWN)
    assert "charged seconds" in labels(page, "#external .curves")
    choose(page, f"#external {CURVES_SCALE}", "log")
    assert set(labels(page, "#external .curves")[::2]) == {"charged seconds, log scale"}


def test_tuning_shows_the_workload_and_height_that_are_chosen(page: Page):
    page.js(DRAWN)
    assert "best bleu" not in labels(page, "#external .tuning")
    choose(page, "#external .workload", "2")
    choose(page, "#external .height", "metric")
    assert "best bleu" in labels(page, "#external .tuning")


def test_a_board_on_which_nothing_is_ranked_is_drawn_without_complaint(page: Page, tmp_path: Path):
    runs = write_campaign(tmp_path, {"muon": 0.3}, studies=2, trials=1)
    for record in runs.rglob("record.jsonl"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(lines[: 1 if record.parts[-4] == "graphs" else -1]))  # interrupted
    assert command.main([str(runs)]) == 0
    page.open(runs / "report" / command.PAGE)
    page.js(DRAWN)
    page.settle()
    assert page.js("document.querySelectorAll('.plot svg').length") == 2 + 5 + 1
    assert page.js("document.querySelector('.leaderboard tbody').innerText").count("no claim") == 3
    assert "is not ranked" in page.js("document.querySelector('.notes').textContent")


def background(page: Page) -> str:
    return page.js("getComputedStyle(document.body).backgroundColor")


def test_it_follows_the_system_to_the_dark_and_the_button_leads_back(page: Page):
    light = background(page)
    page.view(1440, 900, dark=True)
    page.settle()
    assert background(page) != light
    page.click("#theme")
    assert background(page) == light


def test_a_name_that_is_markup_is_shown_and_does_not_run(page: Page):
    page.js(DRAWN)
    page.settle()
    assert page.js("window.ran") is None
    assert page.js("document.images.length") == 0
    names = page.js("[...document.querySelectorAll('#external .key')].map(e => e.textContent)")
    assert HOSTILE in names

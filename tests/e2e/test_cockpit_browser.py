"""The cockpit in a real browser: three columns of gauges, each drawn within its frame, on a screen and on a phone."""

from collections.abc import Iterator

import pytest
from browser import Page, find_browser, open_browser
from synthetic_looks import everything
from timetrial_scoring.cockpit.page import render_page
from timetrial_scoring.cockpit.run import read_run

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="needs Chromium to open a report: apt install chromium fonts-dejavu-core"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The cockpit of two runs; whatever the browser complains of fails the test."""
    folder = tmp_path_factory.mktemp("cockpit")
    runs = [read_run(everything(folder / name, wide=wide)) for name, wide in (("a", 1.0), ("b", 3.0))]
    (folder / "cockpit.html").write_text(render_page(runs), encoding="utf-8")
    with open_browser(folder / "profile") as browser:
        browser.view(1440, 900)
        browser.open(folder / "cockpit.html")
        browser.settle()
        yield browser
        assert browser.problems == []


GAUGES = """[...document.querySelectorAll("svg.gauge")].map(svg => {
  const box = e => (({left, top, right, bottom}) => ({left, top, right, bottom}))(e.getBoundingClientRect());
  const frame = box(svg);
  const outside = [...svg.querySelectorAll("circle, rect, text")].map(box).filter(b =>
    b.left < frame.left - 6 || b.right > frame.right + 6 || b.top < frame.top - 6 || b.bottom > frame.bottom + 6);
  return {label: svg.getAttribute("aria-label"), width: frame.right - frame.left, outside: outside.length};
})"""
COLUMNS = "[...document.querySelectorAll('.columns > .column')].map(c => c.getBoundingClientRect().left)"


@pytest.mark.parametrize("width", [360, 1440])
def test_every_gauge_is_drawn_within_its_frame(page: Page, width: int):
    page.view(width, 900)
    page.settle()
    gauges = page.js(GAUGES)
    assert len(gauges) == 28  # heat maps once for each run
    for gauge in gauges:
        assert gauge["width"] > 200, gauge
        assert gauge["outside"] == 0, gauge
    assert page.js("document.documentElement.scrollWidth") <= width


def test_a_large_screen_has_three_columns_and_a_phone_one(page: Page):
    page.view(1440, 900)
    page.settle()
    assert len(set(page.js(COLUMNS))) == 3
    page.view(360, 900)
    page.settle()
    assert len(set(page.js(COLUMNS))) == 1


@pytest.mark.parametrize("dark", [False, True])
def test_the_two_runs_have_colours_of_their_own(page: Page, dark: bool):
    page.view(1440, 900, dark=dark)
    page.settle()
    colours = page.js("[0, 1].map(i => getComputedStyle(document.querySelector(`.series.run${i} path`)).stroke)")
    assert len(set(colours)) == 2

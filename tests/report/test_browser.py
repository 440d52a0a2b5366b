"""The page in a real Chromium: it shows everything, complains about nothing, fits a phone, and can be used by everyone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from llamapatch.report.history import rows_of_comparison
from tests.report import samples
from tests.report.conftest import comparison, page_of

pytestmark = pytest.mark.slow  # a minute when the machine is busy

PHONE, DESK = (360, 740), (1280, 900)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium and chromedriver are not installed (apt install chromium chromium-driver)")
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('profile')}"),
    ):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = rows_of_comparison(comparison())
    history = [replace(row, run=f"r{i}", ratio=row.ratio * i) for i in (1, 2, 3) for row in rows if row.ratio]
    file = tmp_path_factory.mktemp("page") / "report.html"
    gate = samples.everything()
    again = comparison(id="run-2", command="llamapatch compare toy --full")
    file.write_text(page_of(comparison(), again, gate, samples.effects(), samples.effects("ablate"), history=history))
    return file.as_uri()


def show(
    browser: webdriver.Chrome, page: str, size: tuple[int, int], scheme: str = "light", script: bool = True
) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get(page)
    if script:
        browser.execute_script("localStorage.clear()")
        browser.get(page)


def brightness(browser: webdriver.Chrome, selector: str, what: str) -> float:
    style = browser.execute_script(f"return getComputedStyle(document.querySelector('{selector}')).{what}")
    return sum(float(v) for v in style[style.index("(") + 1 : -1].split(",")[:3]) / 3


def open_everything(browser: webdriver.Chrome) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")


def test_it_shows_everything_without_a_complaint(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, DESK)
    assert browser.title == "llamapatch report: v0.5.0"
    heads = [h.text for h in browser.find_elements(By.TAG_NAME, "h2")]
    assert heads == [
        "Verdicts", "Ratios to the unpatched build", "Effect of each patch", "Patches",
        "A/A: the unpatched build against itself", "Text quality and logits", "Memory, processor time and energy",
        "Machine", "History", "Raw data and commands",
    ]  # fmt: skip
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "Gate fail: 1 failed, 2 not measured, 1 inconclusive, 1 passed" in text and "5.20x (4.99 to 5.41)" in text
    levels = browser.execute_script("return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels)), "a heading level is skipped"
    marks = browser.find_elements(By.CSS_SELECTOR, "svg[role=img] .mark")
    assert len(marks) == 2 * 6 and all(mark.rect["width"] > 4 and mark.rect["height"] > 4 for mark in marks)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".trend circle")) == 3 * 2
    assert browser.get_log("browser") == []


def test_marks_stand_where_the_numbers_say(browser: webdriver.Chrome, page: str) -> None:
    """The dashed line of no change, an A/A mark on it, and the faster arm to its right, at both widths."""
    for size in (DESK, PHONE):
        show(browser, page, size)
        table = browser.find_element(By.CSS_SELECTOR, "#ratios ~ .panel table")
        one = table.find_element(By.CSS_SELECTOR, "tbody .one").rect["x"]
        centre: dict[str, float] = {}
        for row in table.find_elements(By.CSS_SELECTOR, "tr:has(.mark)"):
            mark = row.find_element(By.CSS_SELECTOR, ".mark").rect
            centre[row.find_element(By.TAG_NAME, "small").text] = mark["x"] + mark["width"] / 2
            whisker = row.find_element(By.CSS_SELECTOR, ".whisker").rect
            assert whisker["x"] < mark["x"] + mark["width"] / 2 < whisker["x"] + whisker["width"]
            strip = row.find_element(By.CSS_SELECTOR, ".strip").rect
            assert strip["x"] <= mark["x"] and mark["x"] + mark["width"] <= strip["x"] + strip["width"] + 1
        assert centre["unpatched again (A/A)"] == pytest.approx(one, abs=1.5)
        assert centre["patched, switches on"] > one + 50


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: webdriver.Chrome, page: str, scheme: str) -> None:
    show(browser, page, PHONE, scheme)
    open_everything(browser)
    wide = browser.execute_script(
        "return [document.documentElement.scrollWidth, [...document.querySelectorAll('body *')].filter(e => "
        "!e.closest('.wide, pre, .skip, thead, svg') && e.getBoundingClientRect().right > 360.5).map(e => e.outerHTML.slice(0, 90))]"
    )
    assert wide == [360, []]
    size = browser.execute_script("return Math.min(...[...document.querySelectorAll('td, p, li, dd, small, summary')]"
                                  ".map(e => parseFloat(getComputedStyle(e).fontSize)))")  # fmt: skip
    assert size >= 12


def test_light_and_dark(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, DESK, "light")
    assert brightness(browser, "body", "backgroundColor") > 230 and brightness(browser, "body", "color") < 60
    show(browser, page, DESK, "dark")
    assert brightness(browser, "body", "backgroundColor") < 40 and brightness(browser, "body", "color") > 200
    button = browser.find_element(By.ID, "theme")
    assert button.text == "Light colours"
    button.send_keys(Keys.ENTER)
    assert brightness(browser, "body", "backgroundColor") > 230 and button.text == "Dark colours"
    browser.get(page)
    assert brightness(browser, "body", "backgroundColor") > 230, "the choice is not remembered"
    assert browser.get_log("browser") == []


def test_it_needs_no_script(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, DESK, "dark", script=False)
    try:
        assert not browser.find_element(By.ID, "theme").is_displayed(), "a button that does nothing"
        assert "5.20x (4.99 to 5.41)" in browser.find_element(By.ID, "verdicts").find_element(By.XPATH, "..").text
        assert len(browser.find_elements(By.CSS_SELECTOR, "svg[role=img]")) > 10
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_it_can_be_used_with_the_keyboard(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, DESK)
    reached: list[Any] = []
    for _ in range(15):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        element = browser.switch_to.active_element
        reached.append(element.text or element.tag_name)
        assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached[:4] == ["Skip to the verdicts", "Dark colours", "Verdicts", "Ratios"]
    folded = browser.find_element(By.CSS_SELECTOR, "#patches ~ .cards details:not([open]) summary")
    folded.send_keys(Keys.ENTER)
    assert folded.find_element(By.XPATH, "..").get_attribute("open") is not None


@pytest.mark.parametrize("size", [DESK, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: webdriver.Chrome, page: str, size: tuple[int, int], scheme: str) -> None:
    """Contrast, names, roles, headings, tables, regions: every rule of axe-core that applies."""
    show(browser, page, size, scheme)
    open_everything(browser)
    found = Axe().run(browser)
    said = [(v["id"], v["help"], [n["html"][:120] for n in v["nodes"][:4]]) for v in found["violations"]]
    assert said == [] and len(found["passes"]) > 15


def test_a_screenshot_is_a_page_and_not_a_blank(browser: webdriver.Chrome, page: str, tmp_path: Path) -> None:
    show(browser, page, DESK)
    time.sleep(0.2)
    picture = tmp_path / "page.png"
    assert browser.save_screenshot(str(picture))
    data = picture.read_bytes()
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == DESK and len(data) > 40_000, "a blank page of this size takes a few thousand bytes"

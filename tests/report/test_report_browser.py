"""A report in a real browser: its controls move, its table sorts, nothing fails, a phone can show it."""

import shutil

import numpy as np
import pytest

from iasolve.report import Entry, write_report

pytest.importorskip("selenium", reason="needs the package selenium")
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs chromium and chromedriver: apt-get install chromium chromium-driver",
)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    size = (96, 128)
    entries = [
        Entry(
            name,
            RNG.random(size),
            before=RNG.random(size),
            std=RNG.random(size),
            residual=RNG.normal(0, ratio, size),
            sigma=1.0,
            seconds=seconds,
            scales=[{"scale": 2, "steps": 3, "before": -10.0, "after": -12.5, "misfit": 1.0}],
            warnings=["this does not look like the images that the prior was trained on"],
            settings={"seed": 0, "sha256": "ab" * 32},
        )
        for name, ratio, seconds in (("b.png", 1.0, 2.0), ("<script>x</script>.png", 3.0, None), ("a.png", 0.5, 10.0))
    ]
    return write_report(tmp_path_factory.mktemp("report") / "page.html", entries).as_uri()


def opened(browser, page, width=1400):
    browser.set_window_size(width, 900)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get(page)
    return browser


def names(browser):
    return [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#overview tbody td:first-child")]


def press(browser, heading):
    next(b for b in browser.find_elements(By.CSS_SELECTOR, "#overview th button") if b.text == heading).click()


def test_the_slider_uncovers_the_measurement_by_key(browser, page):
    opened(browser, page)
    before = browser.find_element(By.CSS_SELECTOR, ".before")
    slider = browser.find_element(By.CSS_SELECTOR, ".slide")
    assert before.value_of_css_property("clip-path") == "inset(0px 50% 0px 0px)"
    slider.send_keys(Keys.END)
    assert before.value_of_css_property("clip-path") == "inset(0px 0% 0px 0px)"
    slider.send_keys(Keys.HOME)
    assert before.value_of_css_property("clip-path") == "inset(0px 100% 0px 0px)"


def test_the_error_bar_fades_in(browser, page):
    opened(browser, page)
    overlay = browser.find_element(By.CSS_SELECTOR, ".overlay")
    assert overlay.value_of_css_property("opacity") == "0"
    browser.find_element(By.CSS_SELECTOR, ".fade").send_keys(Keys.END)
    assert overlay.value_of_css_property("opacity") == "1"


def test_the_table_sorts_both_ways_and_unknown_values_stay_last(browser, page):
    opened(browser, page)
    assert names(browser) == ["<script>x</script>.png", "b.png", "a.png"]
    press(browser, "image")
    assert names(browser)[0] == "b.png"
    press(browser, "image")
    assert names(browser) == ["<script>x</script>.png", "a.png", "b.png"]
    press(browser, "seconds")
    assert names(browser) == ["a.png", "b.png", "<script>x</script>.png"]
    press(browser, "seconds")
    assert names(browser) == ["b.png", "a.png", "<script>x</script>.png"]
    heading = browser.find_element(By.CSS_SELECTOR, "#overview th[aria-sort]")
    assert (heading.text.split()[0], heading.get_attribute("aria-sort")) == ("seconds", "ascending")


def test_the_settings_can_be_copied(browser, page):
    opened(browser, page)
    browser.find_element(By.XPATH, "//summary[contains(., 'Settings')]").click()
    button = browser.find_element(By.CSS_SELECTOR, ".copy")
    button.click()
    # the browser grants or refuses the clipboard in its own time
    WebDriverWait(browser, 30).until(lambda _: button.text != "Copy")
    assert button.text in ("Copied", "Selected: press Ctrl-C")


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_is_wider_than_the_window_and_nothing_fails(browser, page, width):
    opened(browser, page, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for picture in browser.find_elements(By.TAG_NAME, "img"):
        assert browser.execute_script("return arguments[0].naturalWidth", picture) > 0
        assert picture.get_attribute("alt")
    assert browser.get_log("browser") == []

"""Open the pages of a built site in headless Chromium, wide and narrow, light and dark.

    python look_at_site.py _build/html [FOLDER FOR PICTURES]

Fails where the console has an error, a page is wider than the window, a formula is not typeset, or the keyboard reaches
nothing. Needs chromium, chromedriver and the package selenium.
"""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

WIDTHS = (1400, 400)
PICTURED = (
    "index.html",
    "auto_tutorials/index.html",
    "auto_tutorials/tutorial_01_denoise.html",
    "auto_tutorials/tutorial_07_how_sure.html",
    "auto_tutorials/tutorial_10_recipes.html",
    "how-to/index.html",
    "how-to/install.html",
    "how-to/report.html",
    "reference/api.html",
    "reference/commands.html",
    "reference/generated/iasolve.solve.html",
    "explanation/method.html",
    "explanation/measurements.html",
    "explanation/notebook/inference.html",
)


def browser() -> webdriver.Chrome:
    """Headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for switch in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def problems(driver: webdriver.Chrome, page: Path, name: str, width: int, pictures: Path | None) -> list[str]:
    """What is wrong with one page at one width."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.get(page.resolve().as_uri())
    WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.readyState") == "complete")
    if driver.execute_script("return !!window.MathJax"):
        driver.execute_async_script("const done = arguments[0]; MathJax.startup.promise.then(() => done())")
    found = [f"{entry['level']}: {entry['message']}" for entry in driver.get_log("browser") if entry["level"] != "INFO"]
    wide = driver.execute_script("return document.documentElement.scrollWidth")
    if wide > width:
        found.append(f"{wide} pixels wide in a window of {width}")
    formulas = driver.execute_script("return document.querySelectorAll('.math').length")
    if formulas > driver.execute_script("return document.querySelectorAll('.math mjx-container').length"):
        found.append("a formula is not typeset")
    if pictures is not None and name in PICTURED:
        for theme in ("light", "dark"):
            driver.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {})
            file = pictures / f"{name.removesuffix('.html').replace('/', '-')}-{width}-{theme}.png"
            file.write_bytes(base64.b64decode(shot["data"]))
    driver.switch_to.active_element.send_keys(Keys.TAB)
    if driver.switch_to.active_element.tag_name == "body":
        found.append("the Tab key reaches nothing")
    return [f"{name} at {width}: {fault}" for fault in found]


def main(site: Path, pictures: Path | None) -> int:
    """Look at every page; 0 if nothing is wrong."""
    names = [path.relative_to(site) for path in sorted(site.rglob("*.html"))]
    names = [name for name in names if "_static" not in name.parts]
    # pages of one template: three of them stand for all
    generated = [name for name in names if "generated" in name.parts]
    names = [name for name in names if name not in generated[3:]]
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    driver = browser()
    driver.set_script_timeout(60)
    try:
        count = 0
        for name in names:
            for width in WIDTHS:
                for fault in problems(driver, site / name, name.as_posix(), width, pictures):
                    print(fault, flush=True)
                    count += 1
    finally:
        driver.quit()
    print(f"{len(names)} pages looked at, {' and '.join(map(str, WIDTHS))} pixels wide: {count or 'no'} faults")
    return 1 if count else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None))

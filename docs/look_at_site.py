"""Open the pages of a built site in headless Chromium, wide and narrow, light and dark.

    python look_at_site.py [--all] _build/html [FOLDER FOR PICTURES]

Of the pages that are made from docstrings by one template, three are looked at; with --all, every one.

Fails where the console has an error, a page is wider than the window, a formula is not typeset, text is hard to read in
either theme, the Tab key reaches nothing, or what it reaches does not show. Needs chromium, chromedriver and the
package selenium.
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


CONTRAST = """
const light = c => {
  const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const text = document.querySelector("article p") || document.querySelector("article") || document.body;
let behind = text;
while (behind && /, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
const paper = behind ? getComputedStyle(behind).backgroundColor : "rgb(255, 255, 255)";
const [a, b] = [light(getComputedStyle(text).color), light(paper)];
return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
"""
"""Contrast of a page's text with what is behind it (WCAG 2.2, 1.4.3)."""

CUT = """
const scrolls = e => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) && e !== document.documentElement
  && e !== document.body && e.clientWidth < innerWidth || scrolls(e.parentElement));
const words = document.createTreeWalker(document.querySelector("article") || document.body, NodeFilter.SHOW_TEXT);
for (let node = words.nextNode(); node; node = words.nextNode()) {
  if (!node.data.trim() || node.parentElement.closest(".headerlink")) continue;  // links that show under a mouse
  const range = document.createRange();
  range.selectNodeContents(node);
  const place = range.getBoundingClientRect();
  if (place.width && place.right > innerWidth + 1 && !scrolls(node.parentElement)) return node.data.trim().slice(0, 40);
}
return "";
"""
"""The first text of a page that goes on beyond the window, where nothing scrolls to it."""

FOCUS = """
const reached = window.reached = [], known = new Map();
const drawn = s => s.outlineStyle !== "none" || s.boxShadow !== "none" || s.textDecorationLine !== "none";
document.addEventListener("focusin", ({target: e}) => {
  if (!known.has(e)) known.set(e, known.size);
  const text = (e.innerText || e.ariaLabel || e.tagName).trim();
  const name = Array.from(text).slice(0, 40).join("");  // by characters: half a letter of a formula cannot be sent
  // a theme may draw the focus on a part of what has it
  reached.push([known.get(e), name, [e, ...e.children].some(part => drawn(getComputedStyle(part)))]);
});
"""
"""Notes what gets the focus: which element, its name, and whether its focus is drawn around it or behind it."""


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
    cut = driver.execute_script(CUT)
    if cut:
        found.append(f"{cut!r} is cut at the edge of the window")
    formulas = driver.execute_script("return document.querySelectorAll('.math').length")
    if formulas > driver.execute_script("return document.querySelectorAll('.math mjx-container').length"):
        found.append("a formula is not typeset")
    if pictures is not None and name in PICTURED:
        for theme in ("light", "dark"):
            driver.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {})
            file = pictures / f"{name.removesuffix('.html').replace('/', '-')}-{width}-{theme}.png"
            file.write_bytes(base64.b64decode(shot["data"]))
    for theme in ("dark", "light"):
        driver.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        ratio = driver.execute_script(CONTRAST)
        if ratio < 4.5:
            found.append(f"the text has a contrast of {ratio:.1f} in the {theme} theme, 4.5 is needed")
    found += keyboard_problems(driver)
    return [f"{name} at {width}: {fault}" for fault in found]


def keyboard_problems(driver: webdriver.Chrome, presses: int = 12) -> list[str]:
    """What the Tab key does not do: reach something new at each press, show where it is."""
    driver.execute_script(FOCUS)
    driver.switch_to.active_element.send_keys(Keys.TAB * presses)
    reached = driver.execute_script("return window.reached")
    found = [f"the focus on {name!r} cannot be seen" for _, name, drawn in reached if not drawn]
    count = len({number for number, _, _ in reached})
    if count < min(3, presses):
        found.append(f"the Tab key reaches {count} things")
    return found


def main(site: Path, pictures: Path | None, every: bool = False) -> int:
    """Look at every page; 0 if nothing is wrong."""
    names = [path.relative_to(site) for path in sorted(site.rglob("*.html"))]
    names = [name for name in names if "_static" not in name.parts]
    if not names:
        print(f"{site} holds no page: build the site first")
        return 1
    # pages of one template
    generated = [name for name in names if "generated" in name.parts]
    names = [name for name in names if every or name not in generated[3:]]
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
    places = [Path(word) for word in sys.argv[1:] if word != "--all"]
    if len(places) not in (1, 2):
        sys.exit(__doc__)
    sys.exit(main(places[0], places[1] if len(places) == 2 else None, "--all" in sys.argv))

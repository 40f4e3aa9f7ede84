"""The look at a built site in a browser: what is wrong with a page is seen, and nothing else."""

import importlib.util
import shutil
from pathlib import Path

import pytest

pytest.importorskip("selenium")
if shutil.which("chromedriver") is None or shutil.which("chromium") is None:
    pytest.skip("needs chromium and chromedriver", allow_module_level=True)

spec = importlib.util.spec_from_file_location("look", Path(__file__).parents[2] / "docs" / "look_at_site.py")
look = importlib.util.module_from_spec(spec)
spec.loader.exec_module(look)

HEAD = '<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title><link rel="icon" href="data:,">'
HEAD += '<meta name="viewport" content="width=device-width">'
LINKS = '<p>Text with <a href="#a">one</a>, <a href="#b">two</a> and <a href="#c">three</a> links.</p>'
FAULTS = {
    "wide": ('<div style="width: 2000px">x</div>', "pixels wide"),
    "cut": (
        '<div style="overflow: hidden"><p style="width: 600px; white-space: nowrap">' + "word " * 20 + "</p></div>",
        "is cut",
    ),
    "console": ("<script>undefined_name()</script>", "undefined_name"),
    "focus": ("<style>a:focus { outline: none; text-decoration: none }</style>", "cannot be seen"),
    "contrast": ("<style>p { color: #999; background: #aaa }</style>", "contrast"),
    "formula": ('<span class="math">\\(x\\)</span>', "not typeset"),
}


@pytest.fixture(scope="module")
def driver():
    driver = look.browser()
    driver.set_script_timeout(30)
    yield driver
    driver.quit()


def problems(driver, folder, body):
    page = folder / "page.html"
    page.write_text(f"{HEAD}<body><article>{body}</article></body></html>")
    return look.problems(driver, page, page.name, 400, None)


def test_a_sound_page_passes(driver, tmp_path):
    assert problems(driver, tmp_path, LINKS) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(driver, tmp_path, fault):
    body, words = FAULTS[fault]
    assert any(words in line for line in problems(driver, tmp_path, LINKS + body))


def test_a_page_without_anything_to_reach_is_found(driver, tmp_path):
    assert any("the Tab key reaches 0 things" in line for line in problems(driver, tmp_path, "<p>Text.</p>"))


def test_an_empty_folder_is_no_site(tmp_path, capsys):
    assert look.main(tmp_path, None) == 1
    assert "build the site first" in capsys.readouterr().out

"""Reports: what a page holds, how large it is, and that nothing in it is trusted."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from iasolve.report import Entry, result_html, write_report
from iasolve.report.figures import png, residual_level, residual_spectrum, shares

EVIL = '<script>alert("x")</script> & \'"><img src=x onerror=alert(1)>.png'
RNG = np.random.default_rng(0)


def entry(name="head.png", size=(40, 56), ratio=1.0, **more):
    image = RNG.random(size)
    values = {
        "before": image + RNG.normal(0, 0.1, size),
        "std": np.full(size, 0.1),
        "residual": RNG.normal(0, 0.1 * ratio, size),
        "sigma": 0.1,
        "scales": [{"scale": 2, "steps": 3, "before": -10.0, "after": -12.5, "misfit": 1.0}],
        "seconds": 0.5,
        "settings": {"seed": 0, "prior": {"sha256": "ab" * 32}},
    }
    return Entry(name, image, **(values | more))


class Elements(HTMLParser):
    """Elements of a page and the text of its cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))


def written(tmp_path, *entries, **options):
    return write_report(tmp_path / "page.html", entries, **options).read_text(encoding="utf-8")


def test_a_page_needs_nothing_else_and_every_picture_has_a_text(tmp_path):
    page = Elements(written(tmp_path, entry(), entry("second.png", ratio=3.0)))
    for _, attributes in page.attributes:
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:")), attributes
    pictures = [a for tag, a in page.attributes if tag == "img"]
    assert len(pictures) == 8
    assert all(a["alt"] for a in pictures)
    assert all(a["src"].startswith("data:image/png;base64,") for a in pictures)


def test_names_and_settings_cannot_become_code(tmp_path):
    plain = Elements(written(tmp_path, entry("a.png"), entry("b.png"), title="t"))
    hostile = entry(EVIL, warnings=[EVIL], settings={EVIL: EVIL})
    text = written(tmp_path, hostile, entry("b.png"), title=EVIL)
    # a warning is two more elements below, and three above; names, titles and settings are none
    assert len(Elements(text).tags) == len(plain.tags) + 2 + 3
    assert "<script>alert" not in text
    assert "onerror=alert(1)&gt;" in text


def test_pictures_are_the_images(tmp_path):
    image = np.linspace(0, 1, 20 * 30).reshape(20, 30)
    text = written(tmp_path, Entry("x", image))
    shown = picture(text, "after")
    assert shown.shape == image.shape
    # black and white are the 0.1 and 99.9 % quantiles
    np.testing.assert_allclose(shown, 255 * np.clip((image - 0.001) / 0.998, 0, 1), atol=1)


def test_large_pictures_are_reduced_and_keep_their_shape():
    shown = Image.open(io.BytesIO(png(np.arange(400 * 100.0).reshape(400, 100), 0, 4e4, 64)))
    assert shown.size == (16, 64)


def picture(page, name):
    """Pixels of the only picture of a class."""
    (data,) = re.findall(rf'class="{name}" src="data:image/png;base64,([^"]+)"', page)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), float)


def test_an_overlay_is_clear_where_the_error_bar_is_zero(tmp_path):
    std = np.zeros((8, 8))
    std[2, 3] = 1.0
    alpha = picture(written(tmp_path, Entry("x", np.ones((8, 8)), std=std)), "overlay")[..., 3]
    assert alpha[2, 3] == 255
    assert alpha.sum() == 255


def test_a_residual_of_one_noise_level_is_a_third_of_the_way_to_white(tmp_path):
    page = written(tmp_path, Entry("x", np.ones((8, 8)), residual=np.full((3, 8, 8), 0.1), sigma=0.1))
    np.testing.assert_allclose(picture(page, "left-over"), 255 * 4 / 6, atol=1)


def test_complex_colour_and_constant_images_are_shown(tmp_path):
    odd = [
        Entry("complex", np.ones((5, 7)) * 1j, before=np.zeros((5, 7), complex)),
        Entry("colour", RNG.random((9, 4, 3)), std=RNG.random((9, 4, 3))),
        Entry("constant", np.zeros((6, 6)), std=np.zeros((6, 6)), residual=np.zeros((6, 6)), sigma=1.0),
        Entry("one pixel", np.ones((1, 1)), residual=np.ones((1, 1)), sigma=0.0),
    ]
    assert Elements(written(tmp_path, *odd)).tags.count("article") == 4


def test_the_largest_residual_comes_first_and_unknown_ones_last(tmp_path):
    entries = [entry("fits"), entry("unknown", residual=None), entry("off", ratio=4.0), entry("half", ratio=0.5)]
    text = written(tmp_path, *entries)
    assert re.findall(r'<h2 id="image-\d+-name">(\w+)</h2>', text) == ["off", "fits", "half", "unknown"]
    assert re.findall(r'<td data-value="(\w+)"><a', text) == ["off", "fits", "half", "unknown"]


def test_bands_and_ratio_stand_for_the_residual(tmp_path):
    known = Entry("x", np.eye(8), sigma=0.5, residual_ratio=2.5, residual_bands=[1.0, math.nan, 3.0])
    text = written(tmp_path, known)
    assert "from 1 to 3 times the noise level" in text
    # two of three bands are known, at the middle of each
    (points,) = re.findall(r'<polyline points="([^"]+)"', text)
    assert [float(p.partition(",")[0]) for p in points.split()] == [60.0, 300.0]
    assert "<dt>residual / noise</dt><dd>2.5</dd>" in text


def test_notes_and_refresh(tmp_path):
    text = written(tmp_path, notes=["3 of 9 files are done", EVIL], refresh=5)
    assert '<meta http-equiv="refresh" content="5">' in text
    assert "3 of 9 files are done" in text
    assert "<script>alert" not in text
    assert 'http-equiv="refresh"' not in written(tmp_path, entry())


@pytest.mark.slow
def test_fifty_images_of_noise_stay_below_five_megabytes(tmp_path):
    noise = [
        Entry(f"{n}", RNG.random((512, 512)), before=RNG.random((512, 512)), std=RNG.random((512, 512)))
        for n in range(50)
    ]
    path = write_report(tmp_path / "page.html", noise)
    assert path.stat().st_size < 5_000_000
    assert Elements(path.read_text()).tags.count("article") == 50


def test_of_many_images_all_are_listed_and_the_worst_are_shown(tmp_path):
    entries = [entry(f"f{n}", size=(8, 8), ratio=1 + n / 10) for n in range(60)]
    text = written(tmp_path, *entries)
    page = Elements(text)
    assert page.tags.count("article") == 50
    assert "10 images without a warning" in text
    assert len(re.findall(r'<td data-value="f\d+">', text)) == 60
    anchors = {a["id"] for _, a in page.attributes if "id" in a}
    targets = {a["href"][1:] for _, a in page.attributes if a.get("href", "").startswith("#")}
    assert targets <= anchors


def test_an_image_with_a_warning_is_named_above_and_shown_however_small_its_residual(tmp_path):
    # a prior that explains everything away leaves less than the noise
    warned = entry("<b>strange", size=(8, 8), ratio=0.1, warnings=["the image is unlike those of training"])
    text = written(tmp_path, *(entry(f"f{n}", size=(8, 8), ratio=1 + n / 10) for n in range(60)), warned)
    above, _, below = text.partition("</table>")
    assert "Warnings</strong> for 1 of 61 images" in above
    assert '<a href="#image-60">&lt;b&gt;strange</a>' in above.partition("<table")[0]
    assert 'id="image-60"' in below
    assert above.count('class="warned"') == 1
    assert "Warnings</strong>" not in written(tmp_path, entry("a"), entry("b"))


def test_without_steps_there_is_no_objective_before_and_after(tmp_path):
    still = [{"scale": 2, "steps": 0, "before": -10.0, "after": -10.0, "misfit": 1.0}]
    assert "objective before" not in written(tmp_path, entry(scales=still))
    assert "objective before" in written(tmp_path, entry())


def test_settings_can_be_copied_as_json(tmp_path):
    text = written(tmp_path, entry(settings={"sigma": 0.1, "prior": "mri", "path": 'a"b'}))
    (block,) = re.findall(r"<pre[^>]*>(.*?)</pre>", text, flags=re.DOTALL)
    assert json.loads(block.replace("&#34;", '"').replace("&quot;", '"'))["path"] == 'a"b'


def test_white_noise_has_a_flat_spectrum_at_its_level():
    noise = np.random.default_rng(1).normal(0, 0.3, (16, 65, 48))
    curve = residual_spectrum(noise, "image")
    assert residual_level(noise, "image") == pytest.approx(0.3, rel=0.02)
    np.testing.assert_allclose(curve.level[2:], 0.3, rtol=0.1)
    assert curve.cycles.max() == 32
    # the mean over all bins is the level: Parseval
    ring = np.maximum(np.abs(np.arange(65) - 32)[:, None], np.abs(np.arange(48) - 24)[None, :])
    count = np.bincount(ring.ravel())
    assert (curve.level**2 * count).sum() / count.sum() == pytest.approx((noise**2).mean())


def test_a_wave_is_found_at_its_frequency():
    x = np.arange(32)
    wave = np.cos(2 * np.pi * 5 * x / 32)[None].repeat(32, 0)
    curve = residual_spectrum(wave, "image")
    assert int(curve.cycles[np.argmax(curve.level)]) == 5
    assert shares(wave) == pytest.approx({2: 0, 4: 0, 8: 0, 16: 1, 32: 0}, abs=1e-12)


def test_only_sampled_kspace_counts():
    kspace = np.zeros((2, 8, 8), complex)
    kspace[:, ::2] = 0.5j
    assert residual_level(kspace, "kspace") == pytest.approx(0.5)
    assert residual_spectrum(kspace, "kspace").level == pytest.approx(0.5)
    nothing = residual_spectrum(np.zeros((8, 8)), "kspace")
    assert nothing.level.size == 0


@pytest.mark.parametrize("size", [(32, 32), (31, 48), (1, 9), (230, 180)])
def test_shares_add_up(size):
    held = shares(RNG.random(size))
    assert sum(held.values()) == pytest.approx(1)
    assert set(shares(np.ones(size)).values()) == {0.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"before": np.zeros((3, 3))}, "before has shape"),
        ({"std": np.full((40, 56), math.nan)}, "std holds NaN"),
        ({"residual_domain": "pixels"}, "residual_domain must be one of"),
        ({"residual": np.zeros(5)}, "residual has shape"),
    ],
)
def test_entries_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        entry(**change)


def test_reports_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.html"):
        write_report(tmp_path / "page.pdf", [entry()])
    with pytest.raises(ValueError, match="at least one entry"):
        write_report(tmp_path / "page.html", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("lead", [(), (3,), (2, 4)])
def test_a_result_shows_itself(kind, lead):
    image = RNG.random((*lead, 1, 6, 5))
    arrays = {"image": image, "std": 0.1 + image, "sigma": np.full(lead, 0.25)}
    if kind == "torch":
        arrays = {key: torch.from_numpy(value) for key, value in arrays.items()}
    result = SimpleNamespace(**arrays, recipe=SimpleNamespace(name=EVIL), seed=3, seconds=1.25)
    page = result_html(result)
    count = math.prod(lead)
    assert Elements(page).tags.count("img") == 2 * min(count, 4)
    assert f"{count} image(s) of 6 x 5 pixels" in page
    assert "noise level 0.25" in page
    assert "<script" not in page

"""Pages to look at: --report of the solving commands, and ``iasolve report`` afterwards."""

import html
import json
import re

import numpy as np
import pytest
from cli_fixtures import SIZE, cli, heads, tiny
from PIL import Image

import iasolve

__all__ = ["heads", "tiny"]  # fixtures


def noise(*shape, sigma=20.0):
    return np.random.default_rng(0).normal(0, sigma, shape)


def names(page):
    return re.findall(r'<h2 id="image-\d+-name">([^<]+)</h2>', page.read_text(encoding="utf-8"))


def names_of(folder):
    return [path.name for path in folder.iterdir() if path.name != "broken.png"]


def settings(page):
    text = re.search(r"<pre[^>]*>(.*?)</pre>", page.read_text(encoding="utf-8"), re.DOTALL).group(1)
    return json.loads(text.replace("&#34;", '"'))


def solve(*arguments, prior):
    return cli(*arguments, "--prior", prior, "--steps", 1)


@pytest.fixture
def folder(tmp_path, heads):
    """Two noisy 8-bit heads, the second far noisier than is said, and a broken file."""
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name, sigma in (("plain.png", 5.0), ("<b>bold.png", 40.0)):
        pixels = np.clip(heads[0] + noise(SIZE, SIZE, sigma=sigma), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(inputs / name)
    return inputs


def test_one_image_with_its_error_bar(tmp_path, heads, tiny):
    noisy, out, page = tmp_path / "noisy.npy", tmp_path / "out.npy", tmp_path / "page.html"
    np.save(noisy, heads[0] + noise(SIZE, SIZE))
    done = solve("denoise", noisy, out, "--sigma", 20, "--std-out", tmp_path / "std.npy", "--report", page, prior=tiny)
    assert done.code == 0, done.err
    assert f"report    {page}" in done.out
    text = page.read_text()
    for what in ("after", "before", "overlay", "left-over"):
        assert f'class="{what}"' in text
    report = json.loads((tmp_path / "out.npy.json").read_text())
    # the same as from the arrays: root mean square of what is left, over the noise level
    left = np.load(noisy) - np.load(out)
    (whole,) = report["residual"]["whole"]
    assert whole == pytest.approx(np.sqrt((left**2).mean()) / 20, rel=1e-3)
    assert f"<dt>residual / noise</dt><dd>{whole:.3g}</dd>" in text
    assert settings(page)["sha256"] == report["sha256"]
    refused = solve("denoise", noisy, tmp_path / "b.npy", "--report", page, prior=tiny)
    assert (refused.code, "--overwrite replaces it" in refused.err) == (2, True)


def test_a_volume_has_an_entry_a_slice(tmp_path, heads, tiny):
    np.save(tmp_path / "v.npy", heads[:3] + noise(3, SIZE, SIZE))
    done = solve("denoise", tmp_path / "v.npy", tmp_path / "o.npy", "--report", tmp_path / "p.html", prior=tiny)
    assert done.code == 0, done.err
    assert sorted(names(tmp_path / "p.html")) == ["v.npy, 1 of 3", "v.npy, 2 of 3", "v.npy, 3 of 3"]


def test_kspace_shows_the_zero_filled_image(tmp_path, heads, tiny):
    np.save(tmp_path / "heads.npy", heads[:1])
    y, page = tmp_path / "y.npz", tmp_path / "p.html"
    assert cli("simulate", tmp_path / "heads.npy", y, "--task", "mask", "--sigma", 2).code == 0
    done = solve("reconstruct", y, tmp_path / "o.npy", "--report", page, prior=tiny)
    assert done.code == 0, done.err
    text = page.read_text()
    assert 'class="before"' in text
    assert "times the noise level" in text
    again = tmp_path / "again.html"
    assert cli("report", tmp_path / "o.npy", again, "--inputs", y).code == 0
    assert re.findall(r'src="(data:[^"]+)"', again.read_text()) == re.findall(r'src="(data:[^"]+)"', text)


def test_a_folder_worst_first_and_resumed(tmp_path, folder, tiny):
    out, page = tmp_path / "out", tmp_path / "page.html"
    (folder / "broken.png").write_bytes(b"no image")
    command = ("denoise", folder, out, "--sigma", 5, "--report", page)
    done = solve(*command, prior=tiny)
    assert done.code == 7
    ratios = {name: json.loads((out / f"{name}.json").read_text())["residual"]["whole"] for name in names_of(folder)}
    worst_first = [html.escape(name) for name in sorted(ratios, key=ratios.get, reverse=True)]
    assert names(page) == worst_first
    assert "1 of 3 files failed" in page.read_text()
    (folder / "broken.png").unlink()
    page.unlink()
    # the results of the earlier run are on the page of the later
    assert solve(*command, "--resume", prior=tiny).code == 0
    assert names(page) == worst_first


def test_a_page_afterwards_is_that_of_the_run(tmp_path, folder, tiny):
    out, page = tmp_path / "out", tmp_path / "page.html"
    std = tmp_path / "std"
    assert solve("denoise", folder, out, "--sigma", 5, "--std-out", std, "--report", page, prior=tiny).code == 0
    done = cli("report", out, "--inputs", folder, "--std", std, "--json")
    assert done.code == 0, done.err
    assert done.report == {"page": str(out / "report.html"), "results": 2, "warnings": []}
    pictures = [re.findall(r'src="(data:[^"]+)"', p.read_text()) for p in (page, out / "report.html")]
    assert pictures[0] == pictures[1]
    assert cli("report", out, "--inputs", folder).code == 2  # exists
    Image.fromarray(np.zeros((SIZE, SIZE), np.uint8)).save(folder / "plain.png")
    done = cli("report", out, "--inputs", folder, "--overwrite")
    assert done.code == 0
    assert "has changed since" in done.err
    assert "name its place with --std" in done.err


@pytest.mark.parametrize(
    ("page", "code", "words"),
    [("page.pdf", 2, "ends in .html"), ("missing/page.html", 2, "missing"), ("in.html", 2, "an input")],
)
def test_pages_that_cannot_be_are_refused_before_work(tmp_path, heads, page, code, words):
    np.save(tmp_path / "in.npy", heads[0])
    (tmp_path / "in.npy").rename(tmp_path / "in.html")
    done = cli("denoise", tmp_path / "in.html", tmp_path / "o.npy", "--prior", "none-such", "--report", tmp_path / page)
    assert done.code == code
    assert words in done.err


def test_a_watched_page_is_there_while_the_work_goes_on(tmp_path, folder, tiny, monkeypatch):
    page, seen = tmp_path / "page.html", []
    solve_one = iasolve.solve

    def looked(*arguments, **options):
        seen.append(page.read_text())
        return solve_one(*arguments, **options)

    monkeypatch.setattr(iasolve, "solve", looked)
    out = tmp_path / "out"
    assert solve("denoise", folder, out, "--sigma", 5, "--report", page, "--watch", prior=tiny).code == 0
    # two files within the seconds between two looks: the page of the start is the one that is there
    assert len(seen) == 2
    assert "0 of 2 files are done" in seen[0]
    assert 'http-equiv="refresh"' in seen[0]
    assert 'http-equiv="refresh"' not in page.read_text()
    assert "files are done" not in page.read_text()
    seen.clear()
    one = next(folder.iterdir())
    done = solve("denoise", one, tmp_path / "one.npy", "--report", page, "--overwrite", "--watch", prior=tiny)
    assert done.code == 0, done.err
    assert "0% done in" in seen[0]
    assert cli("denoise", one, tmp_path / "x.npy", "--watch").code == 2

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(iasolve, "solve", interrupted)
    assert solve("denoise", one, tmp_path / "y.npy", "--report", tmp_path / "y.html", "--watch", prior=tiny).code == 130
    assert "ended before the result was complete" in (tmp_path / "y.html").read_text()
    assert 'http-equiv="refresh"' not in (tmp_path / "y.html").read_text()


def test_what_is_no_result_is_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"")
    assert cli("report", tmp_path / "a.npy").code == 2
    assert cli("report", tmp_path).code == 3
    (tmp_path / "a.npy.json").write_text("{}")
    done = cli("report", tmp_path)
    assert done.code == 3
    assert "no report of a result" in done.err


@pytest.mark.parametrize(("times", "shape"), [(2, (2, 3)), (1, (1, 3))])
def test_a_volume_of_several_times_written_to_an_array(times, shape, tmp_path, heads, tiny):
    nibabel = pytest.importorskip("nibabel")
    volume = np.stack([heads[:3].transpose(1, 2, 0)] * times, -1).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii.gz")
    page, out = tmp_path / "p.html", tmp_path / "o.npy"
    arguments = (tmp_path / "v.nii.gz", out, "--sigma", 20, "--recipe", "fast", "--report", page)
    done = cli("denoise", *arguments, "--prior", tiny)
    assert done.code == 0, done.err
    assert np.load(out).shape == (*shape, SIZE, SIZE)
    assert len(names(page)) == 3 * times
    assert cli("report", out, tmp_path / "later.html", "--inputs", tmp_path / "v.nii.gz").code == 0
    scores = cli("evaluate", out, tmp_path / "v.nii.gz", "--json").report["files"][0]
    assert len(scores["pages"]) == 3 * times
    assert cli("evaluate", out, out).code == 0


@pytest.mark.parametrize(
    "change",
    [
        {"scales": 5},
        {"scales": [[]]},
        {"residual": []},
        {"residual": {"whole": "x", "bands": 3}},
        {"sigma": None},
        {"shape": 7},
        {"shape": ["a"]},
        {"input": []},
        {"output": "../elsewhere/o.npy"},
        {"output": None},
        {"warnings": 3},
        {"seconds": "long"},
        {"sha256": [1]},
        {"asked": 3, "command": "reconstruct"},
    ],
)
def test_reports_that_say_nonsense(change, tmp_path, heads, tiny):
    np.save(tmp_path / "y.npy", heads[0])
    assert cli("denoise", tmp_path / "y.npy", tmp_path / "o.npy", "--recipe", "fast", "--prior", tiny).code == 0
    sidecar = tmp_path / "o.npy.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | change))
    done = cli("report", tmp_path / "o.npy", "--inputs", tmp_path / "y.npy")
    assert done.code in (0, 3), done
    assert done.code == 0 or "report" in done.err
    sidecar.write_text("[" * 100_000)
    assert cli("report", tmp_path / "o.npy").code == 3

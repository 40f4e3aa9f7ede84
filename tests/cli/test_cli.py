"""The command line on real samples: commands, options, formats, reports and exit codes."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from cli_fixtures import SIZE, cli, heads, program, tiny
from PIL import Image

import iasolve
from iasolve import __version__
from iasolve.metrics import psnr
from iasolve.priors import list_priors

__all__ = ["heads", "tiny"]  # fixtures

QUICK = ("--steps", "2")
DEMO_PRIOR = "mri-t1-128"


@pytest.fixture
def noisy(tmp_path, heads):
    """Two noisy heads as float pages, sigma 20."""
    path = tmp_path / "noisy.npy"
    np.save(path, heads[:2] + np.random.default_rng(0).normal(0, 20, (2, SIZE, SIZE)))
    return path


@pytest.fixture
def kspace(tmp_path, heads):
    """Undersampled k-space of all four heads with its mask, in one file."""
    np.save(tmp_path / "heads.npy", heads)
    path = tmp_path / "y.npz"
    assert cli("simulate", tmp_path / "heads.npy", path, "--task", "mask", "--sigma", 2).code == 0
    return path


def centred_fft2(x):
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))


# --- the program itself ---------------------------------------------------------------------------------------------


def test_help_and_version_answer_at_once_and_without_torch():
    for option, expected in (("--help", "reconstruct"), ("--version", f"iasolve {__version__}")):
        seconds = []
        while len(seconds) < 3 and not (seconds and seconds[-1] < 0.5):
            # processor time: the wall clock would test how busy the machine is
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run([*program(), option], capture_output=True, text=True, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
        assert expected in done.stdout
        assert min(seconds) < 0.5, f"{option} took {seconds}"
    code = "import sys; from iasolve.cli.app import run; run(['denoise', '--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "matplotlib", "scipy"} & set(loaded)


@pytest.mark.parametrize(
    "command",
    [
        "denoise",
        "deblur",
        "reconstruct",
        "solve",
        "check-operator",
        "simulate",
        "evaluate",
        "report",
        "info",
        "train",
        "prior",
        "recipe",
        "demo",
    ],
)
def test_every_command_explains_itself(command):
    done = cli(command, "--help")
    assert done.code == 0
    assert "Usage: iasolve" in done.out


def test_no_arguments_show_the_help():
    assert "Commands:" in cli().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["paint"],
        ["denoise"],
        ["denoise", "IN", "OUT", "--sgima", "3"],
        ["denoise", "IN", "OUT", "--sigma", "-1"],
        ["denoise", "IN", "OUT", "--sigma", "loud"],
        ["denoise", "IN", "OUT", "--sigma", "nan"],
        ["denoise", "IN", "OUT", "--steps", "8=10,16"],
        ["denoise", "IN", "OUT", "--steps", "2.5"],
        ["denoise", "IN", "OUT", "--steps", "8=1,8=2"],
        ["denoise", "IN", "OUT", "--steps", "7=1"],
        ["denoise", "IN", "OUT", "--steps", "1024=1"],
        ["denoise", "IN", "OUT", "--steps", "5", "--recipe", "fast"],
        ["denoise", "IN", "OUT", "--beta", "strong"],
        ["denoise", "IN", "OUT", "--steps", "0", "--beta", "2"],
        ["denoise", "IN", "OUT", "--guess-stop", "3"],
        ["denoise", "IN", "OUT", "--guess-stop", "never"],
        ["denoise", "IN", "OUT", "--recipe", "no-such"],
        ["denoise", "IN", "OUT", "--recipe", "no-such.toml"],
        ["denoise", "IN", "OUT", "--samples", "-1"],
        ["denoise", "IN", "OUT", "--samples", "4"],
        ["denoise", "IN", "OUT", "--samples", "0", "--std-out", "STD"],
        ["denoise", "IN", "OUT", "--seed", "4294967296"],
        ["denoise", "IN", "OUT", "--fit", "tight"],
        ["denoise", "IN", "OUT", "--tile", "64"],
        ["denoise", "IN", "OUT", "--tile", "big"],
        ["denoise", "IN", "OUT", "--overlap", "32"],
        ["denoise", "IN", "OUT", "--device", "abacus"],
        ["denoise", "IN", "OUT", "--batch-size", "0"],
        ["denoise", "IN", "OUT", "--resume"],
        ["denoise", "IN", "IN"],
        ["denoise", "IN", "OUT", "--std-out", "OUT"],
        ["denoise", "IN", "OUT", "--figure", "figure.jpg"],
        ["denoise", "IN", "nowhere/out.npy"],
        ["denoise", "IN", "out.png"],
        ["denoise", "IN", "out.docx"],
        ["denoise", "IN", "OUT", "--std-out", "std.png"],
        ["deblur", "IN", "OUT"],
        ["deblur", "IN", "OUT", "--gaussian", "1", "--cutoff", "8"],
        ["deblur", "IN", "OUT", "--gaussian", "0"],
        ["deblur", "IN", "OUT", "--cutoff", "0.5"],
        ["simulate", "IN", "OUT", "--task", "smudge"],
        ["simulate", "IN", "OUT", "--task", "denoise"],
        ["simulate", "IN", "OUT", "--task", "gaussian"],
        ["simulate", "IN", "OUT", "--task", "gaussian", "--width", "1", "--kernel", "k.npy"],
        ["simulate", "IN", "OUT", "--task", "mask", "--acceleration", "0.5"],
        ["simulate", "IN", "OUT", "--task", "mask", "--centre-fraction", "2"],
        ["simulate", "IN", "OUT", "--task", "mask", "--mask-kind", "spiral"],
        ["simulate", "IN", "out.png", "--task", "mask"],
        ["simulate", "IN", "OUT", "--task", "cutoff", "--cutoff", "8", "--mask-out", "mask.npy"],
        ["evaluate", "IN", "."],
        ["evaluate", "IN", "IN", "--data-range", "0"],
        ["recipe", "show", "no-such"],
        ["train", "IN", "--resume", "--init", "IN"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_refused_in_a_line_or_two_and_writes_nothing(arguments, noisy, tiny, monkeypatch):
    monkeypatch.chdir(noisy.parent)
    names = {"IN": str(noisy), "OUT": "out.npy", "STD": "std.npy"}
    given = [names.get(a, a) for a in arguments]
    if given[0] in ("denoise", "deblur"):
        given += ["--prior", str(tiny)]
    before = sorted(noisy.parent.iterdir())
    done = cli(*given)
    assert done.code == 2, done
    assert done.out == ""
    assert done.err.startswith("Error: ")
    assert len(done.err.splitlines()) <= 2
    assert sorted(noisy.parent.iterdir()) == before


# --- denoise --------------------------------------------------------------------------------------------------------


def test_denoising_improves_every_page_and_reports_what_was_done(noisy, heads, tiny, tmp_path):
    out = tmp_path / "clean.npy"
    done = cli("denoise", noisy, out, "--sigma", 20, "--prior", tiny, *QUICK, "--seed", 3)
    assert done.code == 0, done
    result, before = np.load(out), np.load(noisy)
    assert result.shape == before.shape
    assert result.dtype == np.float64
    for page in range(2):
        assert psnr(result[page], heads[page]) > psnr(before[page], heads[page]) + 1
    report = json.loads((tmp_path / "clean.npy.json").read_text())
    card = json.loads(Path(tiny).with_suffix(".json").read_text())
    assert report["iasolve"] == __version__
    assert report["command"] == "denoise"
    assert report["prior"] == {"name": "tiny", "sha256": card["sha256"]}
    assert report["recipe"]["name"] == "denoise"
    assert report["recipe"]["steps"]["count"] == 2
    assert report["seed"] == 3
    assert report["device"] in ("cpu", "cuda")
    assert report["seconds"] > 0
    assert report["sigma"] == [20, 20]
    assert report["sigma_estimated"] is False
    assert (report["input"]["name"], report["output"]) == ("noisy.npy", "clean.npy")
    assert [row["scale"] for row in report["scales"]] == [1, 2, 4, 8, 16, 32]
    for row in report["scales"]:
        assert row["steps"] == 2
        assert len(row["before"]) == len(row["after"]) == len(row["misfit"]) == 2
    totals = [np.sum([row[key] for row in report["scales"]], axis=0) for key in ("before", "after")]
    assert (totals[1] <= totals[0]).all()
    assert len(report["improved"]) == len(report["gain"]) == len(report["likeness"]) == 2
    assert "sigma     20 (given)" in done.out


def test_sigma_auto_is_the_default_and_is_reported(noisy, tiny, tmp_path):
    done = cli("denoise", noisy, tmp_path / "out.npy", "--prior", tiny, "--recipe", "fast")
    assert "(estimated)" in done.out
    report = json.loads((tmp_path / "out.npy.json").read_text())
    assert report["sigma_estimated"] is True
    assert report["sigma"] == pytest.approx([20, 20], rel=0.35)
    assert all(row["steps"] == 0 for row in report["scales"])


def test_json_is_all_that_stdout_holds_and_equals_the_sidecar(noisy, tiny, tmp_path):
    done = cli("denoise", noisy, tmp_path / "o.npy", "--sigma", 20, "--prior", tiny, "--recipe", "fast", "--json")
    assert done.code == 0
    assert done.report == json.loads((tmp_path / "o.npy.json").read_text())


def test_quiet_prints_nothing(noisy, tiny, tmp_path):
    done = cli("denoise", noisy, tmp_path / "o.npy", "--sigma", 20, "--prior", tiny, "--recipe", "fast", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_the_seed_decides_and_batches_do_not_matter(noisy, tiny, tmp_path):
    def stds(name, *options):
        std = tmp_path / f"{name}-std.npy"
        common = ("--sigma", 20, "--prior", tiny, "--recipe", "fast", "--std-out", std)
        assert cli("denoise", noisy, tmp_path / f"{name}.npy", *common, *options).code == 0
        return np.load(std)

    first = stds("a", "--seed", 1)
    np.testing.assert_allclose(stds("b", "--seed", 1, "--batch-size", 1), first, rtol=1e-4)
    assert np.abs(stds("c", "--seed", 2) - first).max() > 0.01 * first.max()
    assert json.loads((tmp_path / "a.npy.json").read_text())["recipe"]["samples"] == 8


@pytest.mark.slow
def test_error_bars_and_figure(noisy, tiny, tmp_path):
    out, std, figure = (tmp_path / name for name in ("out.npy", "std.tif", "figure.png"))
    options = ("--sigma", 20, "--prior", tiny, *QUICK, "--samples", 3, "--std-out", std, "--figure", figure)
    assert cli("denoise", noisy, out, *options).code == 0
    spread = tifffile.imread(std)
    assert spread.dtype == np.float64
    assert spread.shape == np.load(out).shape
    assert (spread > 0).all()
    assert spread.max() < 60
    with Image.open(figure) as image:
        assert image.format == "PNG"
        assert image.width > 2 * image.height
    report = json.loads((tmp_path / "out.npy.json").read_text())
    assert (report["std"], report["figure"], report["recipe"]["samples"]) == ("std.tif", "figure.png", 3)


def test_tables_of_steps_and_beta_reach_the_recipe(noisy, tiny, tmp_path):
    options = ("--steps", "8=2,16=1", "--beta", "8=0.5", "--guess-stop", "16", "--prior", tiny, "--sigma", 20, "--json")
    options = (*options, "--passes", 2)
    report = cli("denoise", noisy, tmp_path / "o.npy", *options).report
    assert report["recipe"]["steps"]["count"] == {"8": 2, "16": 1}
    assert report["recipe"]["passes"]["count"] == 2
    assert report["recipe"]["steps"]["beta"] == {"8": 0.5}
    assert report["recipe"]["guess"]["stop"] == 16
    assert {row["scale"]: row["steps"] for row in report["scales"]} == {1: 0, 2: 0, 4: 0, 8: 2, 16: 1, 32: 0}


def test_a_recipe_of_ones_own(noisy, tiny, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(cli("recipe", "show", "fast").out.replace('"fast"', '"mine"'))
    report = cli("denoise", noisy, tmp_path / "o.npy", "--recipe", recipe, "--prior", tiny, "--json").report
    assert report["recipe"]["name"] == "mine"
    recipe.write_text("stpes = 3\n")
    done = cli("denoise", noisy, tmp_path / "p.npy", "--recipe", recipe, "--prior", tiny)
    assert done.code == 2
    assert "stpes" in done.err


# --- formats --------------------------------------------------------------------------------------------------------


def save(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="rgb" if array.shape[-1] == 3 else "minisblack")
    else:
        Image.fromarray(array).save(path)


def load(path):
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".tif":
        return tifffile.imread(path)
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ("name", "kind", "scale", "pages", "colours"),
    [
        ("a.png", "uint8", 1, 0, 0),
        ("a.png", "uint16", 200, 0, 0),
        ("a.png", "uint8", 1, 0, 3),
        ("a.jpg", "uint8", 1, 0, 0),
        ("a.tif", "uint16", 200, 0, 0),
        ("a.tif", "uint8", 1, 3, 0),
        ("a.tif", "float32", 1e-3, 0, 0),
        ("a.tif", "uint16", 200, 2, 3),
        ("a.npy", "float64", 1e20, 0, 0),
        ("a.npy", "float32", 1e-20, 0, 0),
        ("a.npy", "int16", 10, 2, 0),
        ("a.npy", "float16", 1, 0, 3),
    ],
)
@pytest.mark.slow
def test_what_comes_out_has_the_type_range_and_layout_of_what_went_in(
    name, kind, scale, pages, colours, heads, tiny, tmp_path
):
    clean = heads[:pages] if pages else heads[0]
    clean = np.stack([clean, clean[..., ::-1], 0.5 * clean], -1) if colours else clean
    noise = np.random.default_rng(0).normal(0, 20, clean.shape)
    values = (clean + noise).clip(0, 255) * scale
    source, out = tmp_path / name, tmp_path / f"out-{name}"
    save(source, values.round().astype(kind) if np.dtype(kind).kind in "iu" else values.astype(kind))
    done = cli("denoise", source, out, "--sigma", 20 * scale, "--prior", tiny, "--recipe", "fast")
    assert done.code == 0, done
    before, after = load(source), load(out)
    assert after.dtype == before.dtype == np.dtype(kind)
    assert after.shape == before.shape
    assert psnr(after.astype(float).reshape(-1, SIZE), (clean * scale).reshape(-1, SIZE)) > psnr(
        before.astype(float).reshape(-1, SIZE), (clean * scale).reshape(-1, SIZE)
    )
    assert ("one by one" in done.err) is bool(colours)
    report = json.loads((tmp_path / f"out-{name}.json").read_text())
    assert len(report["sigma"]) == (pages or 1) * (colours or 1)
    assert report["sigma"][0] == pytest.approx(20 * scale, rel=1e-5)


@pytest.mark.parametrize("fit", ["canvas", "field-of-view"])
@pytest.mark.parametrize("shape", [(45, 50), (20, 17)])
def test_images_of_other_sizes(fit, shape, heads, tiny, tmp_path):
    clean = np.tile(heads[0], (2, 2))[: shape[0], : shape[1]]
    np.save(tmp_path / "x.npy", clean + np.random.default_rng(0).normal(0, 20, shape))
    options = ("--sigma", 20, "--prior", tiny, "--fit", fit, *QUICK, "--tile", SIZE, "--overlap", 4)
    done = cli("denoise", tmp_path / "x.npy", tmp_path / "out.npy", *options)
    assert done.code == 0, done
    result = np.load(tmp_path / "out.npy")
    assert result.shape == shape
    assert psnr(result, clean) > psnr(np.load(tmp_path / "x.npy"), clean)


# --- deblur ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blur", ["gaussian", "kernel", "cutoff"])
def test_simulated_blurs_are_undone(blur, heads, tiny, tmp_path):
    x, y, out, kernel = (tmp_path / name for name in ("x.tif", "y.tif", "out.tif", "kernel.npy"))
    tifffile.imwrite(x, heads[0].astype(np.float32))
    np.save(kernel, np.float32([[0, 2, 0], [2, 8, 2], [0, 2, 4]]))  # sums to 20, off centre
    made = {"gaussian": ("--width", 1), "kernel": ("--kernel", kernel), "cutoff": ("--cutoff", 16)}[blur]
    undone = ("--gaussian", 1) if blur == "gaussian" else made
    done = cli("simulate", x, y, "--task", blur, *made, "--sigma", 2, "--seed", 1)
    assert done.code == 0, done
    done = cli("deblur", y, out, *undone, "--sigma", 2, "--prior", tiny, *QUICK, "--json")
    assert done.code == 0, done
    gains = {"gaussian": 1, "kernel": 1, "cutoff": -0.2}
    assert psnr(tifffile.imread(out), heads[0]) > psnr(tifffile.imread(y), heads[0]) + gains[blur]
    assert done.report["recipe"]["name"] == ("compressed-sensing" if blur == "cutoff" else "deblur")
    assert done.report["operator"]["kind"] == {"gaussian": "gaussian blur", "kernel": "kernel blur"}.get(
        blur, "low-pass"
    )
    assert ("sums to 20" in done.err) is (blur == "kernel")


def test_simulate_blurs_around_the_edges(heads, tmp_path):
    np.save(tmp_path / "x.npy", np.pad([[255.0]], ((0, 19), (0, 16))))
    done = cli("simulate", tmp_path / "x.npy", tmp_path / "y.npy", "--task", "gaussian", "--width", 3)
    assert done.code == 0, done
    y = np.load(tmp_path / "y.npy")
    assert y.sum() == pytest.approx(255, rel=1e-4)
    # the kernel, 25 pixels, is larger than the image: it wraps, and stays symmetric about the impulse
    np.testing.assert_allclose(y[1:, 1:], y[:0:-1, :0:-1], atol=1e-5)
    assert y[1, 0] == pytest.approx(y[0, 1], rel=1e-2)


# --- reconstruct ----------------------------------------------------------------------------------------------------


def test_reconstruction_beats_zero_filling(kspace, heads, tiny, tmp_path):
    out = tmp_path / "image.tif"
    done = cli("reconstruct", kspace, out, "--prior", tiny, *QUICK, "--sigma", 2)
    assert done.code == 0, done
    image = tifffile.imread(out)
    assert image.dtype == np.float32
    assert image.shape == heads.shape
    with np.load(kspace) as data:
        y, mask = data["kspace"], data["mask"]
    assert y.shape == (4, 1, SIZE, SIZE)
    zero_filled = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(y, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)).real
    ours = np.mean([psnr(a, b) for a, b in zip(image, heads, strict=True)])
    theirs = np.mean([psnr(a[0], b) for a, b in zip(zero_filled, heads, strict=True)])
    assert ours > theirs
    operator = json.loads((tmp_path / "image.tif.json").read_text())["operator"]
    assert operator["acceleration"] == pytest.approx(mask.size / mask.sum())
    assert 1 <= operator["acceleration_if_real"] <= operator["acceleration"]
    assert max(found["imaginary_share"] for found in operator["slices"]) < 0.05
    assert "imaginary" not in done.err


@pytest.mark.parametrize("kind", ["random", "equispaced", "points"])
def test_the_mask_is_found_in_file_in_the_zeros_and_where_it_is_named(kind, heads, tiny, tmp_path):
    x, y, mask, zipped = (tmp_path / name for name in ("x.npy", "y.npy", "mask.png", "y.npz"))
    np.save(x, heads[0])
    task = ("--task", "mask", "--sigma", 1, "--mask-kind", kind, "--acceleration", 2, "--seed", 5)
    done = cli("simulate", x, y, *task, "--mask-out", mask, "--json")
    assert done.report["operator"]["acceleration"] == pytest.approx(SIZE**2 / (load(mask) > 0).sum())
    assert cli("simulate", x, zipped, *task).code == 0
    results = []
    for source, option in ((y, ()), (y, ("--mask", mask)), (zipped, ("--mask", "auto"))):
        out = tmp_path / f"out{len(results)}.npy"
        done = cli("reconstruct", source, out, *option, "--sigma", 1, "--prior", tiny, "--recipe", "fast", "--json")
        assert done.code == 0, done
        results.append(np.load(out))
        assert done.report["operator"]["acceleration"] == pytest.approx(SIZE**2 / (load(mask) > 0).sum())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_allclose(results[0], results[2], rtol=1e-5, atol=1e-3)


def test_fastmri_files_and_slices(heads, tiny, tmp_path):
    mask = np.zeros(SIZE, np.float32)
    mask[::2] = mask[12:20] = 1
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["kspace"] = (centred_fft2(heads) * mask * 1e-6).astype(np.complex64)
        file["mask"] = mask
    done = cli("reconstruct", tmp_path / "file.h5", tmp_path / "out.npy", "--prior", tiny, "--recipe", "fast")
    assert done.code == 0, done
    assert "the mask in the file" in done.out
    result = np.load(tmp_path / "out.npy")
    assert result.shape == heads.shape
    assert psnr(result[0] * 1e6, heads[0]) > 14  # the prior is not trained


def test_phase_is_warned_about_with_the_number_behind_it(heads, tiny, tmp_path):
    ramp = np.exp(1j * np.linspace(0, 2, SIZE))
    np.save(tmp_path / "y.npy", centred_fft2(heads[0] * ramp).astype(np.complex64))
    options = ("--prior", tiny, "--recipe", "fast", "--sigma", 1, "--phase", "none")
    done = cli("reconstruct", tmp_path / "y.npy", tmp_path / "o.npy", *options)
    assert done.code == 0
    share = (np.imag(heads[0] * ramp) ** 2).sum() / (heads[0] ** 2).sum()
    assert f"{share:.0%} of the image's energy" in done.err
    report = json.loads((tmp_path / "o.npy.json").read_text())
    assert report["operator"]["slices"][0]["imaginary_share"] == pytest.approx(share, abs=0.02)
    assert any("imaginary" in text for text in report["warnings"])


def test_slices_with_masks_of_their_own_are_solved_as_python_solves_them(heads, tiny, tmp_path):
    y = centred_fft2(heads)[:, None].astype(np.complex64)
    y[0, ..., ::2] = 0
    y[1, 0, 3, 5] = 0  # a value that is zero by chance is no entry left out
    np.save(tmp_path / "y.npy", y)
    options = ("--prior", tiny, "--recipe", "fast", "--sigma", 2)
    done = cli("reconstruct", tmp_path / "y.npy", tmp_path / "o.npy", *options, "--json")
    assert done.code == 0, done
    assert done.report["operator"]["mask"] == "the non-zero columns of each slice"
    assert [one["acceleration"] for one in done.report["operator"]["slices"]] == [2, 1, 1, 1]
    assert done.report["operator"]["acceleration"] == pytest.approx(8 / 7)
    prior = iasolve.load_prior(tiny)
    expected = iasolve.reconstruct(y, prior, noise=iasolve.operators.GaussianNoise(2), recipe="fast")
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), expected.image[:, 0])


def test_the_summary_tells_the_steps_that_were_taken(noisy, tiny, tmp_path):
    for steps, words in (("3", "3 steps of every scale"), ("8=2,16=1", "steps 8=2, 16=1")):
        options = ("--prior", tiny, "--sigma", 20, "--steps", steps, "--overwrite")
        done = cli("denoise", noisy, tmp_path / "o.npy", *options)
        assert done.code == 0, done
        assert f", {words}, objective" in done.out


def test_a_mask_that_does_not_fit_is_refused_or_warned_about(kspace, tiny, tmp_path):
    np.save(tmp_path / "wide.npy", np.ones((SIZE, SIZE + 1), bool))
    done = cli("reconstruct", kspace, tmp_path / "o.npy", "--mask", tmp_path / "wide.npy", "--prior", tiny)
    assert done.code == 3
    assert "32 x 33" in done.err
    np.save(tmp_path / "all.npy", np.ones((SIZE, SIZE), bool))
    done = cli(
        "reconstruct", kspace, tmp_path / "o.npy", "--mask", tmp_path / "all.npy", "--prior", tiny, "--recipe", "fast"
    )
    assert done.code == 0
    assert "exactly 0" in done.err


# --- simulate and evaluate ------------------------------------------------------------------------------------------


def test_simulated_noise_has_the_level_asked_for_and_follows_the_seed(heads, tmp_path):
    np.save(tmp_path / "x.npy", heads)
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.npy"
        assert cli("simulate", tmp_path / "x.npy", out, "--task", "denoise", "--sigma", 9, "--seed", seed).code == 0
        made.append(np.load(out))
    assert made[0].dtype == np.float32
    assert (made[0] - heads).std() == pytest.approx(9, rel=0.05)
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.allclose(made[0], made[2])


def test_noise_in_an_8_bit_file_is_clipped_and_said_to_be(heads, tmp_path):
    save(tmp_path / "x.png", heads[0].round().astype(np.uint8))
    done = cli("simulate", tmp_path / "x.png", tmp_path / "y.png", "--task", "denoise", "--sigma", 20)
    assert done.code == 0
    assert "clipped to 0 .. 255" in done.err
    assert load(tmp_path / "y.png").dtype == np.uint8


def test_evaluate_agrees_with_the_metrics_and_takes_folders(heads, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "a" / "x.npy", heads + 3)
    np.save(tmp_path / "b" / "x.npy", heads)
    save(tmp_path / "a" / "y.png", heads[0].round().astype(np.uint8))
    save(tmp_path / "b" / "y.png", heads[0].round().astype(np.uint8))
    done = cli("evaluate", tmp_path / "a" / "x.npy", tmp_path / "b" / "x.npy", "--json")
    scores = done.report["files"][0]
    assert scores["mean"]["psnr"] == pytest.approx(np.mean([psnr(h + 3, h) for h in heads]))
    assert len(scores["pages"]) == 4
    done = cli("evaluate", tmp_path / "a", tmp_path / "b")
    assert done.code == 0
    assert "PSNR" in done.out
    assert "inf" in done.out  # y.png equals its reference
    done = cli("evaluate", tmp_path / "a", tmp_path / "b", "--json")
    assert done.report["files"][1]["mean"]["psnr"] is None  # JSON has no infinity


def test_evaluate_goes_on_after_a_file_that_cannot_be_compared(heads, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "good.npy", heads)
    np.save(tmp_path / "a" / "alone.npy", heads)
    np.save(tmp_path / "a" / "short.npy", heads[:2])
    np.save(tmp_path / "b" / "short.npy", heads)
    done = cli("evaluate", tmp_path / "a", tmp_path / "b", "--json")
    assert done.code == 7
    assert [entry["name"] for entry in done.report["files"]] == ["good.npy"]
    assert [(f["name"], f["exit_code"]) for f in done.report["failed"]] == [("alone.npy", 3), ("short.npy", 3)]
    shown = cli("evaluate", tmp_path / "a", tmp_path / "b")
    assert "good.npy" in shown.out
    assert "2 of 3 files failed" in shown.err


def test_evaluate_names_both_shapes(heads, tmp_path):
    np.save(tmp_path / "a.npy", heads)
    np.save(tmp_path / "b.npy", heads[0])
    done = cli("evaluate", tmp_path / "a.npy", tmp_path / "b.npy")
    assert done.code == 3
    assert "4 page(s)" in done.err
    assert "1 page(s)" in done.err


# --- recipes and the bundled demo -----------------------------------------------------------------------------------


def test_recipes_are_listed_and_shown_with_their_comments():
    listed = cli("recipe", "list")
    shown = cli("recipe", "show", "deblur")
    assert "compressed-sensing" in listed.out
    assert shown.out.startswith("#")
    assert 'name = "deblur"' in shown.out
    assert cli("recipe", "show", "deblur", "--json").report["steps"]["objective"] == "expected"


def test_prior_list_is_json_even_when_it_is_empty():
    assert [p["name"] for p in cli("prior", "list", "--json").report["priors"]] == list(list_priors())
    assert cli("prior", "list").code == 0


@pytest.mark.skipif(DEMO_PRIOR not in list_priors(), reason="this installation has no bundled prior")
@pytest.mark.parametrize(
    "quick",
    [
        True,
        pytest.param(
            False,
            marks=pytest.mark.skipif("IASOLVE_SLOW_TESTS" not in os.environ, reason="set IASOLVE_SLOW_TESTS: a minute"),
        ),
    ],
)
@pytest.mark.slow
def test_demo_solves_compares_and_draws(quick, tmp_path, monkeypatch):
    solve = iasolve.solve
    if quick:
        amortized = {"recipe": "fast", "samples": 2}
        monkeypatch.setattr(iasolve, "solve", lambda *a, **k: solve(*a, **{**k, **amortized}), raising=False)
    monkeypatch.chdir(tmp_path)
    done = cli("demo")
    assert done.code == 0, done
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == [f"iasolve-demo.{s}" for s in ("html", "json", "md", "png")]
    assert Path("iasolve-demo.html").read_text().count("<article") == 12
    report = json.loads(Path("iasolve-demo.json").read_text())
    assert [task["recipe"] for task in report["tasks"]] == ["denoise", "compressed-sensing", "deblur"]
    for task in report["tasks"]:
        mean = task["mean"]
        assert mean["iasolve"]["psnr"] > mean["input"]["psnr"] + 2
        assert mean["iasolve"]["ssim"] > mean["input"]["ssim"]
        assert mean["total variation"]["psnr"] > mean["input"]["psnr"] + 2
        for text in (done.out, Path("iasolve-demo.md").read_text()):
            assert f"{mean['iasolve']['psnr']:.2f} / {mean['iasolve']['ssim']:.3f}" in text
            assert "in effect" in text
    assert "CC BY 4.0" in Path("iasolve-demo.md").read_text()
    with Image.open("iasolve-demo.png") as figure:
        assert min(figure.size) > 500
    if not quick:
        # with the prior of 19,896 images, total variation is still ahead on the k-space lines
        noise, _, blur = (task["mean"] for task in report["tasks"])
        assert all(mean["iasolve"]["psnr"] > mean["total variation"]["psnr"] for mean in (noise, blur))


def test_demo_refuses_a_prior_of_another_size(tiny, tmp_path):
    done = cli("demo", "--prior", tiny, "--out", tmp_path)
    assert done.code == 2
    assert "128 x 128" in done.err

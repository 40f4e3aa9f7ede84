"""``--prior auto``: chosen by the measurement, reported, and done again when the priors to choose from change."""

import sys

import numpy as np
import pytest
import torch
from cli_fixtures import cli, heads
from tiny import bundled

import iasolve
from iasolve.inference import choose_prior
from iasolve.operators import GaussianNoise, Identity, KSpaceMask, SensitivityEncoding, birdcage_maps, line_mask
from iasolve.priors import KSPACE_PRIORS, ReaderPrior, load_fitting

__all__ = ["heads"]  # fixtures

QUICK = ("--recipe", "fast", "--sigma", 10)


def blind(prior, name):
    """A prior that expects next to no detail: its reader was trained on the same images, its power says otherwise."""
    reader = prior.to("cpu").reader
    reader.power.mul_(1e4)
    return ReaderPrior(reader, name, prior.card | {"sha256": "0" * 64})


@pytest.fixture(scope="module")
def priors():
    good = bundled("mri-t1-128")
    return {"good": ReaderPrior(good.reader, "good", good.card), "poor": blind(good, "poor")}


@pytest.fixture
def installed(monkeypatch, priors):
    """Two priors to choose from, of which the first in line is the poor one."""
    order = ["poor", "good"]
    monkeypatch.setattr("iasolve.priors.registry.list_priors", lambda: tuple(order))

    def fitting(channels, is_complex):
        return tuple(priors[name] for name in order) if (channels, is_complex) == (1, False) else ()

    monkeypatch.setattr("iasolve.inference.choice.load_fitting", fitting)
    monkeypatch.setattr("iasolve.cli.solvers.load_fitting", fitting)
    monkeypatch.setattr("iasolve.cli.solvers.fitting_names", lambda *kind: [one.name for one in fitting(*kind)])
    monkeypatch.setattr("iasolve.cli.solver.open_prior", lambda name: priors[name])
    return order


@pytest.fixture
def noisy(tmp_path, heads):
    path = tmp_path / "noisy.npy"
    np.save(path, heads[:2] + np.random.default_rng(0).normal(0, 10, heads[:2].shape))
    return path


def test_the_prior_that_answers_best_is_chosen_whatever_its_place(priors, heads):
    operator, noise = Identity((1, 32, 32)), GaussianNoise(10.0)
    y = (heads[:2, None] + np.random.default_rng(0).normal(0, 10, heads[:2, None].shape)).astype(np.float32)
    for order in (("poor", "good"), ("good", "poor")):
        choice = choose_prior(y, operator, [priors[name] for name in order], noise=noise)
        assert choice.prior.name == "good"
        assert choice.errors["good"] == 1
        assert choice.errors["poor"] > 1
    alone = choose_prior(y, operator, [priors["poor"]], noise=noise)
    assert (alone.prior.name, alone.errors) == ("poor", {"poor": 1.0})


def test_tiles_that_show_something_decide(priors):
    """Of a large picture that is empty but for a corner, as of that corner."""
    head = iasolve.samples.load_samples().images[0].astype(np.float32)
    picture = np.zeros((1, 400, 300), np.float32)
    picture[0, 256:384, :128] = head
    y = picture + np.random.default_rng(0).normal(0, 10, picture.shape).astype(np.float32)
    found = choose_prior(y, Identity(picture.shape), list(priors.values()), noise=GaussianNoise(10.0))
    assert found.prior.name == "good"


def test_solve_chooses_where_no_prior_is_given(installed, heads):
    y = (heads[:1, None] + np.random.default_rng(0).normal(0, 10, (1, 1, 32, 32))).astype(np.float32)
    result = iasolve.solve(y, Identity((1, 32, 32)), noise=GaussianNoise(10.0), recipe="fast", warn=False)
    assert result.prior == "good"


def test_the_choice_is_reported(tmp_path, installed, noisy):
    done = cli("denoise", noisy, tmp_path / "x.npy", *QUICK, "--json")
    assert done.code == 0, done.err
    assert done.report["prior"]["name"] == "good"
    assert done.report["asked"]["prior"] == ["poor", "good"]
    assert done.report["choice"]["good"] == 1
    said = cli("denoise", noisy, tmp_path / "x.npy", *QUICK, "--overwrite").out
    ratio = done.report["choice"]["poor"]
    assert (
        f"poor errs {ratio:.3g} times as much" if ratio >= 2 else f"poor errs {100 * (ratio - 1):.1f} % more"
    ) in said
    named = cli("denoise", noisy, tmp_path / "y.npy", *QUICK, "--prior", "good", "--json").report
    assert named["choice"] == {}
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy"))


def test_a_resumed_folder_keeps_its_choices_until_there_are_others(tmp_path, installed, noisy):
    folder = tmp_path / "in"
    folder.mkdir()
    noisy.rename(folder / "a.npy")
    run = ("denoise", folder, tmp_path / "out", *QUICK, "--json")
    assert cli(*run).code == 0
    resumed = cli(*run, "--resume")
    assert resumed.code == 0
    assert resumed.report["skipped"] == 1
    installed.remove("poor")
    again = cli(*run, "--resume")
    assert again.report["skipped"] == 0
    assert "done again" in again.err


def test_k_space_has_the_prior_for_mr(tmp_path, heads):
    np.save(tmp_path / "heads.npy", heads[:1])
    assert cli("simulate", tmp_path / "heads.npy", tmp_path / "y.npz", "--task", "mask", "--sigma", 2).code == 0
    done = cli("reconstruct", tmp_path / "y.npz", tmp_path / "x.npy", "--recipe", "fast", "--json")
    assert done.report["prior"]["name"] in KSPACE_PRIORS
    assert set(done.report["choice"]) == set(KSPACE_PRIORS)


@pytest.fixture
def kspace_priors(monkeypatch, installed, priors):
    """The same two for k-space; both are readers alone."""
    monkeypatch.setattr("iasolve.priors.load_kspace_priors", lambda: tuple(priors[name] for name in installed))
    module = sys.modules["iasolve.reconstruction.reconstruct"]  # the package shows a function of that name
    monkeypatch.setattr(module, "load_kspace_priors", lambda: tuple(priors.values()))


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.slow
def test_k_space_chooses_and_leaves_out_the_steps_of_its_recipe(tmp_path, kspace_priors, heads, coils):
    head = torch.from_numpy(iasolve.samples.load_samples().images[0].astype(np.float32))[None]
    lines = line_mask((128, 128), 3, 0.2, seed=0)
    operator = (
        SensitivityEncoding(birdcage_maps((128, 128), coils), lines) if coils > 1 else KSpaceMask(lines, head.shape)
    )
    y = operator(head.to(operator.in_dtype))
    y = (y + torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))) * lines
    np.save(tmp_path / "y.npy", y.numpy())
    done = cli("reconstruct", tmp_path / "y.npy", tmp_path / "x.npy", "--sigma", 1, "--json")
    assert done.code == 0, done.err
    assert done.report["prior"]["name"] == "good"
    assert done.report["choice"]["poor"] > 1
    assert done.report["recipe"]["steps"]["count"] == 0
    result = iasolve.reconstruct(y, noise=GaussianNoise(1.0), warn=False)
    assert result.prior == "good"
    found = np.load(tmp_path / "x.npy")
    np.testing.assert_allclose(found.squeeze(), result.image.squeeze(), atol=1e-3 * found.max())


@pytest.mark.slow
def test_steps_that_were_asked_for_leave_only_priors_that_take_them(tmp_path, noisy):
    done = cli("denoise", noisy, tmp_path / "x.npy", "--sigma", 10, "--steps", 1, "--json")
    assert done.code == 0, done.err
    assert done.report["prior"]["name"] == "mri-t1-128"
    assert done.report["recipe"]["steps"]["count"] == 1
    y = np.load(noisy)[:1, None].astype(np.float32)
    recipe = iasolve.load_recipe("fast").changed(steps={"count": 1})
    assert iasolve.solve(y, Identity((1, 32, 32)), recipe=recipe, warn=False).prior == "mri-t1-128"


def test_kinds_of_images_without_a_prior_are_refused_before_the_work(tmp_path, monkeypatch, noisy):
    np.save(tmp_path / "complex.npy", np.load(noisy).astype(np.complex64))
    real = "iasolve.cli.solvers.load_fitting"
    monkeypatch.setattr(real, lambda channels, kind: () if kind else load_fitting(channels, kind))
    done = cli("denoise", tmp_path / "complex.npy", tmp_path / "x.npy", *QUICK)
    assert done.code == 3
    assert "Expected a prior over such images" in " ".join(done.err.split())

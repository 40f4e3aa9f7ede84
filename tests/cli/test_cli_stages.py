"""The bar of one long image: how far it is, what is being done, and the objective where there is one."""

import contextlib
import io
import re

import numpy as np
import pytest
import torch
from cli_fixtures import SIZE, cli, heads, tiny
from tiny import tiny_prior

import iasolve
from iasolve.cli import main, solver
from iasolve.inference import Status
from iasolve.operators import GaussianNoise, Identity

__all__ = ["heads", "tiny"]  # fixtures


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def noisy(tmp_path, heads):
    path = tmp_path / "[bold]noisy.npy"  # no markup
    np.save(path, heads[0] + np.random.default_rng(0).normal(0, 20, (SIZE, SIZE)))
    return path


def drawn(stderr, *arguments):
    """What a run draws on stderr, without the terminal's control sequences."""
    with (
        contextlib.redirect_stderr(stderr),
        contextlib.redirect_stdout(io.StringIO()),
        pytest.raises(SystemExit) as end,
    ):
        main([str(a) for a in arguments])
    assert end.value.code == 0, stderr.getvalue()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stderr.getvalue())


def test_a_terminal_shows_objective_share_and_time_left(noisy, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    # drawn at every call, or a run of a tenth of a second might end before the first time
    monkeypatch.setattr("rich.progress.Progress.update", drawn_at_once())
    text = drawn(Terminal(), "denoise", noisy, tmp_path / "out.npy", "--sigma", 20, "--prior", tiny, "--steps", 4)
    assert re.search(r"denoise \[bold\]noisy.npy .* \d+% \d:\d\d:\d\d left step 3 of 4, objective -?[\d.e+]+", text)
    shares = [int(share) for share in re.findall(r"(\d+)% [\d-]:", text)]
    assert shares == sorted(shares)
    assert len(set(shares)) > 4
    assert shares[-1] == 100


def test_a_narrow_terminal_cuts_names_and_keeps_numbers(noisy, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("rich.progress.Progress.update", drawn_at_once())
    long = noisy.rename(noisy.with_name(f"{'a' * 60}.npy"))
    text = drawn(Terminal(), "denoise", long, tmp_path / "out.npy", "--sigma", 20, "--prior", tiny, "--steps", 4)
    lines = [line for line in re.split(r"[\r\n]+", text) if "left" in line]
    assert max(map(len, lines)) <= 70
    assert all(
        re.search(r"^denoise a+\N{HORIZONTAL ELLIPSIS}a+\.npy \S+ +\d+% [\d-]:[\d-]+:[\d-]+ left", line)
        for line in lines
    )


def drawn_at_once():
    from rich.progress import Progress

    update = Progress.update

    def and_draw(self, *arguments, **changes):
        update(self, *arguments, **changes)
        self.refresh()

    return and_draw


def test_a_pipe_gets_no_bar(noisy, tiny, tmp_path):
    assert drawn(io.StringIO(), "denoise", noisy, tmp_path / "out.npy", "--sigma", 20, "--prior", tiny) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"samples": 3},
        {"views": 1, "passes": {"count": 3}},
        {"steps": {"count": 4, "blocks": "scale", "variables": "latents"}},
    ],
)
@pytest.mark.slow
def test_what_the_solver_tells_fills_the_bar_once(changes, heads):
    prior, recipe = tiny_prior(), iasolve.load_recipe("denoise").changed(steps={"count": 3}).changed(**changes)
    stages, seen = solver.Stages(recipe, prior, 2, 2), []
    y = torch.from_numpy(np.asarray(heads[:2, None], np.float32))
    iasolve.solve(
        y,
        Identity((1, SIZE, SIZE)),
        prior,
        noise=GaussianNoise(20.0),
        recipe=recipe,
        warn=False,
        fallback=False,
        callback=lambda status: seen.append(stages(status)),
    )
    done = [images for images, _ in seen]
    assert done == sorted(done)
    assert done[-1] == 2
    # the guess of how often the solver tells something is right to a call or two
    assert done[-2] == pytest.approx(2, abs=0.3)
    assert seen[-1][1] == ""
    assert "closing" in [words for _, words in seen]


def test_slices_that_are_solved_alone_fill_a_slice_of_the_bar_each():
    prior, recipe = tiny_prior(), iasolve.load_recipe("fast")
    stages = solver.Stages(recipe, prior, 4, 1)
    first = [stages(Status(stage, 0, 4, 1, 1, None, 0.0))[0] for stage in ("guess", "closing")]
    assert 0 < first[0] < first[1] < 1
    assert stages(Status("done", 1, 4, 1, 4, None, 0.0)) == (1, "")


def test_an_image_in_windows_counts_windows_and_a_pass_has_no_objective():
    prior, recipe = tiny_prior(), iasolve.load_recipe("fast")
    assert solver.Stages(recipe, prior, 1, 1)(Status("closing", 0, 1, 3, 12, None, 0.0)) == (0.25, "part 3 of 12")
    stages = solver.Stages(recipe, prior, 1, 1)
    stages(Status("guess", 0, 1, 1, 1, None, 0.0))
    assert stages(Status("pass", 0, 1, 2, 16, None, 0.0))[1] == "pass 2 of 16"
    assert stages(Status("step", 0, 2, 2, 10, torch.tensor([1.0, 3.0]), 0.0))[1] == "step 2 of 10, objective 2"


def test_a_watched_page_says_what_is_being_done(noisy, tiny, tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr("iasolve.cli.report_page.Page.watch", lambda self, note: notes.append(note))
    page = tmp_path / "page.html"
    done = cli(
        "denoise",
        noisy,
        tmp_path / "out.npy",
        "--sigma",
        20,
        "--prior",
        tiny,
        "--steps",
        2,
        "--report",
        page,
        "--watch",
    )
    assert done.code == 0, done
    assert any(re.fullmatch(r"\d+% done in \d+ s, about \d+ s left; step 2 of 2, objective .*", note) for note in notes)

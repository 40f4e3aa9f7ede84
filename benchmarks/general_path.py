"""How many conjugate-gradient iterations a refinement step needs where the operator is not diagonal in Fourier space.

    python benchmarks/general_path.py              # a few minutes
    python benchmarks/general_path.py --quick      # one slice, fewer counts

A step needs the gradient of the marginal likelihood, ``(x0 - x*) / V``, and gets it from ``J`` iterations that start
from the last step's. Between steps ``x0`` changes by a fresh draw of the latents of one scale, so that is what is done
here: validation slices seen by 8 birdcage coils at 4x, and for each scale ten draws one after the other. Told against
``J``: the gradient's relative error (root mean square over scales and draws; the first draw, after a change of scale,
apart), processor seconds of one evaluation, and what counts in the end, the total objective after ten steps of every
scale.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

import common
import iasolve
from iasolve.inference.objective import Noise
from iasolve.inference.passes import Guess, descend, first_guess
from iasolve.operators import GaussianNoise, SensitivityEncoding, birdcage_maps, line_mask
from iasolve.priors.hierarchy import Node
from iasolve.problem.operator_likelihood import OperatorLikelihood
from iasolve.problem.options import Options
from iasolve.problem.pose import Problem, pose

COUNTS = (1, 2, 3, 4, 6, 8, 12, 20)
SIGMA, COILS, DRAWS = 0.02, 8, 10
LEAST_SCALE = 8  # coarser scales are a few pixels of the spectrum: their draws hardly move the image


def images_of_draws(problem: Problem, prior: iasolve.HVAEPrior, guess: Guess) -> list[Tensor]:
    """Decoded images, scale after scale, each with another draw of that scale's latents."""
    stop = torch.full((len(guess.latents[0]),), len(prior.spectrum.scales) - 1)
    noise = Noise(0, problem.gain.device, torch.float32)

    def draw(n: int) -> list[Tensor]:
        def choose(node: Node) -> Tensor:
            q = node.posterior
            return q.mean + q.std * noise(tuple(q.mean.shape[1:]), f"draw {n}", node.number)

        return descend(prior, guess.features, stop, choose).contributions

    drawn = [draw(n) for n in range(DRAWS)]
    images = []
    for index, scale in enumerate(prior.spectrum.scales):
        if scale >= LEAST_SCALE:
            for drawing in drawn:
                parts = [*guess.contributions[:index], drawing[index], *guess.contributions[index + 1 :]]
                images.append(problem.decode(prior, parts))
    return images


def gradients(problem: Problem, images: list[Tensor], iterations: int) -> tuple[list[Tensor], float]:
    """The data term's gradient at each image in turn, and processor seconds of one."""
    known = problem.likelihood
    assert isinstance(known, OperatorLikelihood)
    likelihood = OperatorLikelihood(known.operator, known.y, known.sigma, iterations)
    found, start = [], None
    begun = time.process_time()
    for image in images:
        x0 = image.clone().requires_grad_(True)
        with torch.enable_grad():
            nats, start = likelihood.value(x0, problem.variance, start)
            (gradient,) = torch.autograd.grad(nats.sum(), x0)
        found.append(gradient)
    return found, (time.process_time() - begun) / len(images)


@torch.no_grad()
def main(
    data: Annotated[Path | None, typer.Option(help="mri-t1ce-128.npz; default: in the folder IASOLVE_DATA")] = None,
    prior: Annotated[str, typer.Option(help="Name or path.")] = "mri-t1-128",
    count: Annotated[int, typer.Option(help="Validation slices.")] = 2,
    seed: Annotated[int, typer.Option(help="Of slices, mask and noise.")] = 0,
    quick: Annotated[bool, typer.Option(help="One slice, three counts.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = common.RESULTS,
) -> None:
    """Run the benchmark and write Markdown and JSON."""
    count, counts = (1, COUNTS[1::3]) if quick else (count, COUNTS)
    loaded = iasolve.load_prior(prior)
    images = common.pick(common.slices(data, "validation"), count, seed)
    maps = birdcage_maps((128, 128), COILS).to(torch.complex64)
    operator = SensitivityEncoding(maps, line_mask((128, 128), 4, 0.08, seed=seed), torch.float32)
    noise = GaussianNoise(SIGMA)
    y = operator.mask * noise.sample(operator(images), torch.Generator().manual_seed(seed))

    problem = pose(y, operator, loaded, torch.full((count,), SIGMA), Options())
    stop = torch.full((count,), len(loaded.spectrum.scales) - 1)
    guess = first_guess(problem, loaded, iasolve.load_recipe("fast"), stop)
    assert guess.features is not None
    seen = images_of_draws(problem, loaded, guess)
    exact = gradients(problem, seen, 150)[0]
    rows, results = [], {}
    steps = common.changed(iasolve.load_recipe("compressed-sensing"), passes=0, steps=10)
    for iterations in counts:
        found, seconds = gradients(problem, seen, iterations)
        errors = np.array([float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)])
        cold, warm = errors[::DRAWS], np.delete(errors, np.s_[::DRAWS])
        solved = iasolve.solve(y, operator, loaded, noise=noise, recipe=steps, seed=seed, iterations=iterations)
        before, after = (sum(float(row[key].mean()) for row in solved.scales) for key in ("before", "after"))
        score = float(common.psnr(solved.image, images).mean())
        results[iterations] = {
            "gradient_error": {"first": float(np.sqrt((cold**2).mean())), "later": float(np.sqrt((warm**2).mean()))},
            "seconds": seconds,
            "objective": {"before": before, "after": after},
            "psnr": score,
            "solve_seconds": solved.seconds,
        }
        rows.append(
            [
                iterations,
                f"{results[iterations]['gradient_error']['first']:.1%}",
                f"{results[iterations]['gradient_error']['later']:.1%}",
                f"{1000 * seconds / count:.1f}",
                f"{after - before:+.0f}",
                f"{score:.2f}",
            ]
        )
        typer.echo(f"J = {rows[-1]}")
    report = common.provenance(seed, loaded, quick=quick, counts=results)
    text = (
        "# Iterations of a step on the general path\n\n"
        f"{count} validation slice(s), {COILS} coils, 4x lines, sigma {SIGMA}; prior {loaded.name}, "
        f"{report['prior_images_seen']} images seen; commit {report['commit']}; seed {seed}; {report['machine']}.\n\n"
        + common.table(
            [
                "J",
                "gradient's error, first step",
                "later steps",
                "ms an evaluation and image",
                "objective by 10 steps, nats",
                "PSNR dB",
            ],
            rows,
        )
    )
    common.write("general_path-quick" if quick else "general_path", report, text, out)
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)

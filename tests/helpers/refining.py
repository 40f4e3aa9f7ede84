"""A posed problem with its guess, its objective and the parts that steps take: what the tests of refinement share."""

import torch
from flat_recipes import recipe_of

from iasolve.inference import OBJECTIVES, Options
from iasolve.inference.objective import ImageTerm, Noise, Objective, data_term
from iasolve.inference.passes import descend, first_guess
from iasolve.inference.refine import Candidate, improve, judge, parts_of, refine
from iasolve.networks import Gaussian
from iasolve.priors.hierarchy import START, Hierarchy, values
from iasolve.problem.options import Watch
from iasolve.problem.pose import pose


class Setting:
    """A measurement ``y`` of ``operator`` at noise level ``sigma``, posed, guessed and ready for steps."""

    def __init__(self, recipe, prior, operator, y, sigma, *, iterations=8, general=False, seed=0):
        self.recipe, self.prior, self.operator, self.y = recipe, prior, operator, y
        count = len(y)
        options = Options(iterations=iterations, force_general=general, seed=seed)
        self.problem = pose(y, operator, prior, torch.full((count,), sigma, dtype=prior.power.dtype), options)
        self.stop = torch.full((count,), len(prior.spectrum.scales) - 1)
        with torch.no_grad():
            self.guess = first_guess(self.problem, prior, recipe, self.stop)
        self.noise = Noise(seed, y.device, prior.power.dtype)
        self.latents = self.guess.latents
        self.log_widths = [q.log_std for q in self.guess.posteriors]
        self.betas = [recipe.steps.beta_at(scale) for scale in prior.spectrum.scales]
        self.term = data_term(self.problem, prior, self.betas)
        self.parts = parts_of(self.hierarchy(), recipe.steps.blocks, prior.separable)

    def hierarchy(self, stop=None):
        return Hierarchy(self.prior, len(self.y), self.guess.features, self.stop if stop is None else stop)

    def image_term(self):
        p = self.problem
        return ImageTerm(lambda h: p.decode(self.prior, h), p.likelihood, p.variance, self.betas)

    def objective(self, term=None, stop=None, kind=None):
        kind = kind or self.recipe.steps.objective
        return Objective(self.prior, self.hierarchy(stop), term or self.term, OBJECTIVES[kind], self.noise, 1)

    def prefix(self, latents=None, end=0):
        """The way down along the guess to latent ``end``."""
        if end == 0:
            return START
        with torch.no_grad():
            return self.hierarchy().descend(values(latents or self.latents), START, end).done

    def value(self, part, means, draws=None, term=None, kind=None):
        """The objective of a part of means ``part.first ..``, others along the guess; later ones are completed."""
        objective = self.objective(term, kind=kind)

        def choose(node):
            place = node.number - part.first
            if place >= len(means):
                return node.posterior
            return Gaussian(means[place], self.log_widths[node.number])

        def draw(node, mean):
            return draws[node.number - part.first]

        held = None if part.scale is None else self.guess.contributions
        found = objective.evaluate(choose, held, self.prefix(end=part.first), part.end, None if draws is None else draw)
        return objective.term.fit(found.contributions, part.scale).nats + sum(found.costs), found

    @torch.no_grad()
    def stepped(self, stop=None):
        """The candidate that the recipe's steps make of the guess, whether it is better or not."""
        objective = self.objective(stop=stop)
        guess = self.guess
        if stop is not None:
            guess = descend(self.prior, guess.features, stop)
        widths = [q.log_std for q in guess.posteriors]
        start = Candidate(guess, widths, judge(objective, self.parts, guess, widths))
        return refine(objective, self.parts, start, self.recipe.steps, Watch())

    @torch.no_grad()
    def improved(self):
        """Guess, reports and whether it is better than the first guess."""
        readings = (self.guess, None)
        return improve(self.problem, self.prior, self.recipe, readings, self.stop, self.noise, True, Watch())


__all__ = ["Setting", "recipe_of"]

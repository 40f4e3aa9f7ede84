"""Solving within a budget: the portions that networks take, what a gradient evaluates again, and running out."""

import pytest
import torch
from flat_recipes import recipe_of
from tiny import SIZE, images, reading_prior, tiny_network, tiny_prior

from iasolve.files import memory as files_memory
from iasolve.files.memory import default_memory, parse_memory
from iasolve.inference import solve
from iasolve.inference.memory import BudgetError, Cut, cut, halved
from iasolve.inference.passes import descend
from iasolve.operators import GaussianNoise, Identity
from iasolve.priors import HVAEPrior
from iasolve.priors.portions import Portion, in_portions, portions
from iasolve.problem.options import Options

FAST = recipe_of(steps=0)
STEPS = recipe_of(steps=3, views=2, objective="map", optimizer="lbfgs", blocks="whole")
WIDE = (1, 72, 56)  # 3 x 2 tiles
NOISE = GaussianNoise(0.1)


def measured(count=1, shape=WIDE[1:]):
    x = images(count, size=96)[..., : shape[0], : shape[1]]
    return x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("text", "count"),
    [(800, 800), ("1.5GB", 1_500_000_000), ("800 MiB", 800 * 2**20), ("2g", 2 * 10**9), (".5KB", 500), ("10b", 10)],
)
def test_sizes_are_read_as_people_write_them(text, count):
    assert parse_memory(text) == count


@pytest.mark.parametrize("wrong", ["much", "-1GB", "0", 0, -5, True, "1.5 XB", "", "1e9"])
def test_other_sizes_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=r"memory is .* expected bytes or a size"):
        solve(measured(), Identity(WIDE), tiny_prior(), noise=NOISE, recipe=FAST, memory=wrong)


def test_the_default_is_half_of_what_is_free_and_no_more_than_one_and_a_half_gigabytes(monkeypatch):
    for free, expected in ((100 * 10**9, 1_500_000_000), (10**9, 500_000_000), (None, 1_500_000_000)):
        monkeypatch.setattr(files_memory, "free_memory", lambda free=free: free)
        assert default_memory() == expected


def test_images_of_few_tiles_are_solved_together_and_those_of_many_in_portions():
    prior, plenty = tiny_prior(), {"memory": "100GB"}
    assert cut(prior, FAST, (SIZE, SIZE), Options(**plenty)) == Cut(8, Portion(8))
    assert cut(prior, FAST, (56, 56), Options(**plenty)) == Cut(2, Portion(8))
    assert cut(prior, FAST, (200, 200), Options(**plenty)) == Cut(1, Portion(8))
    assert cut(prior, FAST, (200, 200), Options(fit="field-of-view", **plenty)) == Cut(8, Portion(8))
    assert cut(prior, FAST, (SIZE, SIZE), Options(batch_size=3, **plenty)) == Cut(3, Portion(3))
    rows = portions(in_portions(prior, Portion(4)), 10)
    assert [list(range(10))[one] for one in rows] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_less_memory_means_fewer_tiles_and_gradients_that_evaluate_again():
    wide = HVAEPrior(tiny_network(widths=(64,) * 6), "wide", {})
    found = [
        cut(wide, STEPS, (400, 400), Options(memory=memory))
        for memory in (10**11, *range(900_000_000, 690_000_000, -(10**6)))
    ]
    assert found[0].portion == Portion(8, False)
    assert Portion(8, True) in [one.portion for one in found]
    sizes = [one.portion.tiles for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 8
    assert cut(wide, FAST, (400, 400), Options(memory="2GB")).portion == Portion(8, False)


def test_a_budget_that_is_too_small_says_what_would_do():
    with pytest.raises(
        BudgetError, match=r"0.10 GB, and an image of 72 x 56 pixels \(6 tiles\) takes about 0.50 GB"
    ) as e:
        solve(measured(), Identity(WIDE), tiny_prior(), noise=NOISE, recipe=FAST, memory="100MB")
    enough = str(e.value).split("memory of ")[1].split(",")[0]
    solve(measured(), Identity(WIDE), tiny_prior(), noise=NOISE, recipe=FAST, memory=enough, warn=False)
    with pytest.raises(BudgetError, match="give a smaller batch size"):
        solve(measured(), Identity(WIDE), tiny_prior(), noise=NOISE, recipe=FAST, memory="100MB", batch_size=4)


def test_a_way_down_in_portions_is_the_way_down():
    prior = tiny_prior(torch.float64)
    features = prior.encode(images(5, dtype=torch.float64), torch.ones(5, 2, 6, dtype=torch.float64))
    stop = torch.tensor([5, 3, 5, 0, 5])
    whole, parts = descend(prior, features, stop), descend(in_portions(prior, Portion(2)), features, stop)
    for name in ("latents", "contributions"):
        for a, b in zip(getattr(whole, name), getattr(parts, name), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(whole.offsets, parts.offsets, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("blocks", "objective"), [("whole", "expected"), ("scale", "variational"), ("latent", "map")])
@pytest.mark.slow
def test_what_is_evaluated_again_is_the_same_to_the_bit(blocks, objective):
    recipe = recipe_of(steps=2, objective=objective, blocks=blocks, samples=1)
    plan = {"noise": NOISE, "recipe": recipe, "warn": False}
    found = [
        solve(measured(), Identity(WIDE), in_portions(tiny_prior(), Portion(4, again)), **plan)
        for again in (False, True)
    ]
    assert torch.equal(found[0].image, found[1].image)
    assert torch.equal(found[0].std, found[1].std)
    whole = solve(measured(), Identity(WIDE), tiny_prior(), batch_size=64, **plan)
    torch.testing.assert_close(found[0].image, whole.image, rtol=0, atol=2e-3)


def test_pieces_of_a_stack_are_the_stack_to_the_bit():
    prior, operator = tiny_prior(), Identity((1, SIZE, SIZE))
    y = measured(10, (SIZE, SIZE))
    # its noise is estimated, image by image
    whole = solve(y, operator, prior, recipe=STEPS, warn=False)
    parts = [solve(part, operator, prior, recipe=STEPS, warn=False) for part in y.split(8)]
    assert torch.equal(whole.image, torch.cat([part.image for part in parts]))
    assert torch.equal(whole.sigma, torch.cat([part.sigma for part in parts]))


class Exhausted(Identity):
    """Runs out of memory over more than so many images, as a GPU does."""

    most = 2

    def to_grid(self, y):
        if len(y) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().to_grid(y)


def test_running_out_of_memory_halves_what_is_solved_at_a_time_and_goes_on():
    y, seen = measured(7, (SIZE, SIZE)), []
    operator = Exhausted((1, SIZE, SIZE))
    found = solve(y, operator, tiny_prior(), noise=NOISE, recipe=FAST, warn=False, callback=seen.append)
    plain = solve(y, Identity((1, SIZE, SIZE)), tiny_prior(), noise=NOISE, recipe=FAST, warn=False, batch_size=2)
    torch.testing.assert_close(found.image, plain.image, rtol=0, atol=1e-4)
    assert [status.image for status in seen if status.stage == "done"] == [2, 4, 6, 7]
    operator.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        solve(y, operator, tiny_prior(), noise=NOISE, recipe=FAST, warn=False)
    sizes, one = [], Cut(1, Portion(8))
    while one is not None:
        sizes.append(one.portion)
        one = halved(one, 1)
    assert sizes == [Portion(8), Portion(4, True), Portion(2, True), Portion(1, True)]


def test_running_out_of_memory_halves_the_strips_of_a_reader(monkeypatch):
    height = 300
    y, prior, asked = images(1, size=height)[..., :40], reading_prior(), []
    whole = solve(y, Identity((1, height, 40)), prior, noise=NOISE, recipe=FAST, warn=False)
    read = type(prior).read

    def exhausted(self, posterior, rows=None):
        asked.append(rows)
        if (rows or height) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return read(self, posterior, rows)

    monkeypatch.setattr(type(prior), "read", exhausted)
    found = solve(y, Identity((1, height, 40)), prior, noise=NOISE, recipe=FAST, warn=False)
    assert asked[:3] == [None, 150, 75]
    torch.testing.assert_close(found.image, whole.image, rtol=0, atol=1e-5)
    monkeypatch.setattr(type(prior), "read", lambda *_: exhausted(prior, None, height))
    with pytest.raises(torch.OutOfMemoryError):
        solve(y, Identity((1, height, 40)), prior, noise=NOISE, recipe=FAST, warn=False)


def test_a_reader_takes_strips_where_the_whole_image_is_too_much():
    prior, quick = reading_prior(), FAST.changed(views=1)
    assert cut(prior, quick, (SIZE, SIZE), Options(memory="2GB")) == Cut(8, Portion(8))
    shape = (4000, 1000)
    rows = [
        cut(prior, quick, shape, Options(memory=memory)).portion.rows
        for memory in range(3 * 10**9, 1_340_000_000, -(10**7))
    ]
    assert rows[0] is None
    told = [n for n in rows if n is not None]
    assert told == sorted(told, reverse=True)
    assert len(set(told)) > 2
    with pytest.raises(BudgetError, match=r"takes about .* give memory of"):
        cut(prior, quick, shape, Options(memory="1GB"))


def test_an_image_read_in_strips_is_the_image_to_rounding(monkeypatch):
    """Through views that are mirrored, and further passes."""
    prior, passes = reading_prior(), FAST.changed(views=2, passes={"count": 2})
    y = measured(2, (96, 40))
    whole = solve(y, Identity((1, 96, 40)), prior, noise=NOISE, recipe=passes, warn=False)
    read, asked = type(prior).read, []

    def spied(self, posterior, rows=None):
        asked.append(rows)
        return read(self, posterior, rows)

    monkeypatch.setattr(type(prior), "read", spied)
    monkeypatch.setattr("iasolve.inference.memory._cut_rows", lambda taken, height, images, memory: (images, 8))
    strips = solve(y, Identity((1, 96, 40)), prior, noise=NOISE, recipe=passes, warn=False)
    assert set(asked) == {8}
    torch.testing.assert_close(strips.image, whole.image, rtol=0, atol=1e-5)
    torch.testing.assert_close(strips.std, whole.std, rtol=1e-3, atol=0)

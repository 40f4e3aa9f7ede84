"""What a solution takes of the memory, and how it is cut so that it keeps to a budget.

A solution takes what the program itself does, some arrays of the image's size, what is kept of every tile of the image
at work (features, latents and the optimizer's history of them), and the activations of one portion of tiles
(:mod:`iasolve.priors.portions`), or the reader's maps of the image, or of a strip of it. The activations are counted
for the network at hand: one tile is sent through it, and what a gradient would keep is added up.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from iasolve.files.memory import default_memory, parse_memory
from iasolve.inference.view import descends, reads
from iasolve.networks import ReaderConfig
from iasolve.priors import Prior
from iasolve.priors.hierarchy import Hierarchy, posterior_mean
from iasolve.priors.portions import Portion, in_portions
from iasolve.problem.geometry import tiles_of
from iasolve.problem.measurement import MARGIN, Measurement
from iasolve.problem.options import Options
from iasolve.recipe import Recipe

__all__ = ["BudgetError", "Cut", "as_memory_allows", "cut", "halved", "tile_of"]

T = TypeVar("T")

PROGRAM = 500_000_000
"""Bytes: Python, torch and its compiled convolutions, and a prior's weights (measured: 0.45 to 0.5 GB)."""

BYTES_PER_PIXEL = 256
"""Of an image's channel: spectra, variances and conjugate gradients."""

READ_PER_PIXEL = 200
"""Of an image's channel, where the reader alone is at work: its network's maps come on top."""

KEPT_PER_PIXEL = 40
"""Of an image's channel, where the image is solved in windows: estimates of its noise, measurement, result, error."""

WINDOWS = (1024, 512, 256)
"""Sides of a window, in pixels: of those that the reader need not read in strips, the largest that fits."""

LEAST_ROWS = 64
"""Of a strip that the reader is given: fewer take hardly less, with the rows around them that it sees."""

LATENTS_KEPT = 16
"""Arrays of the latents' size besides an optimizer's: the guess and its rivals, with means and widths."""

TILES, TILES_CUDA = 8, 128
"""Tiles at a time where memory allows. On a processor more are not faster (measured: 4 to 16)."""


class BudgetError(MemoryError):
    """The budget does not suffice for a single tile at a time."""


class Cut(NamedTuple):
    """How measurements of one image size are solved: images at a time, and the portions of tiles that networks take.

    ``window``: rows and columns of an image that are solved at a time; None: all.
    """

    images: int
    portion: Portion
    window: tuple[int, int] | None = None


class Tile(NamedTuple):
    """Bytes of a tile: activations that a gradient keeps, the encoder's features, and the latents."""

    activations: int
    features: int
    latents: int


_TILES: weakref.WeakKeyDictionary[Prior, Tile] = weakref.WeakKeyDictionary()


def cut(
    prior: Prior,
    recipe: Recipe,
    shape: tuple[int, int],
    options: Options,
    *,
    least: Callable[[], int | None] = lambda: None,
) -> Cut:
    """How images of ``shape`` are cut into what is solved at a time.

    Results depend on the number of tiles that networks take at a time, to rounding, but on nothing else of the budget,
    unless an image is so large that it is solved in windows. ``least``: the least side of these, asked only then; None
    where there can be none.

    Raises
    ------
    BudgetError
        Where one tile at a time is too much.
    """
    cuda = prior.device.type == "cuda"
    if options.memory is not None:
        memory = parse_memory(options.memory)
    else:
        memory = torch.cuda.mem_get_info(prior.device)[0] if cuda else default_memory()
    try:
        return _cut(prior, recipe, shape, options, memory)
    except BudgetError:
        smallest = least()
        if smallest is None:
            raise
        left = memory - KEPT_PER_PIXEL * prior.channels * math.prod(shape)
        sides = [side for side in WINDOWS if side >= smallest]
        for side in sides:
            window = (min(shape[0], side), min(shape[1], side))
            with contextlib.suppress(BudgetError):
                found = _cut(prior, recipe, window, options, left)
                if found.portion.rows is None or side == sides[-1]:
                    return found._replace(images=1, window=window)
        raise


def _cut(prior: Prior, recipe: Recipe, shape: tuple[int, int], options: Options, memory: int) -> Cut:
    tiles = tiles_of(prior.spectrum.size, shape, options.fit, options.overlap)
    cuda = prior.device.type == "cuda"
    wanted = options.batch_size or (TILES_CUDA if cuda else TILES)
    program = 0 if cuda else PROGRAM
    found, rows = Cut(max(1, wanted // tiles), Portion(wanted)), None
    if descends(prior, recipe):
        found = _cut_tiles(prior, recipe, shape, options, Budget(memory, program, tiles, wanted))
    reader = getattr(prior, "reader", None)
    images = found.images
    if reader is not None and reads(prior, recipe):
        taken = partial(_read_bytes, reader.config, 2 if getattr(prior, "halves", False) else 4, shape)
        images, rows = _cut_rows(taken, shape[0], images, memory - program)
        if rows == 0:
            least = program + taken(LEAST_ROWS)
            raise BudgetError(_words(least, memory, shape, tiles, options))
    return found._replace(images=images, portion=found.portion._replace(rows=rows))


class Budget(NamedTuple):
    """Bytes that may be taken, bytes of the program, tiles of an image, and tiles wanted at a time."""

    memory: int
    program: int
    tiles: int
    wanted: int


def _read_bytes(config: ReaderConfig, value: int, shape: tuple[int, int], rows: int) -> int:
    """What reading an image in strips of so many rows takes; ``value``: bytes of one in the reader's maps."""
    height, width = (max(n, config.multiple) + 4 * MARGIN for n in shape)
    strip = height if rows >= height else min(height, rows + 2 * config.reach)
    return width * (READ_PER_PIXEL * config.real_channels * height + int(value * config.kept_per_pixel * strip))


def _cut_rows(taken: Callable[[int], int], height: int, images: int, memory: int) -> tuple[int, int | None]:
    """Images at a time for the reader, and rows of a strip: None, all; 0, even the least take too much."""
    while images > 1 and images * taken(height) > memory:
        images //= 2
    if images * taken(height) <= memory:
        return images, None
    rows = height
    while rows > LEAST_ROWS and taken(rows) > memory:
        rows = max(LEAST_ROWS, rows // 2)
    return 1, rows if taken(rows) <= memory else 0


def _cut_tiles(prior: Prior, recipe: Recipe, shape: tuple[int, int], options: Options, budget: Budget) -> Cut:
    """Images at a time for the hierarchy, and the portions of tiles."""
    tiles, memory = budget.tiles, budget.memory
    tile = tile_of(prior)
    pixels = prior.channels * math.prod(max(n, prior.spectrum.size) for n in shape)
    history = 2 * recipe.steps.most if recipe.takes_steps else 0

    def needed(images: int, activations: int) -> int:
        kept = tile.features + tile.latents * (LATENTS_KEPT + history)
        return images * (BYTES_PER_PIXEL * pixels + tiles * kept) + activations * tile.activations + budget.program

    least = options.batch_size or 1
    size = budget.wanted
    while size > least and needed(max(1, size // tiles), size) > memory:
        size = max(least, size // 2)
    images = max(1, size // tiles)
    busy = min(size, images * tiles)
    if needed(images, busy) > memory:
        raise BudgetError(_words(needed(images, busy), memory, shape, tiles, options))
    again = recipe.takes_steps and needed(images, images * tiles) > memory
    return Cut(images, Portion(size, again))


def as_memory_allows(work: Callable[[Measurement, Prior], T], batch: Measurement, prior: Prior, size: Cut) -> list[T]:
    """``work`` on a batch; where memory runs out, on halves of it, or with half the tiles and half the rows at a time.

    Raises
    ------
    torch.OutOfMemoryError
        Where a single tile, or the lowest strip, is too much.
    """
    try:
        return [work(batch, in_portions(prior, size.portion))]
    except torch.OutOfMemoryError:
        height = 0 if getattr(prior, "reader", None) is None else batch.operator.in_shape[1]
        smaller = halved(size, len(batch.y), height)
        if smaller is None:
            raise
    torch.cuda.empty_cache()
    return [found for part in batch.batches(smaller.images) for found in as_memory_allows(work, part, prior, smaller)]


def halved(size: Cut, images: int, height: int = 0) -> Cut | None:
    """The cut to go on with where memory ran out over so many images: half of them, or half of what is taken at a time.

    ``height``: rows of an image that a reader reads, in strips; 0: there is none.
    """
    if images > 1:
        return Cut((images + 1) // 2, size.portion)
    tiles, rows = size.portion.tiles, size.portion.rows
    strip = min(rows or height, height)
    if tiles == 1 and strip <= LEAST_ROWS:
        return None
    if strip > LEAST_ROWS:
        rows = max(LEAST_ROWS, (strip + 1) // 2)
    return Cut(1, Portion((tiles + 1) // 2, True, rows))


def _words(needed: int, memory: int, shape: tuple[int, int], tiles: int, options: Options) -> str:
    image = f"an image of {shape[0]} x {shape[1]} pixels" + (f" ({tiles} tiles)" if tiles > 1 else "")
    how = f"{options.batch_size} tiles at a time" if options.batch_size else "one tile at a time"
    advice = "a smaller batch size, or " if (options.batch_size or 1) > 1 else ""
    return (
        f"the memory budget is {memory / 1e9:.2f} GB, and {image} takes about {needed / 1e9:.2f} GB with {how}, the "
        f"program itself included. Expected at least that: give {advice}memory of {math.ceil(needed / 1e8) / 10:g}GB, "
        "or solve parts of the image"
    )


def tile_of(prior: Prior) -> Tile:
    """What a tile takes of a prior's networks; counted once a prior, before its first solution."""
    if prior not in _TILES:
        _TILES[prior] = _measured(prior)
    return _TILES[prior]


def _measured(prior: Prior) -> Tile:
    """Send one blank tile through all networks, and add up what a gradient would keep."""
    size, scales = prior.spectrum.size, len(prior.spectrum.scales)
    dtype = torch.promote_types(prior.power.dtype, torch.complex32) if prior.spectrum.is_complex else prior.power.dtype
    image = torch.zeros((1, prior.channels, size, size), device=prior.device, dtype=dtype)
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.ndim and len(tensor) == 1:  # of the tile: weights are there anyway
            kept[storage.data_ptr()] = tensor
        return tensor

    with torch.no_grad():
        features = prior.encode(image, image.real.new_ones((1, 2, scales)))
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        moving = [feature.clone().requires_grad_(True) for feature in features]
        way = Hierarchy(prior, 1, moving).descend(posterior_mean)
        prior.contributions(list(way.done.contexts))
    return Tile(
        sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
        sum(feature.nbytes for feature in features),
        sum(z.nbytes for z in way.latents),
    )

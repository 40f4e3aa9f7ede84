"""The plugin of napari: denoise and deblur the layer that is chosen, with an error bar as a layer of its own.

napari makes a form of each function's parameters. The work is done in a thread of its own, so that the window answers.
"""

# annotations are values here: the form is made of them, and only napari's own may be text
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import napari

    from iasolve.operators import LinearOperator

__all__ = ["deblur", "denoise", "solved_layers"]

AUTO = "auto"
"""In place of a prior's name: the image chooses."""

Layers = list[tuple[Any, dict[str, Any], str]]
"""Layers as napari takes them: values, properties, kind."""


def _priors(_: object = None) -> tuple[str, ...]:
    from iasolve.priors import list_priors

    return (AUTO, *list_priors())


_Prior = Annotated[str, {"choices": _priors, "tooltip": "What images are expected to look like"}]
_Sigma = Annotated[float, {"min": 0.0, "max": 1e9, "label": "noise level", "tooltip": "0: estimated from the image"}]
_Samples = Annotated[int, {"min": 0, "max": 64, "label": "samples", "tooltip": "For the error bar; 0: none"}]


def denoise(
    layer: "napari.layers.Image", prior: _Prior = AUTO, sigma: _Sigma = 0.0, samples: _Samples = 8
) -> "napari.qt.threading.FunctionWorker[list[napari.types.LayerDataTuple]]":
    """Remove noise from an image or a stack of images."""
    from iasolve.operators import Identity

    return _in_thread(layer, Identity, "denoise", prior, sigma, samples)


def deblur(
    layer: "napari.layers.Image",
    width: Annotated[float, {"min": 0.1, "max": 100.0, "tooltip": "Standard deviation of the blur in pixels"}] = 2.0,
    prior: _Prior = AUTO,
    sigma: _Sigma = 0.0,
    samples: _Samples = 8,
) -> "napari.qt.threading.FunctionWorker[list[napari.types.LayerDataTuple]]":
    """Sharpen an image or a stack of images that a Gaussian has blurred."""
    from iasolve.operators import CircularBlur, gaussian_kernel

    return _in_thread(layer, lambda shape: CircularBlur(gaussian_kernel(width), shape), "deblur", prior, sigma, samples)


def _in_thread(
    layer: Any,
    operator: Callable[[tuple[int, int, int]], "LinearOperator"],
    recipe: str,
    prior: str,
    sigma: float,
    samples: int,
) -> Any:
    from napari.qt.threading import thread_worker

    if layer is None:
        raise ValueError("no layer is chosen: open an image first")
    values, properties = np.asarray(layer.data), {"scale": layer.scale, "translate": layer.translate}
    if layer.rgb:  # of a picture the colours follow the pixels, and opacity is not solved for
        values, properties = values[..., :3], {**properties, "rgb": True}
    name, rgb = layer.name, bool(layer.rgb)

    @thread_worker(start_thread=False, progress=True)  # type: ignore[untyped-decorator]
    def work() -> Layers:
        found = solved_layers(values, operator, recipe, prior, rgb=rgb, sigma=sigma, samples=samples)
        return [(some, {**more, **properties, "name": f"{name}, {more['name']}"}, kind) for some, more, kind in found]

    return work()


def solved_layers(
    values: NDArray[Any],
    operator: Callable[[tuple[int, int, int]], "LinearOperator"],
    recipe: str,
    prior: str,
    *,
    rgb: bool = False,
    sigma: float = 0.0,
    samples: int = 8,
) -> Layers:
    """Solve the images of a layer.

    Parameters
    ----------
    values : ndarray
        ``(..., H, W)`` grey, or ``(..., H, W, 3)`` colours.
    operator : callable
        From a shape ``(C, H, W)`` to the operator.
    recipe, prior : str
        Names; of priors also ``"auto"``, with which the images choose.
    rgb : bool
        Whether the last axis is colours.
    sigma : float
        Noise level in the layer's units; 0: estimated.
    samples : int
        For the error bar.

    Returns
    -------
    list of tuple
        The result and, with samples, its error bar, each with its properties and the kind of its layer. Colours of a
        picture of whole numbers are rounded to its type, as napari shows them.

    Raises
    ------
    ValueError
        When the prior is over images of another kind.
    """
    import iasolve
    from iasolve.inference import choose_prior
    from iasolve.operators import GaussianNoise

    if values.ndim < 2 + rgb:
        raise ValueError(f"a layer of shape {values.shape}: expected images (..., H, W)")
    planes = np.moveaxis(values, -1, -3) if rgb else values[..., None, :, :]
    channels, size = planes.shape[-3], planes.shape[-2:]
    noise = GaussianNoise(sigma) if sigma > 0 else None
    y = planes.astype(np.float32).reshape(-1, channels, *size)
    auto = prior == AUTO
    loaded = choose_prior(y, operator(y.shape[1:]), noise=noise).prior if auto else iasolve.load_prior(prior)
    if loaded.spectrum.is_complex:
        raise ValueError(f"prior {prior!r} is over complex images, a layer holds real ones: choose another")
    if loaded.channels not in (1, channels):
        raise ValueError(f"prior {prior!r} is over images of {loaded.channels} channels, the layer has {channels}")
    # a prior over grey images solves the colours one by one
    y = y.reshape(-1, loaded.channels, *size)
    result = iasolve.solve(y, operator(y.shape[1:]), loaded, noise=noise, recipe=recipe, samples=samples)

    def shaped(images: NDArray[Any]) -> NDArray[Any]:
        whole = images.reshape(planes.shape)
        return np.moveaxis(whole, -3, -1) if rgb else whole[..., 0, :, :]

    facts = {"iasolve": iasolve.__version__, "prior": loaded.name, "recipe": recipe, "sigma": result.sigma.tolist()}
    image = shaped(result.image)
    if rgb and values.dtype.kind in "ui":
        limits = np.iinfo(values.dtype)
        image = np.clip(np.rint(image), limits.min, limits.max).astype(values.dtype)
    layers: Layers = [(image, {"name": recipe, "metadata": facts}, "image")]
    if result.std is not None:
        std = shaped(result.std)
        std = std.mean(-1) if rgb else std
        layers.append((std, {"name": "error bar", "metadata": facts, "colormap": "magma"}, "image"))
    return layers

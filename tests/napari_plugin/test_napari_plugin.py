"""The plugin of napari: layers from arrays, and, where napari is installed, its forms without a screen."""

import os
from pathlib import Path

import numpy as np
import pytest
from cli_fixtures import heads, tiny

from iasolve.napari_plugin import solved_layers
from iasolve.operators import Identity
from iasolve.priors import list_priors
from iasolve.samples import load_samples

__all__ = ["heads", "tiny"]  # fixtures
RNG = np.random.default_rng(0)
# the tiny prior was never trained: heads are unlike its images
pytestmark = pytest.mark.filterwarnings("ignore::iasolve.UnlikePriorWarning")


def test_a_stack_has_a_result_and_an_error_bar(heads, tiny):
    noisy = heads[:2] + RNG.normal(0, 20, heads[:2].shape)
    (image, facts, kind), (std, bar, _) = solved_layers(noisy, Identity, "fast", str(tiny), sigma=20.0, samples=2)
    assert image.shape == std.shape == noisy.shape
    assert (kind, facts["metadata"]["sigma"], bar["name"]) == ("image", [20.0, 20.0], "error bar")
    assert np.mean((image - heads[:2]) ** 2) < np.mean((noisy - heads[:2]) ** 2)


def test_a_picture_keeps_its_colours_and_its_type(heads, tiny):
    picture = np.stack([heads[0], heads[1], heads[2]], -1).round().astype(np.uint8)
    ((image, _, _),) = solved_layers(picture, Identity, "fast", str(tiny), rgb=True, sigma=1.0, samples=0)
    assert (image.shape, image.dtype) == (picture.shape, np.uint8)
    # colours are solved one by one, each where it was
    (red, _, _), *_ = solved_layers(picture[..., 0], Identity, "fast", str(tiny), sigma=1.0, samples=0)
    np.testing.assert_allclose(image[..., 0], red.clip(0, 255), atol=0.51)


def test_images_choose_their_prior():
    head = load_samples().images[:1].astype(np.float32)
    noisy = head + RNG.normal(0, 12, head.shape)
    ((image, facts, _),) = solved_layers(noisy, Identity, "fast", "auto", sigma=12.0, samples=0)[:1]
    assert facts["metadata"]["prior"] in list_priors()
    assert np.mean((image - head) ** 2) < np.mean((noisy - head) ** 2)


def test_what_cannot_be_solved_is_said(tiny):
    with pytest.raises(ValueError, match="complex images"):
        solved_layers(np.ones((8, 8)), Identity, "fast", "mri-complex-128")
    with pytest.raises(ValueError, match="3 channels, the layer has 1"):
        solved_layers(np.ones((8, 8)), Identity, "fast", "cifar10")
    with pytest.raises(ValueError, match=r"expected images \(\.\.\., H, W\)"):
        solved_layers(np.ones(8), Identity, "fast", str(tiny))


def test_the_manifest_names_functions_that_exist():
    pytest.importorskip("npe2", reason="needs the extra napari")
    from npe2 import PluginManifest

    import iasolve

    manifest = PluginManifest.from_file(Path(iasolve.__file__).with_name("napari.yaml"))
    manifest.validate_imports()
    assert [widget.display_name for widget in manifest.contributions.widgets] == ["Denoise", "Deblur"]


def test_the_form_solves_the_open_layer_without_a_screen(heads, tiny, monkeypatch):
    pytest.importorskip("napari", reason="needs the extra napari")
    monkeypatch.setitem(os.environ, "QT_QPA_PLATFORM", "offscreen")
    from magicgui import magicgui
    from napari.components import ViewerModel
    from napari.layers import Image
    from qtpy.QtWidgets import QApplication

    from iasolve import napari_plugin

    application = QApplication.instance() or QApplication([])
    monkeypatch.setattr(napari_plugin, "_priors", lambda _=None: (str(tiny),))
    viewer = ViewerModel()
    layer = Image(heads[:2] + RNG.normal(0, 20, heads[:2].shape), name="heads", scale=(2, 1, 1))
    viewer.add_layer(layer)
    form = magicgui(napari_plugin.denoise, layer={"choices": [layer]}, prior={"choices": [str(tiny)]})
    assert [field.name for field in form][:4] == ["layer", "prior", "sigma", "samples"]
    done = []
    worker = form(layer=layer, prior=str(tiny), sigma=20.0, samples=2)
    worker.returned.connect(done.append)
    worker.start()
    while not done:
        application.processEvents()
    (image, facts, _), (_, bar, _) = done[0]
    assert image.shape == layer.data.shape
    assert (facts["name"], bar["name"]) == ("heads, denoise", "heads, error bar")
    np.testing.assert_array_equal(facts["scale"], [2, 1, 1])

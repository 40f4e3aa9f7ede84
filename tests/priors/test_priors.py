"""Weights on disk: what is kept, what is detected, and that nothing is ever unpickled."""

import hashlib
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file
from tiny import images, tiny_network, tiny_prior

from iasolve import HVAEPrior, Prior, PriorError, list_priors, load_prior
from iasolve.priors import find_prior, read_card, save_checkpoint, verify
from iasolve.priors.likeness import image_elbo

CARD = {"name": "tiny", "licence": "CC0", "training": {"images": 12}}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(tiny_network(), CARD, path)
    return path


def rewrite_card(path, **changes):
    card = json.loads(path.with_suffix(".json").read_text())
    card |= changes
    path.with_suffix(".json").write_text(json.dumps({k: v for k, v in card.items() if v is not ...}))


def test_a_prior_survives_saving_in_half_precision(saved):
    network, prior = tiny_network(), load_prior(saved)
    assert isinstance(prior, HVAEPrior)
    assert isinstance(prior, Prior)
    assert (prior.name, prior.path) == ("tiny", saved)
    assert prior.network.config == network.config
    assert not prior.network.training
    assert not any(p.requires_grad for p in prior.network.parameters())
    for name, value in prior.network.state_dict().items():
        original = network.state_dict()[name]
        assert value.dtype == torch.float32
        if name in ("power", "ring_std", "sigma_x"):
            assert torch.equal(value, original)
        else:
            assert torch.equal(value, original.half().float())
    x = images(2)
    torch.testing.assert_close(image_elbo(prior, x), image_elbo(tiny_prior(), x), rtol=1e-2, atol=1e-2)
    tensors = load_file(saved)
    assert {t.dtype for t in tensors.values()} == {torch.float16, torch.float32}
    assert saved.stat().st_size < 2.2 * sum(p.numel() for p in network.parameters()) + 4 * 32**2 + 50_000


def test_loading_draws_no_random_numbers(saved):
    before = torch.get_rng_state()
    load_prior(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_saving_again_gives_the_same_bytes(saved, tmp_path):
    other = tmp_path / "other.safetensors"
    save_checkpoint(load_prior(saved).network, CARD, other)
    assert other.read_bytes() == saved.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["other.json", "other.safetensors", "tiny.json", "tiny.safetensors"]
    )


def test_the_card(saved):
    card = read_card(saved)
    network = tiny_network()
    assert card["architecture"] == network.config.to_dict()
    assert card["parameters"] == sum(p.numel() for p in network.parameters())
    assert card["sha256"] == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert CARD.items() <= card.items()
    assert verify(saved) == card == load_prior(saved).card


@pytest.mark.parametrize("place", [0.0, 0.3, 0.999])
def test_a_flipped_bit_is_detected(saved, place):
    content = bytearray(saved.read_bytes())
    content[int(place * len(content))] ^= 1
    saved.write_bytes(content)
    for read in (verify, load_prior):
        with pytest.raises(PriorError, match="damaged"):
            read(saved)


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_a_truncated_file_is_detected_even_with_a_card_that_matches(saved, keep):
    content = saved.read_bytes()[:keep]
    saved.write_bytes(content)
    with pytest.raises(PriorError, match="damaged"):
        load_prior(saved)
    rewrite_card(saved, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(PriorError, match="do not fit their card"):
        load_prior(saved)


def test_missing_parts_are_named(saved):
    card = saved.with_suffix(".json").read_bytes()
    saved.with_suffix(".json").unlink()
    with pytest.raises(PriorError, match=r"no card .*tiny\.json"):
        load_prior(saved)
    saved.with_suffix(".json").write_bytes(card)
    saved.unlink()
    with pytest.raises(PriorError, match=r"no weights .*tiny\.safetensors"):
        verify(saved)
    with pytest.raises(PriorError, match=r"no file .*tiny\.safetensors"):
        load_prior(saved)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "5", "null", '{"format": 99}', "{}", b"\xff\xfe\x00".decode("latin1")]
)
def test_cards_that_are_not_understood_are_refused(saved, content):
    saved.with_suffix(".json").write_text(content, encoding="latin1")
    with pytest.raises(PriorError, match=r"tiny\.json"):
        load_prior(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": ...},
        {"architecture": None},
        {"architecture": 5},
        {"architecture": []},
        {"architecture": {}},
        {"architecture": {"size": 32}},
        {"architecture": {"colour": "blue"}},
        {"sha256": ...},
        {"sha256": 5},
    ],
)
def test_damaged_cards_are_refused(saved, changes):
    rewrite_card(saved, **changes)
    with pytest.raises(PriorError):
        load_prior(saved)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"validation": [1, 2]}, "card.validation"),
        ({"validation": "good"}, "card.validation"),
        ({"training": 3}, "card.training"),
        ({"shift": [1]}, "card.shift"),
        ({"shift": "x"}, "card.shift .*got 'x'"),
        ({"nonnegative": "yes"}, "card.nonnegative"),
        ({"name": "../../x"}, r"card.name .*got '\.\./\.\./x'"),
    ],
)
def test_values_of_a_card_are_checked(saved, changes, words):
    rewrite_card(saved, **changes)
    with pytest.raises(PriorError, match=f"tiny.json is damaged: {words}"):
        load_prior(saved)


def test_a_card_that_is_too_deep_is_refused(saved):
    saved.with_suffix(".json").write_text('{"a":' * 100_000)
    with pytest.raises(PriorError, match=r"tiny\.json"):
        load_prior(saved)


def test_an_architecture_too_large_for_any_memory_is_refused_before_it_is_built(saved):
    rewrite_card(saved, architecture=tiny_network().config.to_dict() | {"widths": [10**6] * 6})
    with pytest.raises(PriorError, match=r"do not fit their card: its widths is .* more than"):
        load_prior(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"widths": [24] * 6},
        {"size": 64},
        {"size": "32"},
        {"layers": [1, 1, 2, 2, 2, 2]},
        {"grid_cap": 8},
        {"latents": None},
    ],
)
def test_weights_of_another_architecture_are_refused(saved, changes):
    rewrite_card(saved, architecture=tiny_network().config.to_dict() | changes)
    with pytest.raises(PriorError, match="do not fit their card"):
        load_prior(saved)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("with_torch", [False, True])
def test_a_pickle_is_refused_and_not_run(tmp_path, with_torch):
    path, mark = tmp_path / "trap.safetensors", tmp_path / "sprung"
    if with_torch:
        torch.save({"weight": Trap(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(mark)))
    path.with_suffix(".json").write_text(
        json.dumps(
            {
                "format": 1,
                "architecture": tiny_network().config.to_dict(),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        )
    )
    with pytest.raises(PriorError):
        load_prior(path)
    assert not mark.exists()


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(PriorError) as caught:
        load_prior("no-such-prior")
    assert "no-such-prior" in str(caught.value)
    for known in list_priors():
        assert known in str(caught.value)
    with pytest.raises(PriorError, match=r"NAME\.json"):
        load_prior(tmp_path / "none.safetensors")
    with pytest.raises(PriorError, match="safetensors"):
        find_prior(tmp_path)


@pytest.mark.parametrize("name", list_priors())
def test_bundled_priors_are_whole(name):
    path = find_prior(name)
    card = verify(path)
    assert card["name"] == name
    assert path.stat().st_size <= 25_000_000
    own = ("mirrors", "calibrated") if card["kind"] == "reader" else ("sigma_x", "ring_power", "latents")
    for key in ("data", "training", "validation", "architecture", *own):
        assert key in card
    assert card["data"]["licence"]


def test_a_copy_in_another_precision_leaves_the_original_alone():
    prior = tiny_prior()
    double = prior.to(dtype=torch.float64)
    assert (prior.dtype, double.dtype) == (torch.float32, torch.float64)
    assert double.network is not prior.network
    x = images(1)
    torch.testing.assert_close(image_elbo(double, x.double()).float(), image_elbo(prior, x), rtol=1e-4, atol=1e-4)


def test_likeness_tells_images_from_noise():
    prior, x = tiny_prior(), images(4)
    noise = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert (image_elbo(prior, x) > image_elbo(prior, noise)).all()

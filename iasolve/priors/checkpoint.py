"""Weights on disk: a ``.safetensors`` file (never pickled) and a JSON card beside it.

The card names the architecture, the data behind the weights, how far training got, and the SHA-256 of the
weights: a changed byte is detected on loading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch.overrides import TorchFunctionMode

from iasolve.files.atomic import atomic_write, write_together
from iasolve.files.text import parse_json, read_text
from iasolve.networks import HVAE, NetworkConfig, Reader
from iasolve.tables import Amount, FileName, Flag, Number, Positive, Text, described

__all__ = [
    "ARCHITECTURES",
    "FORMAT",
    "PriorError",
    "filled",
    "load_checkpoint",
    "read_card",
    "save_checkpoint",
    "sha256_of",
    "verify",
]

FORMAT = 1
"""Version of the card; raised when an old reader could misread a new card."""


def _hvae(architecture: dict[str, Any]) -> HVAE:
    return HVAE(NetworkConfig.from_dict(architecture))


ARCHITECTURES: dict[str, Callable[[dict[str, Any]], HVAE]] = {"separable": _hvae, "vanilla": _hvae}
"""From the decoder that a card's architecture names, and that architecture, to the untrained network.

Another architecture is an entry here and a network with the methods of :class:`iasolve.networks.HVAE`.
"""


class PriorError(Exception):
    """A prior that is missing, damaged or not understood.

    Examples
    --------
    >>> import iasolve
    >>> try:
    ...     iasolve.load_prior("knees")
    ... except PriorError as error:
    ...     print(str(error)[:16])
    no prior 'knees'
    """


class _Read(BaseModel):
    """Types of what iasolve reads; cards may hold more, and training writes NaN where it diverged."""

    model_config = ConfigDict(extra="allow")


class _CoarseRings(_Read):
    mean: list[Number]
    std: list[Positive]
    largest_distance: Positive | None = None


class _Validation(_Read):
    elbo: Annotated[float, Field(strict=True)] | None = None
    elbo_lowest: Annotated[float, Field(strict=True)] | None = None
    coarse_rings: _CoarseRings | None = None
    edge_share_largest: Positive | None = None


class _Card(_Read):
    name: FileName = "unnamed"
    kind: Text = ""
    architecture: dict[str, Any] = {}
    nonnegative: Flag = False
    shift: Amount = 0.0
    mirrors: list[Literal[-2, -1]] = []
    parameters: Annotated[int, Field(strict=True, ge=0)] = 0
    training: dict[str, Any] = {}
    validation: _Validation = _Validation()


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_checkpoint(network: HVAE | Reader, card: dict[str, Any], path: Path) -> None:
    """Write ``path`` (``NAME.safetensors``, weights in half precision) and ``NAME.json``.

    Parameters
    ----------
    network : HVAE or Reader
        Its parameters are stored as float16, its statistics (buffers) as float32.
    card : dict
        Everything but the architecture, the format and the hash, which are added here.
    path : Path
        Ends in ``.safetensors``.
    """
    parameters = {name for name, _ in network.named_parameters()}
    tensors = {
        name: value.detach().cpu().to(torch.float16 if name in parameters else torch.float32).contiguous()
        for name, value in network.state_dict().items()
    }
    content = save(tensors)
    full = {
        "format": FORMAT,
        "architecture": network.config.to_dict(),
        "parameters": sum(p.numel() for p in network.parameters()),
        **card,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    card_bytes = (json.dumps(full, indent=1) + "\n").encode()
    with write_together():  # or a crash in between would leave weights beside the card of others
        for target, data in ((path, content), (path.with_suffix(".json"), card_bytes)):
            with atomic_write(target) as stream:
                stream.write(data)


def read_card(path: Path) -> dict[str, Any]:
    """The card of the weights at ``path`` (``.safetensors``).

    Raises
    ------
    PriorError
        When it is missing, not JSON, or of an unknown format.
    """
    card_path = path.with_suffix(".json")
    try:
        card = parse_json(read_text(card_path))
    except FileNotFoundError:
        raise PriorError(f"no card {card_path}: a prior is a pair NAME.safetensors and NAME.json") from None
    except (OSError, ValueError) as error:
        raise PriorError(f"the card {card_path} cannot be read: {error}") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise PriorError(f"the card {card_path} has format {found!r}; this version of iasolve reads format {FORMAT}")
    try:
        _Card(**card)
    except ValidationError as error:
        problem = described(error, "card", list(_Card.model_fields))
        raise PriorError(f"the card {card_path} is damaged: {problem}; export the prior again") from None
    return card


def verify(path: Path) -> dict[str, Any]:
    """Check the weights against their card and return the card.

    Raises
    ------
    PriorError
        When a file is missing or the SHA-256 differs.
    """
    card = read_card(path)
    if not path.is_file():
        raise PriorError(f"no weights {path}, though its card is there: fetch or export the prior again")
    found = sha256_of(path)
    if found != card.get("sha256"):
        raise PriorError(
            f"the weights {path} are damaged: SHA-256 is {found[:12]}.., the card says "
            f"{str(card.get('sha256'))[:12]}..; reinstall iasolve or export the prior again"
        )
    return card


def load_checkpoint(path: Path) -> tuple[HVAE, dict[str, Any]]:
    """The network (float32, evaluation mode) and its card.

    Raises
    ------
    PriorError
        When a file is missing, damaged, or does not fit the architecture that the card describes.
    """
    card = verify(path)
    try:
        tensors = load(path.read_bytes())
        architecture = card.get("architecture")
        if not isinstance(architecture, dict):
            raise ValueError("the card's architecture is no table")
        decoder = architecture.get("decoder", "separable")
        if decoder not in ARCHITECTURES:
            raise ValueError(f"its decoder is {decoder!r}, this version of iasolve has {', '.join(ARCHITECTURES)}")
        _require_size(architecture, tensors)
        network = filled(lambda: ARCHITECTURES[decoder](architecture), tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PriorError(f"the weights {path} do not fit their card: {error}") from None
    return network, card


N = TypeVar("N", HVAE, Reader)


class _NothingDrawn(TorchFunctionMode):
    """Leaves parameters as they are found in memory: no function of ``torch.nn.init`` gives them first values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        return given.get("tensor") if getattr(func, "__module__", "") == "torch.nn.init" else func(*args, **given)


def filled(make: Callable[[], N], tensors: dict[str, torch.Tensor]) -> N:
    """A network in evaluation mode whose parameters and statistics are all given: none is drawn at random first.

    Raises
    ------
    RuntimeError
        When tensors are missing, unknown or of another shape.
    """
    with _NothingDrawn():
        network = make()
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    return network.eval()


def _require_size(architecture: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Refuse a network larger than its file before it takes memory: every width is a side of some tensor."""
    largest = max((side for tensor in tensors.values() for side in tensor.shape), default=0)
    for keys, limit in ((_WIDTHS, largest), (_DEPTHS, len(tensors))):
        for key in keys:
            value = architecture.get(key)
            entries = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)]
            if max(entries, default=0) > limit:
                raise ValueError(f"its {key} is {value}, more than the file's tensors can hold ({limit})")


_WIDTHS = ("size", "channels", "widths", "latents")
_DEPTHS = ("layers", "encoder_blocks", "head_blocks")

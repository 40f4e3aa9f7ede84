"""``iasolve prior list|show|verify``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from iasolve.cli.help import Group, add_command
from iasolve.cli.options import Printing

__all__ = ["app", "list_", "show", "verify"]

app = typer.Typer(
    cls=Group,
    help="Priors: trained networks, bundled or one's own.",
    epilog="iasolve prior list\niasolve prior show photo-128\niasolve prior verify runs/mine/mine.safetensors",
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A prior's name, or the path of a .safetensors file.")]


def list_(printing: Printing) -> None:
    """List the priors that come with iasolve, and those that other installed packages bring.

    Examples
    --------
    iasolve prior list
    """
    from iasolve.cli.errors import DamagedPrior
    from iasolve.cli.priors import blamed_on_prior
    from iasolve.cli.reporter import Reporter
    from iasolve.priors import PriorError, find_prior, list_priors, read_card
    from iasolve.priors.registry import origin_of

    reporter = Reporter(printing)
    found = []
    rows = [["prior", "size", "parameters", "images seen", "sha256", "from", "images", "trained on"]]
    for name in list_priors():
        origin = origin_of(name)
        try:
            with blamed_on_prior(name):
                card = read_card(find_prior(name))
                rows.append([name, *_cells(card), origin, *_purpose(card)])
        except (PriorError, DamagedPrior) as error:
            if origin == "iasolve":
                raise
            lacks = error.__cause__ if isinstance(error.__cause__, LookupError) else None
            what = str(error) if lacks is None else f"its card lacks {lacks}"
            reporter.warn(f"the prior {name!r} of package {origin!r} is left out: {what}")
            continue
        found.append({**card, "name": name, "from": origin})
    if found:
        reporter.table(rows)
    else:
        reporter.say("no bundled priors in this installation; train one: iasolve train --help")
    reporter.result({"priors": found})


def show(name: _Name, printing: Printing) -> None:
    """Print what is known about a prior: architecture, data and licence, training, validation, latents, rings.

    Examples
    --------
    iasolve prior show mri-t1-128
    """
    from iasolve.cli.priors import blamed_on_prior
    from iasolve.cli.reporter import Reporter
    from iasolve.priors import find_prior, read_card

    reporter = Reporter(printing)
    path = find_prior(name)
    with blamed_on_prior(name):
        card = read_card(path)
        reporter.say(_readable(card, str(path)))
    reporter.result(card)


def verify(name: _Name, printing: Printing) -> None:
    """Check a prior's weights against the SHA-256 in its card, and that they load.

    Examples
    --------
    iasolve prior verify runs/mine/mine.safetensors
    """
    from iasolve.cli.priors import open_prior
    from iasolve.cli.reporter import Reporter
    from iasolve.priors import find_prior

    reporter = Reporter(printing)
    path = find_prior(name)
    prior = open_prior(str(path))
    reporter.say(f"{path}: intact, sha256 {prior.card['sha256']}")
    reporter.result({"name": prior.name, "path": str(path), "sha256": prior.card["sha256"], "intact": True})


def _cells(card: Mapping[str, Any]) -> list[str]:
    size = card["architecture"]["size"]
    seen = card.get("training", {}).get("images", "-")
    return [f"{size} x {size}", str(card.get("parameters", "-")), str(seen), card["sha256"][:12]]


def _purpose(card: Mapping[str, Any]) -> list[str]:
    """The kind of images, and the data sets' names."""
    about, data = card["architecture"], card.get("data", {})
    colours = {1: "grey", 3: "colour"}.get(about.get("channels", 1), f"{about.get('channels')} channels")
    sources = data if isinstance(data, list) else data.get("sources", [data])
    names = "; ".join(str(source.get("name", "-")) for source in sources)
    return ["complex" if about.get("is_complex") else colours, names]


def _readable(card: Mapping[str, Any], path: str) -> str:
    tables = {"sigma_x", "ring_power", "latents"}
    lines = [f"{card.get('name', 'unnamed')}  ({path})"]
    for key, value in card.items():
        if key in tables or key == "name":
            continue
        if isinstance(value, Mapping):
            lines += ["", key]
            lines += [f"  {inner.ljust(22)} {_text(item)}" for inner, item in value.items()]
        else:
            lines.append(f"{key.ljust(24)} {_text(value)}")
    return "\n".join([*lines, *_latents(card), *_rings(card)])


def _latents(card: Mapping[str, Any]) -> list[str]:
    """Per layer: how many of its units vary over images, and what it says of one."""
    from iasolve.cli.reporter import columns

    layers = card.get("latents")
    if not layers:
        return []
    total = sum(row["kl"] for row in layers)
    rows = [["layer", "scale", "active units", "KL, nats", "of all"]]
    for number, row in enumerate(layers, 1):
        share = f"{row['kl'] / total:.1%}" if total > 0 else "-"
        rows.append([str(number), str(row["scale"]), f"{row['active']} of {row['units']}", f"{row['kl']:.4g}", share])
    return ["", "latents", columns(rows)]


def _rings(card: Mapping[str, Any]) -> list[str]:
    """Per ring: what the decoder leaves unexplained against what there is."""
    from iasolve.cli.reporter import columns

    noise, power = card.get("sigma_x"), card.get("ring_power")
    if not noise or not power:
        return []
    lines = []
    for channel, (sigmas, powers) in enumerate(zip(noise, power, strict=True)):
        rows = [["scale", "power", "sigma_x", "unexplained"]]
        for index, (sigma, energy) in enumerate(zip(sigmas, powers, strict=True)):
            share = f"{sigma**2 / energy:.2%}" if energy > 0 else "-"
            rows.append([str(2**index), f"{energy:.4g}", f"{sigma:.4g}", share])
        lines += ["", "rings" if len(noise) == 1 else f"rings, channel {channel}", columns(rows)]
    return lines


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


add_command(app, "list", list_)
add_command(app, "show", show)
add_command(app, "verify", verify)

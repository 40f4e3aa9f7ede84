"""A small classifier of CIFAR-10: features for a Frechet distance where Inception weights are not at hand.

    python benchmarks/classifier.py            # writes benchmarks/features/cifar10-classifier.{safetensors,json}

Its 64 features are the last convolution's, averaged over the image, so that images of any size have them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import common
from iasolve.training.folder import read_folder

FOLDER = Path(__file__).parent / "features"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Classifier(nn.Module):
    """Five convolutions, two of them of stride 2; images ``(B, 3, H, W)`` in [0, 1]."""

    def __init__(self, width: int = 32, features: int = 64) -> None:
        super().__init__()
        sizes = ((3, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1), (2 * width, 3 * width, 2))
        layers: list[nn.Module] = []
        for inputs, outputs, stride in (*sizes, (3 * width, features, 1)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.answer = nn.Linear(features, len(CLASSES))

    def features(self, images: Tensor) -> Tensor:
        """``(B, features)``."""
        return self.body(2 * images - 1).mean((-2, -1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, 10)``."""
        return self.answer(self.features(images))


def load_features(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    """The features of the trained classifier, and its card."""
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    network = Classifier()
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    network.eval().requires_grad_(False)
    return network.features, card


def labelled(path: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images ``(n, 3, 32, 32)`` uint8 and the numbers of their classes."""
    images = [torch.from_numpy(read_folder(path, f"{part}/{name}", channels=3)) for name in CLASSES]
    labels = [torch.full((len(found),), number) for number, found in enumerate(images)]
    return torch.cat(images), torch.cat(labels)


def train(images: Tensor, labels: Tensor, epochs: int, seed: int, batch: int = 128) -> Classifier:
    """One cycle of the learning rate, mirrored and shifted images."""
    torch.manual_seed(seed)
    network = Classifier()
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for step in track(range(steps), description="training"):
        if step % (len(images) // batch) == 0:
            order = torch.randperm(len(images))
        picks = order[: len(order) // batch * batch].reshape(-1, batch)[step % (len(images) // batch)]
        x = images[picks].float() / 255
        x = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, x, x.flip(-1))
        top, left = torch.randint(0, 5, (2,)).tolist()
        x = F.pad(x, (2, 2, 2, 2), mode="reflect")[..., top : top + images.shape[-2], left : left + images.shape[-1]]
        loss = F.cross_entropy(network(x), labels[picks], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """Part of the images that it puts into the right class."""
    answers = torch.cat([network(x.float() / 255).argmax(1) for x in images.split(500)])
    return float((answers == labels).float().mean())


def main(
    data: Annotated[Path | None, typer.Option(help="cifar10-jpeg.zip; default: in the folder IASOLVE_DATA")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the weights")] = FOLDER,
) -> None:
    """Train and write the weights."""
    path = data or Path(os.environ.get("IASOLVE_DATA", ".")) / "cifar10-jpeg.zip"
    if not path.exists():
        raise SystemExit(f"no {path}: give --data FILE, or set IASOLVE_DATA to the folder of cifar10-jpeg.zip")
    begun = time.perf_counter()
    network = train(*labelled(path, "train"), epochs=epochs, seed=seed)
    card = {
        "name": "CIFAR-10 classifier",
        "features": "last convolution, averaged over the image: 64",
        "data": "CIFAR-10, every image once saved as JPEG (A. Krizhevsky 2009), training part",
        "test_accuracy": round(accuracy(network, *labelled(path, "test")), 4),
        "epochs": epochs,
        "seed": seed,
        "seconds": round(time.perf_counter() - begun),
        "commit": common.commit(),
    }
    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_file(state, out / "cifar10-classifier.safetensors")
    (out / "cifar10-classifier.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(card, indent=1))


if __name__ == "__main__":
    typer.run(main)

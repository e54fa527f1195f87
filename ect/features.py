"""Feature spaces: uint8 images (N, H, W, C) -> float64 features (N, D).

The study's own classifier is for images on which no published network was trained; networks that
were trained elsewhere, for everything else, are in `ect/pretrained.py`.
"""

import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from ect import checkpoint, machine, samples
from ect.data import Images, encode, generator_of, seed_of

WIDTH = 64  # of the last hidden layer
BATCH = 500  # of images that a network sees at once


class ClassifierNet(nn.Module):
    """Three convolutions, a hidden layer of 64 units, and the classes."""

    def __init__(self, shape, classes, channels):
        super().__init__()
        depth, height, width = shape
        self.convolutions = nn.Sequential(
            nn.Conv2d(depth, channels, 3, padding=1), nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
        )  # fmt: skip
        self.hidden = nn.Linear(2 * channels * (height // 4) * (width // 4), WIDTH)
        self.classes = nn.Linear(WIDTH, classes)

    def features(self, x):
        """The hidden layer before its ReLU, so that no unit is constant and covariances have full
        rank."""
        return self.hidden(self.convolutions(x))

    def forward(self, x):
        active = functional.relu(self.features(x))
        return self.classes(functional.dropout(active, 0.3, self.training))


def train_classifier(settings, data, out):
    """Train the classifier on the training images; its accuracy on the held-out ones goes into
    run.json beside the weights."""
    started, out = time.monotonic(), Path(out)
    train, test = Images(data), Images(data, "test")
    if len(train.classes or ()) < 2:
        raise ValueError(
            f"{data}: no classes for a classifier to tell apart; allowed: dataset.classes: folders,"
            " or features.extractor: inception"
        )
    about = {
        "shape": list(train.shape), "shift": train.shift, "scale": train.scale,
        "channels": settings["channels"], "classes": len(train.classes),
    }  # fmt: skip
    network = _fit(settings, train, about)
    answers = of_images(
        lambda pixels: network(encode(pixels, about).to(machine.device())), test.pixels
    )
    accuracy = float((answers.argmax(1) == test.labels).mean())
    weights = out / "classifier.safetensors"
    checkpoint.save(weights, network.state_dict(), **about)
    record = machine.record(settings, [data], started, [weights], test_accuracy=accuracy)
    checkpoint.write_json(out / "run.json", record)


def _fit(settings, train, about):
    torch.manual_seed(seed_of("classifier"))
    network = ClassifierNet(about["shape"], about["classes"], about["channels"])
    network.to(machine.device()).train()
    steps = settings["epochs"] * len(train.pixels) // settings["batch"]
    optimizer = torch.optim.Adam(network.parameters(), settings["lr"], weight_decay=1e-4)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["lr"], total_steps=steps)
    labels = torch.from_numpy(train.labels)
    for index in range(steps):
        rows = torch.randint(
            len(labels), (settings["batch"],), generator=generator_of("classifier", index)
        )
        logits = network(train.encode(train.pixels[rows.numpy()]).to(machine.device()))
        loss = functional.cross_entropy(logits, labels[rows].to(machine.device()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return network.eval()


def classifier(path):
    """The extractor of a trained classifier: its last hidden layer, 64 values an image."""
    weights, about = checkpoint.load(path)
    network = ClassifierNet(about["shape"], about["classes"], about["channels"])
    network.load_state_dict(weights)
    network.to(machine.device()).eval()

    def extract(pixels):
        return network.features(encode(pixels, about).to(machine.device()))

    return extract


def own(function):
    """The extractor of a plugin; raises `ValueError` where its features are not (N, D)."""

    def extract(pixels):
        found = torch.as_tensor(function(pixels))
        if found.ndim != 2 or len(found) != len(pixels):
            shape = tuple(found.shape)
            raise ValueError(
                f"features of {len(pixels)} images have the shape {shape}; allowed:"
                f" ({len(pixels)}, D)"
            )
        return found

    return extract


def of_images(extract, pixels):
    """Features (N, D) of uint8 images (N, H, W, C), in float64."""
    return of_batches(extract, samples.pieces(pixels, BATCH)).double().numpy()


@torch.no_grad()
def of_batches(extract, batches):
    """Features (N, D), a tensor in the network's own precision, of uint8 images (n, H, W, C) that
    come in batches of any size: the network sees them in batches of its own, so that its rounding
    is the same."""
    found, seen = None, 0  # one tensor that doubles: parts kept one by one would fragment memory
    for pixels in samples.regrouped(batches, BATCH):
        part = extract(pixels).cpu()
        if found is None or seen + len(part) > len(found):
            room = part.new_empty(seen + 2 * len(part), part.shape[1])
            found = room if found is None else torch.cat([found[:seen], room])
        found[seen : seen + len(part)] = part
        seen += len(part)
    return found[:seen].clone()


def save(path, found, name):
    """Write features (N, D), and the name of their space."""
    checkpoint.save(path, {"features": found}, features=name)


def load(path):
    """(name of the space, features (N, D) in float64) of a file that `save` wrote; raises
    `CheckpointError`."""
    tensors, about = checkpoint.load(path)
    if "features" not in tensors:
        raise checkpoint.CheckpointError(f"{path}: holds no features")
    return about["features"], tensors["features"].double().numpy()

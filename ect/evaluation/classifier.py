"""The study's own feature space: the penultimate layer of a classifier of its images.

It is for images on which no published network was trained, and for machines without one. Its
distances are comparable within a study, not with published numbers.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ect.data import file
from ect.data.batches import Images, encode
from ect.evaluation.features import of_images
from ect.models.about import MEANING, fits, named, one_of, whole
from ect.models.build import buildable, require_match
from ect.runtime import checkpoint, device
from ect.runtime.record import job_record
from ect.runtime.seeds import generator_of, seed_of

WIDTH = 64  # of the plain network's hidden layer
# What a classifier's file says of it, as of a model's.
CLASSES = {"classes": whole(2, 1_000_000)}
ABOUT = {key: MEANING[key] for key in ("shape", "shift", "scale")} | CLASSES
OPTIONAL = {"network": one_of(("plain", "resnet")), "channels": whole(1, 4096)}
SMALLEST = 4  # side of an image that the plain network can halve twice
SHIFT = 8  # an augmented image is moved by up to an eighth of its side: 4 of 32 pixels


class Plain(nn.Module):
    """Three convolutions, a hidden layer of 64 units, and the classes."""

    def __init__(self, shape, classes, channels):
        super().__init__()
        depth, height, width = shape
        if min(height, width) < SMALLEST:
            found = f"images of {height}x{width}x{depth} for a plain classifier"
            raise ValueError(f"found {found}; allowed: sides of {SMALLEST} pixels or more")
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


class ResNet(nn.Module):
    """torchvision's ResNet-18 with the stem for small images: one 3x3 convolution, no pooling."""

    def __init__(self, shape, classes):
        super().__init__()
        from torchvision.models import resnet18

        self.body = resnet18(num_classes=classes)
        self.body.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        self.body.maxpool = nn.Identity()
        self.classes, self.body.fc = self.body.fc, nn.Identity()

    def features(self, x):
        """The 512 means over the last feature maps."""
        return self.body(x)

    def forward(self, x):
        return self.classes(self.features(x))


def build(about):
    """The network of a classifier's file."""
    if about.get("network") == "resnet":
        return ResNet(about["shape"], about["classes"])
    return Plain(about["shape"], about["classes"], about["channels"])


def run(settings, data, out):
    """Train the classifier on the training images; its accuracy on the held-out ones, if there are
    any, goes into run.json beside the weights. `settings` holds channels (of the plain network),
    epochs, batch, lr and, unless they are plain and false, network and augment."""
    started, out = time.monotonic(), Path(out)
    images = Images(data)
    if len(images.classes or ()) < 2:
        raise ValueError(
            f"{data}: fewer than two classes for a classifier; allowed: dataset.classes: folders,"
            " or features.extractor: efficientnet"
        )
    about = {
        "shape": list(images.shape), "shift": images.shift, "scale": images.scale,
        **{key: settings[key] for key in ("network", "channels") if key in settings},
        "classes": len(images.classes),
    }  # fmt: skip
    if settings["epochs"] * len(images.pixels) < settings["batch"]:
        raise ValueError(
            f"features.classifier: {settings['epochs']} epochs of {len(images.pixels)} images are"
            f" less than a batch of {settings['batch']}; allowed: a smaller batch, or more epochs"
        )
    network = _fit(settings, images, about)
    weights = out / "classifier.safetensors"
    checkpoint.save(weights, network.state_dict(), **about)
    told = _tested(network, about, Images(data, "test")) if file.holds(data, "test") else {}
    record = job_record(settings, [data], started, [weights], **told)
    checkpoint.write_json(out / "run.json", record)


def _tested(network, about, test):
    """The accuracy on held-out images, for the record, and on stderr where it is that of chance."""
    answers = of_images(
        lambda pixels: network(encode(pixels, about).to(device.current())), test.pixels
    )
    accuracy = float((answers.argmax(1) == test.labels).mean())
    if not at_chance(accuracy, test.labels):
        return {"test_accuracy": accuracy}
    print(
        f"ect train-classifier: a test accuracy of {accuracy:.1%} is that of chance: distances"
        " in its features say little; allowed all the same: more epochs, another lr, channels",
        file=sys.stderr,
    )
    return {"test_accuracy": accuracy, "at_chance": True}


def at_chance(accuracy, labels):
    """Whether an accuracy on images of these labels (N,) is within three standard errors of that of
    naming the most frequent class each time, or below."""
    share = np.bincount(labels).max() / len(labels)
    return bool(accuracy <= share + 3 * (share * (1 - share) / len(labels)) ** 0.5)


@device.deterministic()
@device.precision("fp32")
def _fit(settings, images, about):
    torch.manual_seed(seed_of("classifier"))
    network = build(about)
    network.to(device.current()).train()
    steps = settings["epochs"] * len(images.pixels) // settings["batch"]
    optimizer = torch.optim.Adam(network.parameters(), settings["lr"], weight_decay=1e-4)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["lr"], total_steps=steps)
    labels = torch.from_numpy(images.labels)
    for index in range(steps):
        generator = generator_of("classifier", index)
        rows = torch.randint(len(labels), (settings["batch"],), generator=generator)
        x = images.encode(images.pixels[rows.numpy()])
        x = augmented(x, generator) if settings.get("augment") else x
        logits = network(device.to_device(x))
        loss = functional.cross_entropy(logits, device.to_device(labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return network.eval()


def augmented(x, generator):
    """Images (B, C, H, W), each mirrored or not, moved by up to an eighth of its side, and filled
    with copies of its edge (He et al. 2016, section 4.2, pad with zeros)."""
    batch, _, height, width = x.shape
    reach = max(height, width) // SHIFT
    padded = functional.pad(x, [reach] * 4, mode="replicate")
    down, right = torch.randint(2 * reach + 1, (2, batch), generator=generator)
    columns = torch.arange(width).expand(batch, width)
    mirrored = torch.rand(batch, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns) + right[:, None]
    rows = torch.arange(height) + down[:, None]
    which = torch.arange(batch)[:, None, None]
    moved = padded.movedim(1, 3)[which, rows[:, :, None], columns[:, None, :]]
    return moved.movedim(3, 1).contiguous()


def extractor(path):
    """(name of the space, extract) of a trained classifier: 64 features per image from the plain
    network, 512 from the ResNet. Raises `ValueError` for a file that holds none."""
    weights, about = checkpoint.load(path)
    with named(path):
        resnet = about.get("network") == "resnet"
        fits("", about, ABOUT | ({} if resnet else {"channels": OPTIONAL["channels"]}), OPTIONAL)
        with torch.device("meta"), buildable():
            expected = build(about).state_dict()
        require_match(weights, expected)
    network = build(about)
    network.load_state_dict(weights)
    network.to(device.current()).eval()
    depth, height, width = about["shape"]

    def extract(pixels):
        if pixels.shape[1:] != (height, width, depth):
            found = "x".join(map(str, pixels.shape[1:]))
            allowed = f"of {height}x{width}x{depth}, as it was trained on"
            raise ValueError(f"{path}: given images of {found}; allowed: {allowed}")
        return network.features(encode(pixels, about).to(device.current()))

    return about.get("network", "classifier"), extract

"""EDM's augmentation: what is drawn, what becomes of images, and what the network is told."""

import functools
import itertools

import numpy as np
import pytest
import torch

from ect import registry
from ect.consistency import Consistency
from ect.data.batches import Images
from ect.models import build
from ect.models.draw import draw as draw_images
from ect.networks.unet import UNet
from ect.runtime import device
from ect.training import augment, loop, train
from ect.training.state import State
from ect.training.warp import warp
from tests.helpers.runs import PRETRAIN, TUNE, changed, contents

P = 0.3
plan_of = functools.partial(augment.drawn, shape=(1, 8, 8))
AUGMENTED = changed(
    PRETRAIN, recipe__augment={"kind": "edm", "p": P}, network__augment_labels=9, last_kimg=1
)


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(64, 3, 8, 8))).float()


def test_moves_are_to_the_right_and_down_turns_anticlockwise():
    x = torch.zeros(1, 1, 33, 33)
    x[0, 0, 16, 24] = 1  # right of the centre

    def spot(step):
        return divmod(int(warp(x, torch.from_numpy(step[:, :2]).float()).argmax()), 33)

    class Fixed:
        normals = staticmethod(lambda: (np.array([1.0]), np.array([2.0])))

    assert spot(augment.turned(np.array([np.pi / 2]))) == (8, 16)  # above it
    assert spot(augment.diagonal(np.array([0.5]), np.array([0.5]))) == (16, 32)
    step, told = augment.translate(Fixed, np.array([True]), (1, 33, 33))
    assert spot(step) == (16 + 8, 24 + 4) and np.concatenate(told).tolist() == [1, 2]


def test_labels_are_zero_exactly_where_an_image_keeps_its_bits(images):
    plan = plan_of("edm", P, 0, 0, 64)
    kept = (augment.applied(images, plan) == images).flatten(1).all(1).numpy()
    assert 0 < kept.sum() < 64
    assert ((plan.labels == 0).all(axis=1) == kept).all()


def test_no_chance_changes_nothing(images):
    plan = plan_of("edm", 0.0, 0, 0, 64)
    assert not plan.labels.any() and plan.labels.shape == (64, 9)
    assert torch.equal(augment.applied(images, plan), images)


def test_labels_say_how_an_image_was_moved():
    """The map is rebuilt from the labels alone."""
    plan = augment.drawn("edm", 0.5, 1, 0, 500, (3, 16, 32))
    for label, inverse in zip(plan.labels.astype(float), plan.inverse):
        _, _, w, cosine, sine, wx, wy, tx, ty = label
        size, angle = np.hypot(wx, wy), np.arctan2(wy, wx)
        turn = lambda a: np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])  # noqa: E731
        options = []
        for sign in (1, -1):  # (w, r) and (-w, r + pi) have one label
            r = angle if sign == 1 else angle + np.pi
            stretch = np.diag([2 ** (-0.2 * sign * size), 2 ** (0.2 * sign * size)])
            linear = 2 ** (-0.2 * w) * np.array([[1 + cosine, -sine], [sine, 1 + cosine]])
            linear = linear @ turn(-r) @ stretch @ turn(r)
            shift = -linear @ [tx * 0.125 * 32, ty * 0.125 * 16]
            options.append(np.abs(np.column_stack([linear, shift]) - inverse).max())
        assert min(options) < 1e-5


def test_the_draws_have_edms_distribution():
    n = 40_000
    plan = plan_of("edm", P, 7, 0, n)
    on = plan.labels != 0
    assert on[:, 0].mean() == pytest.approx(0.5, abs=0.01)
    assert on[:, 1].mean() == pytest.approx(P / 2, abs=0.01)
    for column in range(2, 9):
        if column not in (6,):  # of half of the axes r is 0, and so w sin r
            assert on[:, column].mean() == pytest.approx(P, abs=0.01)
    assert on[:, 6].mean() == pytest.approx(P / 2, abs=0.01)
    for column in (2, 7, 8):
        w = plan.labels[on[:, column], column]
        assert w.mean() == pytest.approx(0, abs=0.04) and w.std() == pytest.approx(1, abs=0.03)
    angles = np.arctan2(plan.labels[:, 4], plan.labels[:, 3] + 1)[on[:, 4]]
    assert np.abs(angles).mean() == pytest.approx(np.pi / 2, abs=0.05)
    together = np.corrcoef(on[:, [0, 1, 2, 4, 5, 7]].T) - np.eye(6)
    assert np.abs(together).max() < 0.02


def test_six_labels_are_nine_without_two_transforms():
    nine, six = plan_of("edm", P, 7, 0, 200), plan_of("edm6", P, 7, 0, 200)
    assert (six.labels == nine.labels[:, [0, 2, 5, 6, 7, 8]]).all() and not six.down.any()
    unturned = (nine.labels[:, [3, 4]] == 0).all(axis=1)
    np.testing.assert_array_equal(six.inverse[unturned], nine.inverse[unturned])


def test_the_config_knows_how_many_labels_there_are():
    assert augment.LABELS == registry.AUGMENTATIONS
    for kind, count in augment.LABELS.items():
        assert plan_of(kind, P, 0, 0, 3).labels.shape == (3, count)


@pytest.mark.parametrize("cuts", [[0, 64], [0, 1, 64], [0, 20, 40, 64]])
def test_an_image_is_a_function_of_seed_and_place_in_the_run(images, cuts):
    """Whatever the batch, the microbatch and the process."""
    whole, parts = augment.augmented(AUGMENTED, 1000, images), []
    for low, high in itertools.pairwise(cuts):
        parts.append(augment.augmented(AUGMENTED, 1000 + low, images[low:high]))
    for one, found in zip(whole, zip(*parts)):
        assert torch.equal(one, torch.cat(found))
    for other in (changed(AUGMENTED, seed=1), AUGMENTED):
        first = 1000 if other["seed"] else 1001
        assert not torch.equal(augment.augmented(other, first, images)[1], whole[1])


@pytest.mark.parametrize("share", [slice(0, 100), slice(0, 37), slice(37, 100)])
def test_a_process_changes_its_share_of_a_batch_as_one_process_would(
    digits_file, share, monkeypatch
):
    images, given = Images(digits_file), {}

    def objective(f, x, *rest):
        given["x"], given["labels"] = x, f.augment
        raise StopIteration

    objective.levels = lambda draw: draw()
    f = Consistency(None, None, "edm", 0.5)
    state = State(AUGMENTED, images)
    state.seen = 300
    monkeypatch.setattr(loop.distributed, "slice_of", lambda size: share)
    with pytest.raises(StopIteration):
        loop.step(state, AUGMENTED, images, objective, f, 1000)
    plan = plan_of("edm", P, AUGMENTED["seed"], 300, 100)
    x = augment.applied(images.batch(AUGMENTED["seed"], 300, 100), plan)
    assert torch.equal(given["x"].cpu(), x[share])
    assert torch.equal(given["labels"].cpu(), torch.from_numpy(plan.labels)[share])


@pytest.mark.parametrize("architecture", ["ddpmpp", "ncsnpp", "adm"])
def test_zero_labels_are_the_bits_of_no_augmentation(architecture, draw):
    torch.manual_seed(0)
    plain = UNet(8, 1, 16, [1, 2], 1, [4], 0.0, architecture)
    torch.manual_seed(0)
    told = UNet(8, 1, 16, [1, 2], 1, [4], 0.0, architecture, augment_labels=9)
    extra = {"embedding.augment.weight"}
    assert told.state_dict().keys() - plain.state_dict().keys() == extra
    for name, value in plain.state_dict().items():
        assert torch.equal(value, told.state_dict()[name]), name
    weight = told.embedding.augment.weight
    assert weight.any() == (architecture != "adm") and weight.shape[1] == 9
    with torch.no_grad():
        for network in (plain, told):
            torch.manual_seed(1)
            for value in network.parameters():
                if value is not weight:
                    value.add_(0.1 * torch.randn_like(value))
        weight.normal_()
    x, c = draw(0).float(), torch.zeros(4)
    wanted = plain(x, c)
    assert torch.equal(told(x, c), wanted)
    assert torch.equal(told(x, c, augment=torch.zeros(4, 9)), wanted)
    assert (told(x, c, augment=torch.ones(4, 9)) - wanted).abs().max() > 1e-4


def trained(settings, digits_file, out, **options):
    train.run(settings, digits_file, out, **options)
    return contents(out)


@pytest.fixture(scope="module")
def start(digits_file, tmp_path_factory):
    """The folder of `AUGMENTED`."""
    out = tmp_path_factory.mktemp("augmented") / "start"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "current", lambda: torch.device("cpu"))
        trained(AUGMENTED, digits_file, out)
    return out


def test_a_run_does_not_depend_on_microbatches_up_to_rounding(digits_file, tmp_path):
    settings = changed(AUGMENTED, recipe__dropout=0.0)
    trained(settings, digits_file, tmp_path / "whole")
    trained(changed(settings, recipe__microbatch=30), digits_file, tmp_path / "parts")
    whole, parts = (build.read(tmp_path / n / "model.safetensors")[0] for n in ("whole", "parts"))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=2e-3)


def test_a_stopped_run_ends_with_the_same_bits(start, digits_file, tmp_path, monkeypatch):
    whole = contents(start)
    assert trained(changed(AUGMENTED, recipe__augment__p=0.1), digits_file, tmp_path / "b") != whole
    step = loop.step

    def stopping(state, *rest):
        if state.seen == 500:
            raise KeyboardInterrupt
        return step(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train.run(AUGMENTED, digits_file, tmp_path / "a", save_seconds=-1.0)
    assert trained(AUGMENTED, digits_file, tmp_path / "a") == whole


def test_a_chain_of_milestones_ends_with_the_same_bits(start, digits_file, tmp_path):
    long = changed(AUGMENTED, last_kimg=2)
    whole = trained(long, digits_file, tmp_path / "whole")
    one = start / "state.safetensors"
    rest = trained(changed(long, first_kimg=1), digits_file, tmp_path / "two", resume=one)
    assert rest["model.safetensors"] == whole["model.safetensors"]


def test_tuning_without_augmentation_keeps_the_layer_and_its_state_can_be_saved(
    start, digits_file, tmp_path
):
    """As ECT tunes EDM's network: the weights that read augmentation are not trained."""
    init = start / "model.safetensors"
    settings = changed(TUNE, network__augment_labels=9)
    whole = trained(settings, digits_file, tmp_path / "tuned", init=init)
    before, tuned = (build.read(p)[0] for p in (init, tmp_path / "tuned" / "model.safetensors"))
    name = "embedding.augment.weight"
    torch.testing.assert_close(before[name], tuned[name], rtol=1e-5, atol=1e-7)
    assert not torch.equal(before["stem.weight"], tuned["stem.weight"]) and before[name].any()
    told = changed(settings, recipe__augment={"kind": "edm", "p": P})
    assert trained(told, digits_file, tmp_path / "told", init=init) != whole


def test_sampling_tells_the_network_nothing(start):
    f, process, about = build.load_model(start / "model.safetensors")
    asked, network = [], f.network
    network.register_forward_pre_hook(
        lambda module, args, named: asked.append(named), with_kwargs=True
    )
    settings = {"kind": "heun", "options": {"steps": 2}, "images": 2, "batch": 2, "seed": 0}
    draw_images(f, process, about, settings)
    assert asked and not any("augment" in named for named in asked)


def test_a_network_that_cannot_be_told_is_refused(digits_file, tmp_path):
    settings = changed(AUGMENTED, recipe__augment={"kind": "edm6", "p": P})
    with pytest.raises(ValueError, match=r"augment is 'edm6'.* 6 numbers.*reads 9; allowed: a st"):
        train.run(settings, digits_file, tmp_path / "a")


def test_the_network_learns_what_it_is_told(digits_file):
    """The labels reach the gradient of each image's loss: their weights move."""
    images = Images(digits_file)
    state = State(AUGMENTED, images)
    before = state.network.embedding.augment.weight.detach().clone()
    for _ in loop.loop(state, AUGMENTED, images):
        pass
    moved = (state.network.embedding.augment.weight - before).abs()
    assert (moved.amax(0) > 1e-4).all()

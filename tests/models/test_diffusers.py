"""A UNet2DModel of diffusers as a start: its own f, its own DDIM, tuned, saved and read again."""

import json
import shutil
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file

from ect import ode
from ect.cli import main
from ect.models import build
from ect.models.importers.diffusers import read
from ect.networks.dropout import Masks
from ect.objective import DISTANCES, WEIGHTS, Objective
from ect.runtime import checkpoint
from ect.training import parts, train
from tests.helpers.runs import TUNE
from tests.helpers.starts import settings
from tests.helpers.unet2d import diffusers, unet


@pytest.fixture
def written(tmp_path):
    """A DDPMPipeline's folder, written by diffusers."""

    def make(model, **scheduler):
        chain = diffusers.DDPMScheduler(**scheduler)
        diffusers.DDPMPipeline(model, chain).save_pretrained(tmp_path / "pipe")
        return tmp_path / "pipe"

    return make


def restored(folder, tmp_path):
    """f and its process after an import and a round trip through a file."""
    out = tmp_path / "start" / "model.safetensors"
    assert main.main(["import-model", "diffusers", str(folder), "--out", str(out)]) == 0
    return *build.load_model(out), out


CHAINS = {
    "ddpm": {},
    "latent": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "short": {"num_train_timesteps": 100, "beta_start": 1e-3, "beta_end": 0.2},
}


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("chain", CHAINS.values(), ids=list(CHAINS))
def test_f_at_every_step_is_the_schedulers_original_sample(written, tmp_path, chain, predicts):
    model = unet()
    f, _, _, _ = restored(written(model, **chain, prediction_type=predicts), tmp_path)
    scheduler = diffusers.DDPMScheduler(**chain, prediction_type=predicts, clip_sample=False)
    steps = torch.arange(len(scheduler.betas))
    x_t = torch.randn(len(steps), 3, 8, 8)
    with torch.no_grad():
        found = f(x_t, (steps + 1) / 1000)
        out = model(x_t, steps).sample
    acp = scheduler.alphas_cumprod.double().view(-1, 1, 1, 1)
    if predicts == "epsilon":
        wanted, size = (x_t - (1 - acp).sqrt() * out) / acp.sqrt(), acp.rsqrt()
    else:
        wanted, size = acp.sqrt() * x_t - (1 - acp).sqrt() * out, 1.0
    size = size * torch.maximum(x_t.abs(), out.abs()).amax(dim=(1, 2, 3), keepdim=True)
    assert ((found.double() - wanted) / size).abs().max() < 1e-5
    assert ((wanted - x_t) / size).abs().amax(dim=(1, 2, 3)).min() > 1e-3  # the network takes part
    theirs = scheduler.step(out[7:8], 7, x_t[7:8]).pred_original_sample
    torch.testing.assert_close(found[7:8], theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chain", ["ddpm", "latent", "short"])
def test_euler_steps_on_the_schedulers_grid_are_its_ddim(written, tmp_path, chain):
    model, options = unet(), CHAINS[chain]
    f, process, _, _ = restored(written(model, **options), tmp_path)
    ddim = diffusers.DDIMScheduler(**options, clip_sample=False, set_alpha_to_one=True)
    ddim.set_timesteps(10)
    theirs = torch.randn(4, 3, 8, 8)
    times = [(step + 1) / 1000 for step in ddim.timesteps.tolist()]
    alpha, sigma = process.coefficients(torch.tensor(times, dtype=torch.float64))
    levels, y = [*(sigma / alpha).tolist(), 0.0], theirs / alpha[0].item()
    with torch.no_grad():
        for step in ddim.timesteps:
            theirs = ddim.step(model(theirs, step).sample, step, theirs).prev_sample
        for s, r in pairwise(levels):
            y = ode.euler(f, process, y, s, r)
    torch.testing.assert_close(y, theirs, rtol=1e-4, atol=1e-4)


def test_a_bare_model_is_the_pipelines(written, tmp_path):
    folder = written(unet())
    flat = shutil.copytree(folder / "unet", tmp_path / "flat")
    shutil.copy(folder / "scheduler" / "scheduler_config.json", flat)
    weights, about = read(flat)
    again, same = read(folder)
    assert about == same and weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_old_names_of_the_attention_are_read(written):
    """As in google/ddpm-cifar10-32: query, key, value, proj_attn."""
    folder = written(unet())
    weights, path = read(folder)[0], folder / "unet" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): value for key, value in tensors.items()}
    assert any(".proj_attn." in key for key in tensors)
    save_file(tensors, path)
    again, _ = read(folder)
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_classes_are_diffusers_and_no_class_adds_nothing(written, tmp_path):
    model = unet(num_class_embeds=5)
    f, _, about, _ = restored(written(model), tmp_path)
    assert about["network"]["classes"] == 5
    x, c, label = torch.randn(3, 3, 8, 8), torch.tensor([0.0, 30.0, 999.0]), torch.tensor([4, 0, 2])
    with torch.no_grad():
        torch.testing.assert_close(f.network(x, c, label), model(x, c, label).sample)
        model.class_embedding.weight[1].zero_()
        wanted = model(x, c, torch.ones(3, dtype=torch.long)).sample
        assert torch.equal(f.network(x, c), f.network(x, c, torch.full((3,), -1)))
    torch.testing.assert_close(f.network(x, c), wanted)


def test_beyond_its_steps_the_network_is_told_the_nearest(written, tmp_path):
    f, _, _, _ = restored(written(unet(), num_train_timesteps=100), tmp_path)
    x = torch.randn(2, 3, 8, 8)
    told = f.network(x, torch.tensor([-3.0, 140.0]))
    assert torch.equal(told, f.network(x, torch.tensor([0.0, 99.0])))


def test_it_can_be_tuned_sampled_and_read_again(write_digits, written, tmp_path):
    _, _, described, start = restored(written(unet(depth=1)), tmp_path)
    out = tmp_path / "tuned"
    train.run(settings(), write_digits("unit"), out, init=start)
    weights, about = checkpoint.load(out / "model.safetensors")
    before, _ = checkpoint.load(start)
    assert about == described and weights.keys() == before.keys()
    assert any(not torch.equal(weights[name], before[name]) for name in before)
    again = tmp_path / "again.safetensors"
    words = ["import-model", "ect", str(out / "model.safetensors"), "--out", str(again)]
    assert main.main(words) == 0
    assert again.read_bytes() == (out / "model.safetensors").read_bytes()
    sampling = {"kind": "heun", "options": {"steps": 3}, "images": 4, "batch": 4, "seed": 0}
    model = ["--model", str(again), "--out", str(tmp_path / "images")]
    assert main.main(["sample", json.dumps(sampling), *model]) == 0
    assert (tmp_path / "images" / "samples.npz").exists()


def test_both_evaluations_of_the_loss_share_their_dropout_masks(written, draw):
    about = read(written(unet(depth=1)))[1]
    network = build.make_network(about["network"], about["shape"], dropout=0.5).train()
    process = build.make_process(about)
    f = build.make_consistency(network, process, about)
    loss = Objective(process, lambda s, _: s, DISTANCES["squared"], WEIGHTS["uniform"], 0.5)
    x, eps = draw(0).float(), draw(1).float()
    assert not loss(f, x, eps, torch.ones(4), 0.5).loss.any()
    t = process.time(torch.ones(4))
    assert not torch.equal(f(x, t), f(x, t))  # dropout is active


def test_a_part_of_a_batch_has_the_masks_that_it_has_there(written, draw):
    """So targets are only of the images that need one."""
    about = read(written(unet(depth=1)))[1]
    network = build.make_network(about["network"], about["shape"], dropout=0.5).train()
    counts = []
    network.register_forward_pre_hook(lambda module, given: counts.append(len(given[0])))
    cell = {"target": "own", **about, "recipe": TUNE["recipe"], "schedule": TUNE["schedule"]}
    objective = parts.make_objective(cell, about["sd"])
    f = build.make_consistency(network, objective.process, about)
    given = f, draw(0, 24).float(), draw(1, 24).float()
    s = torch.tensor([80.0] + [1e-3] * 23)  # r > 0 for the first alone
    found = objective(*given, s, 0.3, Masks(5))
    assert counts == [24, 8]
    objective.unit = None
    torch.testing.assert_close(found, objective(*given, s, 0.3, Masks(5)))
    assert counts == [24, 8, 24, 24]


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SCHEDULER, NETWORK = "scheduler/scheduler_config.json", "unet/config.json"
REFUSED = {
    "sample": (SCHEDULER, {"prediction_type": "sample"}, "'sample'; allowed: 'epsilon'"),
    "sigmoid": (SCHEDULER, {"beta_schedule": "sigmoid"}, "'sigmoid'; allowed: 'linear'"),
    "trained": (SCHEDULER, {"trained_betas": [0.1]}, "trained_betas"),
    "rescaled": (SCHEDULER, {"rescale_betas_zero_snr": True}, "zero_snr: found True"),
    "learned": (SCHEDULER, {"variance_type": "learned"}, "variance_type: found 'learned'"),
    "betas": (SCHEDULER, {"beta_end": 2.0}, "0.0001 to 2.0"),
    "betas text": (SCHEDULER, {"beta_start": "0.1"}, "betas: found '0.1' to 0.02 in 1000 steps"),
    "betas null": (SCHEDULER, {"beta_end": None}, "betas: found 0.0001 to None"),
    "steps true": (SCHEDULER, {"num_train_timesteps": True}, "in True steps"),
    "solver": (SCHEDULER, {"_class_name": "EulerDiscreteScheduler"}, "EulerDiscrete"),
    "fourier": (NETWORK, {"time_embedding_type": "fourier"}, "'fourier'; allowed: 'positional'"),
    "classes": (NETWORK, {"class_embed_type": "timestep"}, "class_embed_type"),
    "centred": (NETWORK, {"center_input_sample": True}, "center_input_sample"),
    "size": (NETWORK, {"sample_size": None}, "sample_size: found None"),
    "other network": (NETWORK, {"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
    "unknown option": (NETWORK, {"gates": 3}, "gates"),
    "channels": (NETWORK, {"in_channels": 10**6, "out_channels": 10**6}, "of 64, 4096"),
    "default widths": (NETWORK, {"block_out_channels": [2048, 2048]}, "or more, as the network"),
    "wider": (NETWORK, {"block_out_channels": [8, 32]}, "weights"),
    "deeper": (NETWORK, {"layers_per_block": 2}, "weights"),
    "groups": (NETWORK, {"norm_num_groups": 3}, "UNet2DModel: found num_channels"),
    "widths": (NETWORK, {"block_out_channels": [8]}, "UNet2DModel: found Must provide"),
    "activation": (NETWORK, {"act_fn": "gelu2"}, "UNet2DModel: found activation function gelu2"),
    "shift text": (NETWORK, {"freq_shift": "x"}, "config.json: found TypeError"),
    "shift to infinity": (NETWORK, {"freq_shift": 4}, "output of the network: found NaN or inf"),
    "latents": ("model_index.json", {"_class_name": "LDMPipeline"}, "LDMPipeline"),
}


@pytest.mark.parametrize(("file", "changes", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_such_model_is_refused_in_one_line(written, capsys, file, changes, said):
    folder = written(unet())
    edited(folder / file, **changes)
    out = folder.with_name("model.safetensors")
    words = ["import-model", "diffusers", str(folder), "--out", str(out)]
    assert main.main(words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"ect import-model: {folder}: ") and said in line and "allowed" in line
    assert not out.exists()


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.uint8])
def test_weights_that_are_no_floating_point_numbers_are_refused(written, kind):
    folder = written(unet())
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.bias"] = weights["conv_in.bias"].to(kind)
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"weights: found conv_in\.bias of .*; allowed: F16"):
        read(folder)


def test_a_learned_variance_is_refused(written):
    with pytest.raises(ValueError, match=r"6 \(a learned variance\); allowed: in_channels = 3"):
        read(written(unet(outputs=6)))


def test_pickled_weights_are_refused_unread(tmp_path):
    unet().save_pretrained(tmp_path, safe_serialization=False)
    diffusers.DDPMScheduler().save_pretrained(tmp_path)
    assert list(tmp_path.glob("*.bin"))
    with pytest.raises(ValueError, match=r"found diffusion_pytorch_model\.bin; allowed: .*pickled"):
        read(tmp_path)


@pytest.mark.parametrize("revision", [None, "main", "0b28d3b"])
def test_a_repository_comes_through_the_hubs_client(revision, written, monkeypatch):
    folder, asked, name = written(unet()), [], "google/ddpm-cifar10-32"

    def client(name, revision, allow_patterns):
        asked.append((name, revision))
        patterns.extend(allow_patterns)
        return str(folder)

    patterns = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", client)
    assert read(f"{name}@{revision}" if revision else name)[1] == read(folder)[1]
    assert asked == [(name, revision)] and not any("bin" in pattern for pattern in patterns)
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert kept <= set(patterns)


def test_no_download_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"no/such: found no folder, and no download") as refusal:
        read("no/such")
    assert "\n" not in str(refusal.value)

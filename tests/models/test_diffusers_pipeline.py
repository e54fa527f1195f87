"""A model as a pipeline of diffusers: opened by its own loader, it draws the bytes of ours."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch

import ect
from ect.cli import main
from ect.models import build
from ect.models.export import pipeline
from ect.models.export.joined import Joined
from ect.runtime import checkpoint
from tests.helpers.unet2d import diffusers, unet

NETWORK = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
EDM = {"process": "ve", "parameterization": "edm", "c_noise": "log_s", "c_in": "scaled"}
FLOW = {"process": "flow", "parameterization": "velocity", "c_noise": "time", "c_in": "scaled"}
VP = {"process": "vp_linear", "parameterization": "noise", "c_noise": "ddpm", "c_in": "one"}
CASES = {
    "edm": (EDM, NETWORK, 1),
    "flow": (FLOW, NETWORK | {"architecture": "ncsnpp", "embedding": "fourier"}, 3),
    "vp": (VP, NETWORK | {"architecture": "adm", "classes": 5}, 1),
    "edm2": (EDM, NETWORK | {"architecture": "edm2", "channels": 16, "classes": 3}, 3),
}
RANGE = {"sd": 0.5, "shift": 72.3, "scale": 0.0091}  # of images that are not in [-1, 1]


def saved(path, meaning, network, depth, **more):
    """A model file whose network's weights are all perturbed."""
    torch.manual_seed(0)
    about = {"network": network, "shape": [depth, 8, 8]} | RANGE | meaning | more
    weights = build.build_network(network, about["shape"]).state_dict()
    weights = {name: value + 0.1 * torch.randn_like(value) for name, value in weights.items()}
    checkpoint.save(path, weights, **about)
    return path


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Exports a model file, and opens the folder as diffusers does."""
    monkeypatch.setattr(
        "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.setattr(sys, "path", [*sys.path])

    def open_folder(model):
        out = tmp_path / "out"
        assert main.main(["export", str(model), "--out", str(out), "--diffusers"]) == 0
        pipe = diffusers.DiffusionPipeline.from_pretrained(str(out), trust_remote_code=True)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return open_folder


def drawn(pipe, n=6, seed=5, **options):
    """The pipeline's images (N, H, W, C), uint8, of the seeds `seed`, `seed` + 1, ..."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(n)]
    images = pipe(n, generator=generators, output_type="np", **options).images
    return (images * 255).round().astype(np.uint8)


def ours(model, n=6, seed=5, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ECT's time, where no study says another
        images = ect.load(model).sample(n, seed=seed, **options)
    assert images.std() > 1
    return images


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_one_step_and_two_are_ours_to_the_byte(case, opened, tmp_path):
    model = saved(tmp_path / "model.safetensors", *case)
    pipe, classes = opened(model), case[1].get("classes")
    assert type(pipe) is diffusers.ConsistencyModelPipeline
    theirs = {"class_labels": [(5 + i) % 3 for i in range(6)]} if classes else {}
    labels = [0, 1, 2] if classes else None
    for steps in (1, 2):
        found = drawn(pipe, num_inference_steps=steps, **theirs)
        assert np.array_equal(found, ours(model, steps=steps, labels=labels))


@pytest.mark.parametrize("predicts, classes", [("epsilon", None), ("v_prediction", 4)])
def test_a_network_of_diffusers_stays_one(predicts, classes, opened, tmp_path):
    chain = diffusers.DDPMScheduler(prediction_type=predicts, num_train_timesteps=100)
    diffusers.DDPMPipeline(unet(num_class_embeds=classes), chain).save_pretrained(tmp_path / "in")
    model = tmp_path / "model.safetensors"
    words = ["import-model", "diffusers", str(tmp_path / "in"), "--out", str(model)]
    assert main.main(words) == 0
    pipe = opened(model)
    assert type(pipe.unet) is diffusers.UNet2DModel
    theirs = {"class_labels": [(5 + i) % 4 for i in range(6)]} if classes else {}
    found = drawn(pipe, num_inference_steps=2, **theirs)
    assert np.array_equal(found, ours(model, labels=list(range(4)) if classes else None))


def test_times_are_the_studys_else_those_of_the_schedulers_grid(opened, tmp_path):
    model = saved(tmp_path / "model.safetensors", *CASES["edm"])
    samplers = {"two": {"times": [0.5], "sigma_min": 0.003}, "four": {"times": [9.0, 3.0, 0.3],
                "sigma_min": 0.003}}  # fmt: skip
    (tmp_path / "sampling.json").write_text(json.dumps(samplers))
    pipe = opened(model)
    assert np.array_equal(drawn(pipe, num_inference_steps=4), ours(model, steps=4))
    pipe.scheduler.set_timesteps(timesteps=[700, 300, 0])
    levels = pipe.scheduler.sigmas[:-1].tolist()
    rho, low, high = 7, 0.002, 80.0
    wanted = [
        (high ** (1 / rho) + k / 1000 * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        for k in (0, 300, 700)
    ]
    assert levels == pytest.approx(wanted, rel=1e-6)
    plain = saved(tmp_path / "alone" / "model.safetensors", *CASES["edm"])
    pipe.scheduler.f = pipe.scheduler.f.shifted(0.0)  # times alone mean no sigma_min
    found = drawn(pipe, timesteps=[700, 300, 0])
    assert np.array_equal(found, ours(plain, steps=3, times=levels[1:]))
    with pytest.raises(ValueError, match=r"timesteps: found \[22, 3\]; allowed: falling indices"):
        pipe(timesteps=[22, 3])


def test_only_trained_classes_are_drawn(opened, tmp_path):
    meaning, network, depth = CASES["vp"]
    path = tmp_path / "model.safetensors"
    pipe = opened(saved(path, meaning, network, depth, trained_classes=[0, 3]))
    assert len(pipe(1, class_labels=[3]).images) == 1
    with pytest.raises(ValueError, match=r"class_labels: found \[2\]; allowed: \[0, 3\]"):
        pipe(1, class_labels=[2])


def test_the_folder_holds_what_diffusers_downloads_of_a_repository(opened, tmp_path):
    """Of a folder with weights it takes these, config.json and the one file of code."""
    opened(saved(tmp_path / "model.safetensors", *CASES["edm"]))
    out = tmp_path / "out"
    index = json.loads((out / "model_index.json").read_text())
    wanted = {"LICENSE", "README.md", "model_index.json", "scheduler/scheduler_config.json"}
    wanted |= {"unet/config.json", "unet/diffusion_pytorch_model.safetensors"}
    wanted |= {f"{part}/{index[part][0]}.py" for part in ("unet", "scheduler")}
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == wanted


REFUSED = {
    "latents": ({"latents": {"scale": [1.0], "shift": [0.0]}}, {}, "one of a VAE's latents"),
    "flow map": ({}, {"span": True}, "network.span: found a flow map; allowed: a network of one"),
}


@pytest.mark.parametrize("more, network, said", REFUSED.values(), ids=list(REFUSED))
def test_what_a_pipeline_cannot_express_is_one_line(more, network, said, tmp_path, capsys):
    path = saved(tmp_path / "m" / "model.safetensors", EDM, NETWORK | network, 1, **more)
    words = ["export", str(path), "--out", str(tmp_path / "out"), "--diffusers"]
    assert main.main(words) == 1
    line = capsys.readouterr().err.strip()
    assert said in line and "--diffusers" in line and "\n" not in line
    assert not (tmp_path / "out").exists()


def test_samplers_of_two_boundaries_are_refused():
    samplers = {"one": {"times": []}, "two": {"times": [0.5], "sigma_min": 0.003}}
    with pytest.raises(ValueError, match=r"sigma_min: found 0, 0\.003 in the study's samplers"):
        pipeline.boundary_of(samplers)


def test_joined_code_is_ours_word_for_word():
    joined = Joined()
    joined.take("process", "VPLinear")
    text = joined.text()
    source = (pipeline.steps.__file__).replace("models/steps.py", "process.py")
    with open(source) as file:
        whole = file.read()
    for name in ("Process", "VPLinear"):
        start = whole.index(f"class {name}")
        assert whole[start : whole.index("\n\n\n", start)] in text
    assert "class VE" not in text and "from ect" not in text
    names = {}
    exec(text, names)
    t = names["VPLinear"]().time(torch.tensor([1.0]))
    assert torch.equal(t, build.PROCESSES["vp_linear"]().time(torch.tensor([1.0])))

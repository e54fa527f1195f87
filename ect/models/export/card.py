"""The model card: README.md of an exported folder, with the front matter of Hugging Face."""

import json
import statistics

import yaml

from ect.models import build, steps
from ect.models.export import results
from ect.runtime import checkpoint, record
from ect.runtime.text import code_span, markdown

PROCESSES = {
    "ve": "x_t = x_0 + t eps, t from 0 to 80",
    "flow": "x_t = (1 - t) x_0 + t eps, t from 0 to 1",
    "vp_cosine": "x_t = cos(pi t / 2) x_0 + sin(pi t / 2) eps, t from 0 to 1",
    "vp_linear": "variance preserving with DDPM's linear rate of noise, t from 0 to 1",
    "tabulated": "the steps of DDPM in continuous time",
}
PARAMETERIZATIONS = {
    "edm": "f = c_skip x_t + c_out F with the coefficients of EDM",
    "velocity": "F is the velocity",
    "noise": "F is the noise, f = (x_t - sigma F) / alpha",
}
CITATION = """@article{geng2024ect,
  title   = {Consistency Models Made Easy},
  author  = {Geng, Zhengyang and Pokle, Ashwini and Luo, William and Lin, Justin and
             Kolter, J. Zico},
  journal = {arXiv preprint arXiv:2406.14548},
  year    = {2024}
}"""


# The keys of a run.json, and of its settings, that a card names.
RECORD = {"settings": dict, "inputs": dict, "outputs": dict, "code": dict, "packages": dict,
          "device": str}  # fmt: skip
SETTINGS = {"recipe": dict, "schedule": dict, "last_kimg": (int, float), "seed": int}


def run_beside(model):
    """The run.json of the training run that wrote `model`, by its hash; None if there is none
    beside it, since what another model's says is not true of this one."""
    try:
        path = model.parent / "run.json"
        run = checkpoint.read_json(path, RECORD)
        checkpoint.typed(run["settings"], path, SETTINGS)
        checkpoint.typed(run["settings"]["schedule"], path, {"map": str})
    except ValueError:
        return None
    return run if record.digest(model) in run["outputs"].values() else None


def text(model, about, samplers, name, diffusers=False):
    """The card of a model file: of the folder `name`, a pipeline of diffusers or one with a script;
    `samplers` are those of its study. What it says of training and of distances is in the records
    beside the file."""
    run, measured = run_beside(model), results.measured(model)
    parts = [front_matter(run, name, measured, diffusers), *model_lines(about, run, diffusers)]
    parts += [*training_lines(run), *measured_lines(measured)]
    how = pipeline_lines(about, name) if diffusers else script_lines(about, run)
    return "\n".join([*parts, *how, *known_lines(samplers), *citation_lines()]) + "\n"


def kind_of(run):
    if run is None:
        return "network"
    if run["settings"]["schedule"]["map"] == "zero":
        return "diffusion or flow model"
    return "consistency model"


def front_matter(run, name, measured, diffusers):
    """What Hugging Face reads of a card. The licence is this project's if every weight was trained
    here, and not on a reader's own images, and unknown otherwise; datasets and distances are named
    where records hold them."""
    dataset = results.dataset_of(run)
    known = run is not None and "network" in run["settings"] and dataset != "images"
    held = {
        "license": "apache-2.0" if known else "unknown",
        "library_name": "diffusers" if diffusers else "ect-pipeline",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["consistency-models", "easy-consistency-tuning"],
    }
    if dataset is not None and dataset != "images":  # a reader's own have no public name
        held["datasets"] = [dataset]
    if dataset is not None and measured:
        held["model-index"] = results.model_index(name, dataset, measured)
    return f"---\n{yaml.safe_dump(held, sort_keys=False, allow_unicode=True)}---\n"


def model_lines(about, run, diffusers=False):
    depth, height, width = about["shape"]
    count = build.parameters(about["network"], about["shape"])
    process, form = about["process"], about["parameterization"]
    betas = f", betas {json.dumps(about['betas'])}" if "betas" in about else ""
    files = (
        ("unet/config.json", "scheduler/scheduler_config.json") if diffusers else ("config.json",)
    )
    return [
        f"# A {kind_of(run)} for images of {height} x {width} x {depth}",
        "",
        "It maps a noisy image x_t to an estimate f(x_t, t) of the image x_0, with f(x, 0) = x. It",
        "was made by the pipeline for Easy Consistency Tuning (ECT).",
        "",
        f"- Network: {code_span(about['network'].get('architecture', 'ddpmpp'))},"
        f" {count:,} parameters, {about['network'].get('classes', 0) or 'no'} classes",
        f"- Process: {code_span(process)}: {PROCESSES.get(process, f'see {files[-1]}')}{betas}",
        f"- Parameterization: {code_span(form)}: {PARAMETERIZATIONS.get(form, f'see {files[-1]}')}",
        f"- Pixels: x = (pixel - {about['shift']:g}) * {about['scale']:g}",
        f"- All of it, exactly: {' and '.join(map(code_span, files))}",
        "",
    ]


def training_lines(run):
    if run is None:
        return ["## Training", "", "No record of its training lay beside the model.", ""]
    settings, code = run["settings"], run["code"]
    torch = run["packages"].get("torch", "unknown")
    edits = ", with uncommitted changes" if code.get("dirty") else ""
    started = any(path.endswith("model.safetensors") for path in run["inputs"])
    start = ", after those of its start" if started else ""
    return [
        "## Training",
        "",
        f"- Images seen: {1000 * settings['last_kimg']:,}{start}",
        f"- Seed: {settings['seed']}",
        f"- Schedule: {code_span(settings['schedule']['map'])}",
        f"- Code: commit {markdown(code.get('commit') or 'unknown')}{edits}",
        f"- Device: {markdown(run['device'])}; torch {markdown(torch)}",
        "",
        "Settings:",
        "",
        "```json",
        json.dumps(settings, indent=1, sort_keys=True),
        "```",
        "",
    ]


def measured_lines(measured):
    """A table of the distances; no lines without any."""
    if not measured:
        return []
    lines = ["## Measured", "", "| steps | evaluations | metric | mean | 95 % | sets of images |"]
    lines += ["| --- | ---: | --- | ---: | --- | ---: |"]
    for entry in measured:
        for kind, values in entry["metrics"].items():
            between = "{:.4g} to {:.4g}".format(*results.interval(values)) if values[1:] else ""
            cells = [markdown(entry["label"]), entry["nfe"], results.NAMES[kind]]
            cells += [f"{statistics.fmean(values):.4g}", between, len(values)]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    spaces = sorted({entry["features"] for entry in measured})
    sizes = sorted({(entry["images"], entry["reference_images"]) for entry in measured})
    counts = "; ".join(f"{drawn:,} drawn and {real:,} training images" for drawn, real in sizes)
    said = f"Feature space: {', '.join(map(code_span, spaces))}. Each set: {counts}. The interval"
    more = "is of the mean over sets of images of this model, not over models trained again."
    return [*lines, "", said, more, ""]


def script_lines(about, run):
    solver = kind_of(run) == "diffusion or flow model"
    more = ", diffusers" if about["network"].get("architecture") == "unet2d" else ""
    drawn = "--sampler heun --steps 18" if solver else "--steps 2"
    return [
        "## Sampling",
        "",
        f"With torch, safetensors, numpy and pillow{more} installed:",
        "",
        "```sh",
        f"python sample.py --n 16 {drawn} --seed 0 --out samples.png",
        "```",
        "",
        "`--times` names the noise levels s = sigma / alpha of all steps but the first, which is",
        "at s = 80. Without it they are those of the study's sampler with so many steps; where it",
        "has none, there is one step, or with `--steps 2` a second at 0.821 (ECT's for CIFAR-10).",
        "The script says which. Image i depends on `--seed` + i alone. `ect/` holds files of the",
        "pipeline, word for word (Apache-2.0). The terms of the training images, and of the start",
        "where it came from elsewhere, hold for the weights too.",
        "",
    ]


def pipeline_lines(about, name):
    classes = about["network"].get("classes", 0)
    labels = ", class_labels=[0] * 16" if classes else ""
    return [
        "## Sampling",
        "",
        "With torch and diffusers installed; the code in this folder is run, so read it first:",
        "",
        "```python",
        "import torch",
        "from diffusers import DiffusionPipeline",
        "",
        f"pipe = DiffusionPipeline.from_pretrained({name!r}, trust_remote_code=True)",
        "seeds = [torch.Generator().manual_seed(i) for i in range(16)]",
        f"images = pipe(16, num_inference_steps=2, generator=seeds{labels}).images",
        "```",
        "",
        "With a generator for each image, image i depends on its seed alone. One step is at noise",
        "level s = sigma / alpha = 80, two at those of the study's sampler, or with none at 80 and",
        "0.821 (ECT's for CIFAR-10). `timesteps=[k, 0]` are s = 80 and that of index k, of 0 to",
        "1000: s = (80^(1/7) + k / 1000 (0.002^(1/7) - 80^(1/7)))^7. Other numbers of steps are",
        "spread over these indices. The code is of the pipeline (Apache-2.0). The terms of the",
        "training images, and of the start where it came from elsewhere, hold for the weights too.",
        "",
    ]


def known_lines(samplers):
    """The samplers of the model's study; no lines without any."""
    if not samplers:
        return []
    each = [f"- {code_span(name)}: {steps.described(how)}" for name, how in samplers.items()]
    return ["The samplers of its study, by their number of steps:", "", *each, ""]


def citation_lines():
    return ["## Citation", "", "```bibtex", CITATION, "```"]

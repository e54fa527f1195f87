"""The model card: README.md of an exported folder, with the front matter of Hugging Face."""

import json

from ect.models import build, steps
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


def text(about, run, samplers):
    """The card of a model; `run` is its run.json, or None, `samplers` those of its study."""
    parts = [front_matter(run), *model_lines(about, run), *training_lines(run)]
    return "\n".join([*parts, *sampling_lines(about, run, samplers), *citation_lines()]) + "\n"


def kind_of(run):
    if run is None:
        return "network"
    if run["settings"]["schedule"]["map"] == "zero":
        return "diffusion or flow model"
    return "consistency model"


def front_matter(run):
    """The licence is this project's if every weight was trained here, and unknown otherwise."""
    known = run is not None and "network" in run["settings"]
    lines = ["license: " + ("apache-2.0" if known else "unknown")]
    lines += ["pipeline_tag: unconditional-image-generation", "tags:", "- consistency-models"]
    return "\n".join(["---", *lines, "- easy-consistency-tuning", "---", ""])


def model_lines(about, run):
    depth, height, width = about["shape"]
    count = build.parameters(about["network"], about["shape"])
    process, form = about["process"], about["parameterization"]
    betas = f", betas {json.dumps(about['betas'])}" if "betas" in about else ""
    return [
        f"# A {kind_of(run)} for images of {height} x {width} x {depth}",
        "",
        "It maps a noisy image x_t to an estimate f(x_t, t) of the image x_0, with f(x, 0) = x. It",
        "was made by the pipeline for Easy Consistency Tuning (ECT).",
        "",
        f"- Network: {code_span(about['network'].get('architecture', 'ddpmpp'))},"
        f" {count:,} parameters, {about['network'].get('classes', 0) or 'no'} classes",
        f"- Process: {code_span(process)}: {PROCESSES.get(process, 'see config.json')}{betas}",
        f"- Parameterization: {code_span(form)}: {PARAMETERIZATIONS.get(form, 'see config.json')}",
        f"- Pixels: x = (pixel - {about['shift']:g}) * {about['scale']:g}",
        "- All of it, exactly: `config.json`",
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


def sampling_lines(about, run, samplers):
    solver = kind_of(run) == "diffusion or flow model"
    more = ", diffusers" if about["network"].get("architecture") == "unet2d" else ""
    drawn = "--sampler heun --steps 18" if solver else "--steps 2"
    study = [
        f"- {code_span(name)}: {steps.described(options)}" for name, options in samplers.items()
    ]
    known = ["The samplers of its study (`sampling.json`), by their number of steps:", "", *study]
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
        *([*known, ""] if samplers else []),
    ]


def citation_lines():
    return ["## Citation", "", "```bibtex", CITATION, "```"]

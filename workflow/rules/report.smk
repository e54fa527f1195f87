# Tables and figures: files in, files out. A figure depends on its own files and its own width.
from hashlib import sha256

from ect.jobs import grid, jobs

TABLES = expand(f"{ROOT}/tables/{{experiment}}.csv", experiment=STUDY.experiments)
TABLES += [PAPER_TABLE] if PAPER else []
PLOTS = list(STUDY.experiments) + ["maps", "curves", "samples", "loss"]
FIGURES = expand(f"{ROOT}/figures/{{figure}}.{{kind}}", figure=PLOTS, kind=["pdf", "png"])
KIND = {name: experiment.kind for name, experiment in STUDY.experiments.items()}


# {label: the logs of a run, in order}: whole pretraining chains, and tunings of the first seed.
RUNS = {
    f"pretrain {chain}": [f"{ROOT}/{m.folder}/metrics.jsonl" for m in STUDY.chain(chain)]
    for chain in STUDY.pretrain
} | {
    f"{m.schedule}, {m.recipe}, {m.start.pretrain} {m.start.kimg} + {m.kimg}": [
        f"{ROOT}/{m.folder}/metrics.jsonl"
    ]
    for m in TUNED
    if m.seed == 0
}

# The rows of the grid of samples: the solver and one step before, every consistency sampler after.
AFTER = STUDY.shown("samples")
GRID = [
    [
        f"{STUDY.samplers[cell.sampler].label}, {'after' if cell.model == AFTER else 'before'}",
        f"{ROOT}/{cell.folder}/samples.npz",
    ]
    for cell in grid(STUDY)
]

# The models whose times are searched, as the rows of their table say it.
SEARCHES = [
    {
        "schedule": m.schedule,
        "pretrain": m.start.pretrain,
        "recipe": m.recipe,
        "kimg": m.start.kimg,
        "tune_kimg": m.kimg,
        "seed": m.seed,
        "path": f"{ROOT}/{m.folder}/steps.json",
    }
    for m in STUDY.searched()
]


# The page, its captions, and the records of all that trained and drew.
PAGE = f"{ROOT}/index.html"
CAPTIONS = ["experiment", "samples", "loss", "maps", "curves", "steps", "paper"]
RECORDED = {
    "prepare_data": "run.json",
    "train_classifier": "run.json",
    "pretrain": "run.json",
    "tune": "run.json",
    "sample": "run.json",
    "extract": "features.json",
    "extract_reference": "reference.json",
}
RECORDS = [
    f"{ROOT}/{Path(job.path).with_name(RECORDED[job.rule])}"
    for job in jobs(STUDY)
    if job.rule in RECORDED
]


def shown_on_page():
    """The page's settings: the hash of the config, questions, and the files of each."""
    alone = {"steps": SEARCHED, "paper": [PAPER_TABLE] if PAPER else []}
    schedules = {name: block.resolved() for name, block in STUDY.schedules.items()}
    config = as_json({**STUDY.model_dump(mode="json"), "schedules": schedules})
    return {
        "study": STUDY.study,
        "config": sha256(config.encode()).hexdigest(),
        "samplers": {name: sampler.label for name, sampler in STUDY.samplers.items()},
        "experiments": {
            name: {
                "question": experiment.question,
                "kind": experiment.kind,
                "table": f"{ROOT}/tables/{name}.csv",
                "figure": f"{ROOT}/figures/{name}.png",
            }
            for name, experiment in STUDY.experiments.items()
        },
        "figures": {
            name: f"{ROOT}/figures/{name}.png" for name in ("samples", "loss", "maps", "curves")
        },
        "tables": {name: paths[0] for name, paths in alone.items() if paths},
    }


def drawing(figure, **settings):
    """The settings of a figure: its width, its files, its options. They must not be read off
    `input`, since Snakemake does not compare params that are."""
    return placed(as_json({"width_in": STUDY.figures.width(figure), **settings}))


def solvers_of(experiment):
    """The kind of each sampler, for the table and the figure of an experiment that compares them."""
    compared = KIND[experiment] == "solvers"
    return {"solvers": STUDY.solvers(experiment)} if compared else {}


def tabulating(experiment):
    """The words of `tabulate` that say what an experiment asks."""
    more = [f"--{key}={as_json(value)}" for key, value in solvers_of(experiment).items()]
    return shlex.join([KIND[experiment], *more])


rule tabulate:
    input:
        metrics=lambda wildcards: metrics_of(wildcards.experiment),
        floor=FLOOR,
    output:
        csv=report(
            f"{ROOT}/tables/{{experiment}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"experiment": "{experiment}"},
        ),
        md=f"{ROOT}/tables/{{experiment}}.md",
        tex=f"{ROOT}/tables/{{experiment}}.tex",
    params:
        kind=lambda wildcards: tabulating(wildcards.experiment),
        out=subpath(output.csv, strip_suffix=".csv"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect tabulate {params.kind} --metrics {input.metrics:q} --floor {input.floor:q}"
        " --out {params.out:q}"


# The times that were searched, of every model whose times were.
rule tabulate_steps:
    input:
        [f"{ROOT}/{model.folder}/steps.json" for model in STUDY.searched()],
    output:
        csv=report(
            f"{ROOT}/tables/steps.csv",
            caption="../report/steps.rst",
            category="Tables",
            labels={"experiment": "searched times"},
        ),
        md=f"{ROOT}/tables/steps.md",
        tex=f"{ROOT}/tables/steps.tex",
    params:
        settings=placed(as_json({"models": SEARCHES})),
        out=subpath(output.csv, strip_suffix=".csv"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect tabulate-steps {params.settings:q} --out {params.out:q}"


# Published numbers with their sources, and ours beside them.
rule tabulate_paper:
    input:
        published=PUBLISHED,
        metrics=[path for cell in PAPER.get("cells", []) for path in cell["metrics"]],
    output:
        csv=report(
            PAPER_TABLE,
            caption="../report/paper.rst",
            category="Tables",
            labels={"experiment": "published and ours"},
        ),
        md=f"{ROOT}/tables/paper.md",
        tex=f"{ROOT}/tables/paper.tex",
    params:
        settings=placed(as_json(PAPER)),
        out=subpath(output.csv, strip_suffix=".csv"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect tabulate-paper {params.settings:q} --published {input.published:q}"
        " --out {params.out:q}"


# FD against NFE, against the share of pretraining, or by schedule, as the experiment's kind asks.
rule draw_experiment:
    input:
        metrics=lambda wildcards: metrics_of(wildcards.experiment),
        floor=FLOOR,
    output:
        pdf=f"{ROOT}/figures/{{experiment}}.pdf",
        png=report(
            f"{ROOT}/figures/{{experiment}}.png",
            caption="../report/experiment.rst",
            category="Figures",
            labels={"figure": "{experiment}"},
        ),
    params:
        kind=lambda wildcards: KIND[wildcards.experiment],
        settings=lambda wildcards: drawing(
            wildcards.experiment,
            metrics=metrics_of(wildcards.experiment),
            floor=FLOOR,
            **solvers_of(wildcards.experiment),
        ),
        out=subpath(output.pdf, strip_suffix=".pdf"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect draw {params.kind} {params.settings:q} --out {params.out:q}"


# The maps t -> r, stage by stage.
rule draw_maps:
    output:
        pdf=f"{ROOT}/figures/maps.pdf",
        png=report(
            f"{ROOT}/figures/maps.png",
            caption="../report/maps.rst",
            category="Figures",
            labels={"figure": "maps"},
        ),
    params:
        settings=drawing("maps", **STUDY.maps()),
        out=subpath(output.pdf, strip_suffix=".pdf"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect draw maps {params.settings:q} --out {params.out:q}"


# The training loss of every chain and of the tunings of the first seed.
rule draw_curves:
    input:
        [path for paths in RUNS.values() for path in paths],
    output:
        pdf=f"{ROOT}/figures/curves.pdf",
        png=report(
            f"{ROOT}/figures/curves.png",
            caption="../report/curves.rst",
            category="Figures",
            labels={"figure": "curves"},
        ),
    params:
        settings=drawing("curves", runs=RUNS),
        out=subpath(output.pdf, strip_suffix=".pdf"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect draw curves {params.settings:q} --out {params.out:q}"


# Data, and samples before and after tuning from the same noise in every column.
rule draw_samples:
    input:
        data=DATA,
        samples=[path for _, path in GRID],
    output:
        pdf=f"{ROOT}/figures/samples.pdf",
        png=report(
            f"{ROOT}/figures/samples.png",
            caption="../report/samples.rst",
            category="Figures",
            labels={"figure": "samples"},
        ),
    params:
        settings=drawing("samples", rows=GRID, data=DATA, columns=STUDY.figures.grid_columns),
        out=subpath(output.pdf, strip_suffix=".pdf"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect draw samples {params.settings:q} --out {params.out:q}"


# Why the loss stays flat while the samples improve.
rule draw_loss:
    input:
        metrics=f"{LOSS}/metrics.jsonl",
        trace=f"{LOSS}/trace.csv",
    output:
        pdf=f"{ROOT}/figures/loss.pdf",
        png=report(
            f"{ROOT}/figures/loss.png",
            caption="../report/loss.rst",
            category="Figures",
            labels={"figure": "loss"},
        ),
    params:
        settings=drawing(
            "loss",
            metrics=f"{LOSS}/metrics.jsonl",
            trace=f"{LOSS}/trace.csv",
            stages=STUDY.stages_of(STUDY.shown("loss")),
        ),
        out=subpath(output.pdf, strip_suffix=".pdf"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect draw loss {params.settings:q} --out {params.out:q}"


# One page to open in a browser: `snakemake --cores all write_page`.
rule write_page:
    input:
        template=f"{HOME}/workflow/report/page.html",
        captions=expand(f"{HOME}/workflow/report/{{name}}.rst", name=CAPTIONS),
        tables=TABLES + SEARCHED,
        figures=[path for path in FIGURES if path.endswith(".png")],
        runs=RECORDS,
    output:
        PAGE,
    params:
        settings=placed(as_json(shown_on_page())),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect write-page {params.settings:q} --template {input.template:q}"
        " --runs {input.runs:q} --out {output:q}"

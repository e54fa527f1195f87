# Figures: files in, files out. A figure depends on its own files and its own width.
from ect.study.jobs import drawn, grid

PLOTS = [*STUDY.experiments, *drawn(STUDY), *(["nearest"] if COMPARED else [])]
FIGURES = expand(f"{ROOT}/figures/{{figure}}.{{kind}}", figure=PLOTS, kind=["pdf", "png"])

# {label: the logs of a run, in order}: whole pretraining chains that are used, and tuning runs of seed 0.
RUNS = {
    f"pretrain {chain}": [f"{ROOT}/{m.folder}/metrics.jsonl" for m in STUDY.chain(chain)]
    for chain in STUDY.pretrain
    if STUDY.chain(chain)
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


def plotting(figure, **settings):
    """The settings of a figure: its width, its files, its options. They must not depend on
    `input`, since Snakemake does not compare params that do."""
    return placed(as_json({"width_in": STUDY.figures.width(figure), **settings}))


# FD against NFE, against the share of pretraining, or by schedule, as the experiment's kind asks.
rule draw_experiment:
    input:
        metrics=lambda wildcards: metrics_of(wildcards.experiment),
        floor=FLOOR,
    output:
        pdf=f"{ROOT}/figures/{{experiment}}.pdf",
        png=report(
            f"{ROOT}/figures/{{experiment}}.png",
            caption="../../ect/report/templates/experiment.rst",
            category="Figures",
            labels={"figure": "{experiment}"},
        ),
    params:
        kind=lambda wildcards: KIND[wildcards.experiment],
        settings=lambda wildcards: plotting(
            wildcards.experiment,
            metrics=metrics_of(wildcards.experiment),
            **({"floor": FLOOR[0]} if FLOOR else {}),
            **solvers_of(wildcards.experiment),
            **about_of(wildcards.experiment),
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
            caption="../../ect/report/templates/maps.rst",
            category="Figures",
            labels={"figure": "maps"},
        ),
    params:
        settings=verbatim(plotting("maps", **settings.plot_maps(STUDY))),
        out=subpath(output.pdf, strip_suffix=".pdf"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect draw maps {params.settings:q} --out {params.out:q}"


# The training loss of every chain and of the tuning runs of seed 0.
rule draw_curves:
    input:
        [path for paths in RUNS.values() for path in paths],
    output:
        pdf=f"{ROOT}/figures/curves.pdf",
        png=report(
            f"{ROOT}/figures/curves.png",
            caption="../../ect/report/templates/curves.rst",
            category="Figures",
            labels={"figure": "curves"},
        ),
    params:
        settings=verbatim(plotting("curves", runs=RUNS)),
        out=subpath(output.pdf, strip_suffix=".pdf"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect draw curves {params.settings:q} --out {params.out:q}"


# Data, and samples before and after tuning from the same noise in every column.
if AFTER is not None:

    rule draw_samples:
        input:
            data=DATA,
            samples=[path for _, path in GRID],
        output:
            pdf=f"{ROOT}/figures/samples.pdf",
            png=report(
                f"{ROOT}/figures/samples.png",
                caption="../../ect/report/templates/samples.rst",
                category="Figures",
                labels={"figure": "samples"},
            ),
        params:
            settings=verbatim(
                plotting("samples", rows=GRID, data=DATA, columns=STUDY.figures.grid_columns)
            ),
            out=subpath(output.pdf, strip_suffix=".pdf"),
            version=STAGES["report"],
        conda:
            "../../envs/ect.yaml"
        shell:
            "python -m ect draw samples {params.settings:q} --out {params.out:q}"


# Generated images beside their nearest training images, and held-out ones beside theirs.
rule draw_nearest:
    input:
        nearest=[f"{folder}/nearest.safetensors" for folder in COMPARED],
        samples=[f"{folder}/samples.npz" for folder in COMPARED],
        data=DATA,
    output:
        pdf=f"{ROOT}/figures/nearest.pdf",
        png=report(
            f"{ROOT}/figures/nearest.png",
            caption="../../ect/report/templates/nearest.rst",
            category="Figures",
            labels={"figure": "nearest"},
        ),
    params:
        settings=verbatim(
            plotting(
                "nearest",
                nearest=next((f"{folder}/nearest.safetensors" for folder in COMPARED), None),
                samples=next((f"{folder}/samples.npz" for folder in COMPARED), None),
                data=DATA,
                columns=STUDY.figures.grid_columns,
            )
        ),
        out=subpath(output.pdf, strip_suffix=".pdf"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect draw nearest {params.settings:q} --out {params.out:q}"


# Why the loss stays flat while the samples improve.
if STUDY.shown("loss") is not None:
    LOSS = f"{ROOT}/{STUDY.shown('loss').folder}"
    PERFECT = [f"{LOSS}/perfect.csv"] if STUDY.has_pairs(STUDY.shown("loss")) else []

    rule draw_loss:
        input:
            metrics=f"{LOSS}/metrics.jsonl",
            trace=f"{LOSS}/trace.csv",
            perfect=PERFECT,
        output:
            pdf=f"{ROOT}/figures/loss.pdf",
            png=report(
                f"{ROOT}/figures/loss.png",
                caption="../../ect/report/templates/loss.rst",
                category="Figures",
                labels={"figure": "loss"},
            ),
        params:
            settings=verbatim(
                plotting(
                    "loss",
                    metrics=f"{LOSS}/metrics.jsonl",
                    trace=f"{LOSS}/trace.csv",
                    stages=STUDY.stages_of(STUDY.shown("loss")),
                    perfect=next(iter(PERFECT), None),
                )
            ),
            out=subpath(output.pdf, strip_suffix=".pdf"),
            version=STAGES["report"],
        conda:
            "../../envs/ect.yaml"
        shell:
            "python -m ect draw loss {params.settings:q} --out {params.out:q}"

# Tables: files in, files out.

TABLES = expand(f"{ROOT}/tables/{{experiment}}.csv", experiment=STUDY.experiments)
TABLES += [PAPER_TABLE] if PAPER else []
TABLES += [f"{ROOT}/tables/nearest.csv"] if COMPARED else []
KIND = {name: experiment.kind for name, experiment in STUDY.experiments.items()}


# The models whose times are searched, as rows of their table.
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


def solvers_of(experiment):
    """The kind of each sampler, for the table and the figure of an experiment that compares them."""
    compared = KIND[experiment] == "solvers"
    return {"solvers": STUDY.solvers(experiment)} if compared else {}


def about_of(experiment):
    """What the metrics of an experiment do not say of its starts or schedules."""
    if KIND[experiment] == "noise":
        starts = {start for rows in STUDY.experiments[experiment].rows for start in rows.pretrain}
        return {"about": {start: settings.conditions(STUDY, start) for start in sorted(starts)}}
    if KIND[experiment] == "lengths":
        return {"about": STUDY.lengths(experiment)}
    return {"about": settings.ends(STUDY, experiment)} if KIND[experiment] == "ends" else {}


def tabulating(experiment):
    """The arguments of `tabulate` for an experiment: its kind and options."""
    more = {**solvers_of(experiment), **about_of(experiment)}
    return shlex.join([KIND[experiment], *(f"--{k}={as_json(v)}" for k, v in more.items())])


def floor_option(wildcards, input):
    """The option --floor, where images are held out. Snakemake does not compare it: see `leased`."""
    return " ".join(f"--floor {shlex.quote(path)}" for path in input.get("floor", []))


rule tabulate:
    input:
        metrics=lambda wildcards: metrics_of(wildcards.experiment),
        floor=FLOOR,
    output:
        csv=report(
            f"{ROOT}/tables/{{experiment}}.csv",
            caption="../../ect/report/templates/table.rst",
            category="Tables",
            labels={"experiment": "{experiment}"},
        ),
        md=f"{ROOT}/tables/{{experiment}}.md",
        tex=f"{ROOT}/tables/{{experiment}}.tex",
    params:
        kind=lambda wildcards: tabulating(wildcards.experiment),
        floor=floor_option,
        out=subpath(output.csv, strip_suffix=".csv"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect tabulate {params.kind} --metrics {input.metrics:q} {params.floor}"
        " --out {params.out:q}"


# The searched times of every model that has some.
rule tabulate_steps:
    input:
        [f"{ROOT}/{model.folder}/steps.json" for model in STUDY.searched()],
    output:
        csv=report(
            f"{ROOT}/tables/steps.csv",
            caption="../../ect/report/templates/steps.rst",
            category="Tables",
            labels={"experiment": "searched times"},
        ),
        md=f"{ROOT}/tables/steps.md",
        tex=f"{ROOT}/tables/steps.tex",
    params:
        settings=verbatim(placed(as_json({"models": SEARCHES}))),
        out=subpath(output.csv, strip_suffix=".csv"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect tabulate-steps {params.settings:q} --out {params.out:q}"


# How near generated images lie to training images.
rule tabulate_nearest:
    input:
        [f"{folder}/nearest.safetensors" for folder in COMPARED],
    output:
        csv=report(
            f"{ROOT}/tables/nearest.csv",
            caption="../../ect/report/templates/nearest.rst",
            category="Tables",
            labels={"experiment": "nearest training images"},
        ),
        md=f"{ROOT}/tables/nearest.md",
        tex=f"{ROOT}/tables/nearest.tex",
    params:
        out=subpath(output.csv, strip_suffix=".csv"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect tabulate-nearest {input:q} --out {params.out:q}"


# Published numbers with their sources, and ours beside them.
rule tabulate_paper:
    input:
        published=PUBLISHED,
        metrics=[path for cell in PAPER.get("cells", []) for path in cell["metrics"]],
    output:
        csv=report(
            PAPER_TABLE,
            caption="../../ect/report/templates/paper.rst",
            category="Tables",
            labels={"experiment": "published and ours"},
        ),
        md=f"{ROOT}/tables/paper.md",
        tex=f"{ROOT}/tables/paper.tex",
    params:
        settings=verbatim(placed(as_json(PAPER))),
        out=subpath(output.csv, strip_suffix=".csv"),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect tabulate-paper {params.settings:q} --published {input.published:q}"
        " --out {params.out:q}"

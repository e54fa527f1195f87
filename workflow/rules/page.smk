# The page: questions, tables, figures, and the records of the jobs that trained and sampled.
from hashlib import sha256

from ect.study.jobs import jobs
from ect.study.noise import planned

# The page, its captions, and the records of the jobs that trained and sampled.
PAGE = f"{ROOT}/index.html"
CAPTIONS = ["experiment", "samples", "loss", "maps", "curves", "steps", "paper", "nearest"]
RECORDED = {
    "prepare_data": "run.json",
    "train_classifier": "run.json",
    "pretrain": "run.json",
    "tune": "run.json",
    "solve_trajectories": "run.json",
    "midtrain": "run.json",
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
    asked = ["nearest"] if COMPARED else []
    alone |= {name: [f"{ROOT}/tables/{name}.csv"] for name in asked}
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
            name: f"{ROOT}/figures/{name}.png"
            for name in ("samples", *asked, "loss", "maps", "curves")
            if name in PLOTS
        },
        "tables": {name: paths[0] for name, paths in alone.items() if paths},
        "planned": planned(STUDY),
    }


# One page to open in a browser: `snakemake --cores all write_page`.
rule write_page:
    input:
        template=f"{TEMPLATES}/page.html",
        captions=[f"{TEMPLATES}/{name}.rst" for name in CAPTIONS],
        tables=TABLES + SEARCHED,
        figures=[path for path in FIGURES if path.endswith(".png")],
        runs=RECORDS,
    output:
        PAGE,
    params:
        settings=verbatim(placed(as_json(shown_on_page()))),
        version=STAGES["report"],
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect write-page {params.settings:q} --template {input.template:q}"
        " --runs {input.runs:q} --out {output:q}"

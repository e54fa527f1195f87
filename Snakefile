# From pixels to tables and figures. `snakemake --cores all` runs the study in config.yaml;
# `--configfile workflow/studies/smoke.yaml` lays another one over it. The method is in ect/.
from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/page.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        EXPORTED,
        SEARCHED,
        PAGE,


rule pretrain_all:
    input:
        [f"{ROOT}/{model.folder}/model.safetensors" for model in MILESTONES],


rule tune_all:
    input:
        [f"{ROOT}/{model.folder}/model.safetensors" for model in TUNED],

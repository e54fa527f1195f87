# From pixels to tables and figures. `snakemake --cores all` runs the study in config.yaml;
# `--configfile workflow/studies/smoke.yaml` lays another one over it. The method is in ect/.
include: "workflow/Snakefile"


rule study:
    default_target: True
    input:
        rules.all.input,

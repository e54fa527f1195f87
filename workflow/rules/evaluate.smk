# Images from every model, their distance to the training images, and what a tuning's snapshots say.

# {repeat} is empty for the first set of images of a cell, /repeat-1, ... for those that follow.
DRAWN = f"{ROOT}/{{model}}/{{sampler}}{{repeat}}"
REPEATS = ["", *(f"/repeat-{index}" for index in range(1, STUDY.evaluation.repeats))]


rule sample:
    input:
        model=f"{ROOT}/{{model}}/model.safetensors",
    output:
        samples=f"{DRAWN}/samples.npz",
        run=f"{DRAWN}/run.json",
    params:
        settings=lambda wildcards: as_json(
            STUDY.sampling(wildcards.sampler, int(wildcards.repeat.removeprefix("/repeat-") or 0))
        ),
        out=subpath(output.samples, parent=True),
        version=STAGES["sample"],
    threads: 1
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} sample {params.settings:q}"
        " --model {input.model:q} --out {params.out:q}"


rule evaluate:
    input:
        classifier_if_used(),
        samples=expand(f"{DRAWN}/samples.npz", repeat=REPEATS, allow_missing=True),
        data=DATA,
    output:
        f"{ROOT}/{{model}}/{{sampler}}/metrics.json",
    params:
        settings=lambda wildcards: as_json(
            STUDY.measuring(CELLS[f"{wildcards.model}/{wildcards.sampler}"])
        ),
        classifier=classifier_option(),
        version=STAGES["evaluate"],
    threads: 1
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} evaluate {params.settings:q}"
        " --samples {input.samples:q} --data {input.data:q} {params.classifier} --out {output:q}"


rule trace_tuning:
    input:
        classifier_if_used(),
        init=f"{MILESTONE}/model.safetensors",
        snapshots=f"{TUNING}/snapshots.safetensors",
        data=DATA,
    output:
        f"{TUNING}/trace.csv",
    params:
        settings=as_json(STUDY.tracing()),
        classifier=classifier_option(),
        version=STAGES["trace"],
    threads: 1
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} trace {params.settings:q} --init {input.init:q}"
        " --snapshots {input.snapshots:q} --data {input.data:q} {params.classifier} --out {output:q}"


# The intermediate times of two and more steps: searched on seeds of their own, then measured on the
# evaluation's.
rule search_steps:
    input:
        classifier_if_used(),
        model=f"{TUNING}/model.safetensors",
        data=DATA,
    output:
        f"{TUNING}/steps.json",
    params:
        settings=as_json(STUDY.searching()),
        classifier=classifier_option(),
        version=STAGES["search"],
    threads: 1
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} search-steps {params.settings:q} --model {input.model:q}"
        " --data {input.data:q} {params.classifier} --out {output:q}"

# Images from every model, their distances to the training images, and the measured snapshots of a
# tuning run.

# {repeat} is empty for the first set of images of a cell, /repeat-1, ... for those that follow;
# {replicate} is empty for the first replicate.
CELL = f"{ROOT}/{{model}}/{{sampler}}{{replicate}}"
DRAWN = f"{CELL}{{repeat}}"
REPEATS = ["", *(f"{os.sep}repeat-{index}" for index in range(1, STUDY.evaluation.repeats))]

# What is measured of a set: its images, or its features where they are kept. EXPORTED is what is
# made beside that.
EXPORT = STUDY.evaluation.export
MEASURED = "features.safetensors" if "features" in EXPORT else "samples.npz"
EXPORTED = [f"{ROOT}/{cell}{repeat}/png" for cell in CELLS for repeat in REPEATS if "png" in EXPORT]


def set_of(wildcards):
    """The numbers of a set of images and of its replicate."""
    return [int(text.rpartition("-")[2] or 0) for text in (wildcards.repeat, wildcards.replicate)]


def cell_of(wildcards):
    """The cell of the study that a metrics.json is of; raises `ValueError` if there is none."""
    found = "{model}/{sampler}{replicate}".format(**wildcards)
    if found not in CELLS:
        raise ValueError(
            f"{found} is no cell of the study '{STUDY.study}'; allowed: the {len(CELLS)} of its"
            f" experiments, such as {next(iter(CELLS))}"
        )
    return CELLS[found]


rule sample:
    input:
        model=f"{ROOT}/{{model}}/model.safetensors",
    output:
        samples=f"{DRAWN}/samples.npz",
        run=f"{DRAWN}/run.json",
    params:
        settings=lambda wildcards: as_json(
            settings.save_samples(STUDY, wildcards.sampler, *set_of(wildcards))
        ),
        out=subpath(output.samples, parent=True),
        lease=leased,
        version=STAGES["sample"],
    threads: 1
    resources:
        **GPU,
        attempt=attempt_of,
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} --attempt {resources.attempt} sample"
        " {params.settings:q} --model {input.model:q} --out {params.out:q}"
        " {params.lease}"


rule export_images:
    input:
        f"{DRAWN}/samples.npz",
    output:
        directory(f"{DRAWN}/png"),
    params:
        version=STAGES["extract"],
    threads: 1
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} export-images {input:q} {output:q}"


# The training images' features, for every distance of the study.
rule extract_reference:
    input:
        network_if_used,
        data=DATA,
    output:
        features=REFERENCE,
        run=f"{ROOT}/features/reference.json",
    params:
        settings=verbatim(as_json(settings.extract(STUDY))),
        classifier=verbatim(classifier_option()),
        lease=leased_one,
        version=STAGES["extract"],
    threads: 1
    resources:
        **GPU,
        attempt=attempt_of,
    cache: "hash-omit-software"
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} --attempt {resources.attempt} extract"
        " {params.settings:q} --data {input.data:q} {params.classifier} --out {output.features:q}"
        " {params.lease}"


# What metrics need of these features, computed once for all evaluations.
rule summarize_reference:
    input:
        reference=REFERENCE,
    output:
        SUMMARY,
    params:
        settings=verbatim(as_json(settings.summarize(STUDY))),
        version=STAGES["evaluate"],
    threads: 1
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} summarize {params.settings:q}"
        " --reference {input.reference:q} --out {output:q}"


# The features of a set of images, for every metric of it; where samples.npz is not exported, the
# images go from the sampler to the features and nowhere else.
rule extract:
    input:
        network_if_used,
        source=f"{DRAWN}/samples.npz" if "npz" in EXPORT else f"{ROOT}/{{model}}/model.safetensors",
    output:
        features=f"{DRAWN}/features.safetensors",
        run=f"{DRAWN}/features.json",
    params:
        settings=lambda wildcards: as_json(
            settings.extract(STUDY, wildcards.sampler, *set_of(wildcards))
        ),
        source="--samples" if "npz" in EXPORT else "--model",
        classifier=verbatim(classifier_option()),
        lease=leased,
        version=STAGES["extract"],
    threads: 1
    resources:
        **GPU,
        attempt=attempt_of,
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} --attempt {resources.attempt} extract"
        " {params.settings:q} {params.source} {input.source:q} {params.classifier}"
        " --out {output.features:q} {params.lease}"


rule evaluate:
    input:
        network_if_used,
        samples=expand(f"{DRAWN}/{MEASURED}", repeat=REPEATS, allow_missing=True),
        reference=REFERENCE,
        summary=SUMMARY,
    output:
        f"{CELL}/metrics.json",
    params:
        settings=lambda wildcards: as_json(settings.evaluate(STUDY, cell_of(wildcards))),
        classifier=verbatim(classifier_option()),
        lease=leased_one,
        version=STAGES["evaluate"],
    threads: 1
    resources:
        **(GPU if MEASURED == "samples.npz" else {}),
        attempt=attempt_of,
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} --attempt {resources.attempt} evaluate"
        " {params.settings:q} --samples {input.samples:q} --reference {input.reference:q}"
        " --summary {input.summary:q} {params.classifier} --out {output:q} {params.lease}"


# How near the images of a cell lie to training images, beside how near held-out ones do.
rule find_nearest:
    input:
        network_if_used,
        samples=f"{CELL}/samples.npz",
        data=DATA,
        reference=REFERENCE,
    output:
        f"{CELL}/nearest.safetensors",
    params:
        settings=verbatim(as_json(settings.find_nearest(STUDY))),
        classifier=verbatim(classifier_option()),
        lease=leased_one,
        version=STAGES["nearest"],
    threads: 1
    resources:
        **GPU,
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} find-nearest {params.settings:q}"
        " --samples {input.samples:q} --data {input.data:q} --reference {input.reference:q}"
        " {params.classifier} --out {output:q} {params.lease}"


rule trace_tuning:
    input:
        network_if_used,
        init=f"{MILESTONE}/model.safetensors",
        snapshots=f"{TUNING}/snapshots.safetensors",
        data=DATA,
        reference=REFERENCE,
    output:
        f"{TUNING}/trace.csv",
    params:
        settings=verbatim(as_json(settings.trace(STUDY))),
        classifier=verbatim(classifier_option()),
        lease=leased_one,
        version=STAGES["trace"],
    threads: 1
    resources:
        **GPU,
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} trace {params.settings:q} --init {input.init:q}"
        " --snapshots {input.snapshots:q} --data {input.data:q} --reference {input.reference:q}"
        " {params.classifier} --out {output:q} {params.lease}"


# The intermediate times of two and more steps: searched on seeds of their own, then measured on the
# evaluation's.
rule search_steps:
    input:
        network_if_used,
        model=f"{TUNING}/model.safetensors",
        reference=REFERENCE,
    output:
        f"{TUNING}/steps.json",
    params:
        settings=verbatim(as_json(settings.search_steps(STUDY))),
        classifier=verbatim(classifier_option()),
        lease=leased_one,
        version=STAGES["search"],
    threads: 1
    resources:
        **GPU,
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} search-steps {params.settings:q} --model {input.model:q}"
        " --reference {input.reference:q} {params.classifier} --out {output:q} {params.lease}"

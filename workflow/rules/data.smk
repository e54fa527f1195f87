# Images, and the feature space in which distances are measured.


def content_of(dataset):
    """The fingerprint of a folder of images: its files' names, sizes and modification times."""
    folder, suffix = dataset.folder, SHARDS.get(dataset.source)
    return fingerprint(folder, suffix) if folder and Path(folder).exists() else ""


def archive_if_used(wildcards):
    return outside([STUDY.dataset.archive] if STUDY.dataset.archive else [])


rule prepare_data:
    input:
        archive_if_used,
    output:
        data=DATA,
        run=f"{ROOT}/data/run.json",
    params:
        settings=verbatim(as_json(STUDY.dataset.resolved())),
        content=lambda wildcards: content_of(STUDY.dataset),
        version=STAGES["prepare"],
    threads: 8
    cache: "hash-omit-software"
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} prepare {params.settings:q} --out {output.data:q}"


rule train_classifier:
    input:
        data=DATA,
    output:
        weights=CLASSIFIER,
        run=f"{ROOT}/features/run.json",
    params:
        settings=verbatim(as_json(settings.train_classifier(STUDY))),
        lease=leased_one,
        version=STAGES["classifier"],
        out=subpath(output[0], parent=True),
    threads: 1
    resources:
        **GPU,
    cache: "hash-omit-software"
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} train-classifier {params.settings:q}"
        " --data {input.data:q} --out {params.out:q} {params.lease}"


# Weights that the study does not train and its config does not name: one download for all studies.
# It has no params and no input, so that a file put there by hand stays.
rule fetch_inception:
    output:
        outside([FETCHED]),
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect fetch-inception --out {output:q}"


# Real images that no model saw, against the training images: what a perfect model would score.
rule measure_floor:
    input:
        network_if_used,
        data=DATA,
        reference=REFERENCE,
        summary=SUMMARY,
    output:
        f"{ROOT}/data/floor.json",
    params:
        settings=verbatim(as_json(settings.evaluate(STUDY, None))),
        classifier=verbatim(classifier_option()),
        lease=leased_one,
        version=STAGES["evaluate"],
    threads: 1
    resources:
        **GPU,
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} evaluate {params.settings:q}"
        " --data {input.data:q} --reference {input.reference:q} --summary {input.summary:q}"
        " {params.classifier} --out {output:q} {params.lease}"

# Training: a chain of pretraining milestones, and tuning runs that branch off it. Both are the verb
# `train`; pretraining is the schedule r = 0. Each job has one thread, so that results do not depend
# on --cores and two cores run two jobs. A stopped job goes on from its saved state, and a job that
# would only crash again fails at once: retries lose nothing.

MILESTONE = f"{ROOT}/pretrain/{{pretrain}}/s{{start_seed}}/k{{kimg}}"
TUNING = f"{ROOT}/tune/{{pretrain}}/s{{start_seed}}/k{{kimg}}/{{schedule}}/{{recipe}}/k{{tune_kimg}}/s{{seed}}"
SOLVED = f"{ROOT}/trajectories/{{trajectories}}"
# Recipes of mid-training.
MIDDLE = [name for name, recipe in STUDY.tune.items() if recipe.trajectories is not None]
# On a cluster a job runs in a Snakemake of its own. That must not retry, since the job's time limit
# may be over: the Snakemake that submits jobs does.
RETRIES = 3 if workflow.is_main_process else 0


def milestone_of(wildcards):
    return Milestone(wildcards.pretrain, int(wildcards.start_seed), int(wildcards.kimg))


def tuned_of(wildcards):
    return Tuned(
        milestone_of(wildcards),
        wildcards.schedule,
        wildcards.recipe,
        int(wildcards.tune_kimg),
        int(wildcards.seed),
    )


def state_before(wildcards):
    """The state that a milestone continues; nothing for the random start of the chain."""
    kimg = int(wildcards.kimg)
    if kimg == 0:
        return []
    before = STUDY.pretrain[wildcards.pretrain].before(kimg)
    return [f"{MILESTONE}/state.safetensors".format(**{**wildcards, "kimg": before})]


def read_of(wildcards):
    """What an import reads: one file, or the files of a folder; a state dict also the dataset."""
    block = STUDY.init[wildcards.pretrain]
    return {
        "parts" if block.format == "diffusers" else "file": outside(block.files()),
        "data": [DATA] if block.format == "state_dict" else [],
    }


def distance_of(wildcards):
    """The weights of a recipe's distance, where it is LPIPS."""
    return outside(STUDY.tune[wildcards.recipe].distance.files)


def granted(wildcards, resources):
    """The options of `train` that depend on resources; no change of these re-runs a job. Where a
    profile sets `runtime` (minutes), a time limit: the run saves its state and stops a little
    before, and a retry goes on. Where one sets `gpu`, the number of GPUs to lease.
    """
    minutes, words = resources.get("runtime"), leased(wildcards, resources)
    if not isinstance(minutes, int):
        return words
    return f"--max-minutes {minutes - min(5, minutes / 4):g} {words}".rstrip()


rule import_model:
    input:
        unpack(read_of),
    output:
        f"{MILESTONE}/model.safetensors",
    params:
        format=lambda wildcards: settings.import_model(STUDY, wildcards.pretrain),
        file=lambda wildcards, input: input.get("file", []),
        data=lambda wildcards, input: f"--data {shlex.quote(str(input.data))}" if input.data else "",
        version=lambda wildcards: settings.import_version(STUDY, wildcards.pretrain),
    wildcard_constraints:
        pretrain=one_of(STUDY.init),
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect import-model {params.format} {params.file:q} {params.data} --out {output:q}"


def averaged(wildcards):
    """The milestones that an average is of."""
    return STUDY.milestones_of(wildcards.pretrain, int(wildcards.start_seed))


# A start that averages the weights of a chain over a length that its runs did not keep.
rule reconstruct_average:
    input:
        states=lambda wildcards: [
            f"{ROOT}/{milestone.folder}/state.safetensors" for milestone in averaged(wildcards)
        ],
        model=lambda wildcards: f"{ROOT}/{averaged(wildcards)[-1].folder}/model.safetensors",
    output:
        f"{MILESTONE}/model.safetensors",
    params:
        settings=lambda wildcards: as_json(settings.reconstruct_average(STUDY, wildcards.pretrain)),
        version=STAGES["average"],
    wildcard_constraints:
        pretrain=one_of(STUDY.averages),
    threads: 1
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} reconstruct-average {params.settings:q}"
        " --model {input.model:q} --states {input.states:q} --out {output:q}"


# A tuned model as a start: its file, as that of a start from elsewhere.
rule adopt_tuned:
    input:
        lambda wildcards: f"{ROOT}/{STUDY.origin(wildcards.pretrain).folder}/model.safetensors",
    output:
        f"{MILESTONE}/model.safetensors",
    params:
        version=STAGES["import"],
    wildcard_constraints:
        pretrain=one_of(STUDY.tuned),
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect import-model ect {input:q} --out {output:q}"


rule pretrain:
    input:
        data=DATA,
        resume=state_before,
    output:
        model=f"{MILESTONE}/model.safetensors",
        state=f"{MILESTONE}/state.safetensors",
        metrics=f"{MILESTONE}/metrics.jsonl",
        run=f"{MILESTONE}/run.json",
    params:
        settings=lambda wildcards: as_json(settings.train(STUDY, milestone_of(wildcards))),
        resume=lambda wildcards, input: (
            f"--resume {shlex.quote(str(input.resume))}" if input.resume else ""
        ),
        limit=granted,
        out=subpath(output.model, parent=True),
        version=STAGES["train"],
    wildcard_constraints:
        pretrain=one_of(STUDY.pretrain),
    threads: 1
    resources:
        **GPU,
        attempt=attempt_of,
    retries: RETRIES
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} --attempt {resources.attempt} train"
        " {params.settings:q} --data {input.data:q} {params.resume}"
        " --out {params.out:q} --hold {params.limit}"


rule tune:
    input:
        data=DATA,
        init=f"{MILESTONE}/model.safetensors",
        distance=distance_of,
    output:
        model=f"{TUNING}/model.safetensors",
        snapshots=f"{TUNING}/snapshots.safetensors",
        metrics=f"{TUNING}/metrics.jsonl",
        run=f"{TUNING}/run.json",
    params:
        settings=lambda wildcards: as_json(settings.train(STUDY, tuned_of(wildcards))),
        limit=granted,
        out=subpath(output.model, parent=True),
        version=STAGES["train"],
    wildcard_constraints:
        recipe=one_of([name for name in STUDY.tune if name not in MIDDLE]),
    threads: 1
    resources:
        **GPU,
        attempt=attempt_of,
    retries: RETRIES
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} --attempt {resources.attempt} train"
        " {params.settings:q} --data {input.data:q} --init {input.init:q}"
        " --out {params.out:q} --hold {params.limit}"


# Mid-training (CMT): a recipe that reads solved trajectories of a pretrained model in place of
# images with noise. What it makes is a start of the block `tuned`, as a rule.
rule solve_trajectories:
    input:
        model=lambda wildcards: (
            f"{ROOT}/{STUDY.teacher(wildcards.trajectories).folder}/model.safetensors"
        ),
    output:
        points=f"{SOLVED}/trajectories.safetensors",
        run=f"{SOLVED}/run.json",
    params:
        settings=lambda wildcards: as_json(
            settings.solve_trajectories(STUDY, wildcards.trajectories)
        ),
        out=subpath(output.points, parent=True),
        lease=leased_one,
        version=STAGES["trajectories"],
    wildcard_constraints:
        trajectories=one_of(STUDY.trajectories),
    threads: 1
    resources:
        **GPU,
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} solve-trajectories {params.settings:q}"
        " --model {input.model:q} --out {params.out:q} {params.lease}"


rule midtrain:
    input:
        data=DATA,
        init=f"{MILESTONE}/model.safetensors",
        trajectories=lambda wildcards: f"{SOLVED}/trajectories.safetensors".format(
            trajectories=STUDY.tune[wildcards.recipe].trajectories
        ),
        distance=distance_of,
    output:
        model=f"{TUNING}/model.safetensors",
        snapshots=f"{TUNING}/snapshots.safetensors",
        metrics=f"{TUNING}/metrics.jsonl",
        run=f"{TUNING}/run.json",
    params:
        settings=lambda wildcards: as_json(settings.train(STUDY, tuned_of(wildcards))),
        limit=granted,
        out=subpath(output.model, parent=True),
        version=STAGES["train"],
    wildcard_constraints:
        recipe=one_of(MIDDLE),
    threads: 1
    resources:
        **GPU,
        attempt=attempt_of,
    retries: RETRIES
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} --attempt {resources.attempt} train"
        " {params.settings:q} --data {input.data:q} --init {input.init:q}"
        " --trajectories {input.trajectories:q} --out {params.out:q} --hold {params.limit}"


# The loss of a perfect model along a tuning run, for Gaussian data of the images' covariance.
rule perfect_loss:
    input:
        data=DATA,
        init=f"{MILESTONE}/model.safetensors",
    output:
        f"{TUNING}/perfect.csv",
    params:
        settings=lambda wildcards: as_json(settings.train(STUDY, tuned_of(wildcards))),
        version=STAGES["perfect"],
    threads: 1
    conda:
        "../../envs/ect.yaml"
    shell:
        "python -m ect --threads {threads} perfect-loss {params.settings:q} --data {input.data:q}"
        " --init {input.init:q} --out {output:q}"

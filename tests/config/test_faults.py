"""Every mistake in a config is one line: file, line, key, what was found, what is allowed, and the
nearest known word. Each case is a study laid over config.yaml."""

import codecs
import re

import pytest

from ect.config import load, places
from ect.config.config import Config, ConfigError
from ect.runtime.text import shown_path
from tests.helpers.configs import ROOT, SEARCH

BASE = ROOT / "config.yaml"
LONG = "a" * 101
ROWS = "experiments:\n  methods:\n    rows:\n      - {pretrain: [ve], kimg: [30], "
TUNED = ROWS + "tune: ect, tune_kimg: 30, schedules: [sigmoid], samplers: [one_step], "
SPLIT = "experiments:\n  split:\n    rows:\n      - {pretrain: [ve], total_kimg: 60, tune: ect, "
PRETRAIN = "pretrain:\n  ve: {"
BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGES = "a0: &a0 {x: 1, y: 2}\nb0: &b0 {x: 1, z: 2}\n" + "".join(
    f"{name}{n}: &{name}{n} {{<<: [*a{n - 1}, *b{n - 1}], {name}: {n}}}\n"
    for n in range(1, 64)
    for name in "ab"
)

# text of a study: the line of the mistake, and words of the message
FAULTS = [
    # what YAML cannot read, or reads in a way of its own
    ("study: digits\ndataset: {source: digits\n", 3, ["not YAML"]),
    ("study: digits\ndataset:\n\tsource: digits\n", 3, ["not YAML", "\\\\t"]),
    ("study: a: b\n", 1, ["not YAML", "mapping values"]),
    ("study: 'a\n", 2, ["not YAML"]),
    ("study: *nosuch\n", 1, ["not YAML", "nosuch", "; allowed: one study in YAML"]),
    ("study: @a\n", 1, ["not YAML"]),
    ("tune:\n  ? [a]\n  : 1\n", 2, ["not YAML", "unhashable"]),
    ("study: !!python/object:os.system a\n", 1, ["not YAML", "tag"]),
    ("study: a\n---\nstudy: b\n", 2, ["not YAML", "document"]),
    ("study: a\n\x07: b\n", 2, ["not YAML", "special characters"]),
    ("study: 2020-13-45\n", 1, ["'2020-13-45'", "a date"]),
    # line ends of YAML alone, in a value, a comment and quotes
    ("study: a\ntune: x\u2028y\n", 2, ["U+2028", "allowed: newline"]),
    ("study: a # b\u2029c\n", 1, ["U+2029", "allowed: newline"]),
    ("study: a\n\nname: 'b\x85c'\n", 3, ["U+0085", "allowed: newline"]),
    # what a job wrote
    ('{"settings": {}, "inputs": {}, "code": {}}', None, ["record of a run", "ect show"]),
    # the same key twice
    ("study: a\nstudy: b\n", 2, ["study: found again, after line 1; allowed: once"]),
    ("tune:\n  ect: {batch: 1, batch: 2}\n", 2, ["batch: found again"]),
    ("tune:\n  ect:\n    batch: 1\n  ect:\n    batch: 2\n", 4, ["ect: found again, after line 2"]),
    ('{"study": "a",\n\t"study": "b"}', 2, ["study: found again"]),
    # numbers that are none, and too long ones
    ("pretrain:\n  ve:\n    ema_ramp: .inf\n", 3, ["ve.ema_ramp", "inf", "a finite number"]),
    ("tune:\n  ect:\n    prior: {mean: .nan}\n", 3, ["tune.ect.prior.mean", "nan", "finite"]),
    ("tune:\n  ect:\n    prior: {mean: -.inf}\n", 3, ["tune.ect.prior.mean", "-inf"]),
    ("tune:\n  ect:\n    optimizer: {lr: 1.0e+999}\n", 3, ["tune.ect.optimizer.lr", "inf"]),
    ("schedules:\n  sigmoid: {q: .inf}\n", 2, ["schedules.sigmoid.q", "inf", "finite"]),
    ("samplers:\n  two_step: {times: [.nan]}\n", 2, ["samplers.two_step.times.0", "nan"]),
    ("search: {low: .inf}\n", 1, ["search.low", "finite"]),
    ("figures: {width_in: .inf}\n", 1, ["figures.width_in", "finite"]),
    ('{"evaluation": {"images": Infinity}}', 1, ["evaluation.images", "inf"]),
    ("evaluation:\n  seed: 1" + "0" * 10**6 + "\n", 2, ["allowed: a number of at most 100 digits"]),
    ("evaluation:\n  seed: 0x1" + "0" * 10**5 + "\n", 2, ["at most 100 digits"]),
    ("evaluation:\n  seed: 1" + ":10" * 10**5 + "\n", 2, ["at most 100 digits"]),
    ("evaluation:\n  seed: 1" + "0" * 40 + "\n", 2, ["evaluation.seed", "133 bits", "at most 64"]),
    # augmentation, and networks that cannot be told of it
    (PRETRAIN + "augment: {p: 0}}\n", 2, ["ve.augment.p", "0", "greater than 0"]),
    (PRETRAIN + "augment: {kind: edm}}\n", 2, ["ve.augment", "p", "missing"]),
    (PRETRAIN + "augment: {kind: edn, p: 0.1}}\n", 2, ["augment.kind", "'edn'", "'edm6'"]),
    (PRETRAIN + "ema_ramp: , ema_ramp_before: true}\n", 2, ["ema_ramp_before", "with ema_ramp"]),
    (
        PRETRAIN + "augment: {p: 0.1}}\nnetworks:\n  small: {augment_labels: 6}\n",
        2,
        ["pretrain.ve.augment: found 'edm'", "'small'", "6 labels; allowed: 9"],
    ),
    (
        PRETRAIN + "augment: {p: 0.1}}\nnetworks:\n"
        "  small: {architecture: edm2, embedding: positional}\n",
        2,
        ["pretrain.ve.augment", "'small'", "'edm2'; allowed: ddpmpp, ncsnpp, adm"],
    ),
    (
        "networks:\n  small: {architecture: edm2, augment_labels: 9}\n",
        2,
        ["networks.small.augment_labels: found 9", "allowed: no such key"],
    ),
    (
        "tune:\n  ect:\n    augment: {p: 0.1}\n",
        3,
        ["tune.ect.augment: found 'edm', 9 labels", "'ve'", "told 0; allowed: a start pretrained"],
    ),
    # stochastic sampling
    ("samplers:\n  euler_5: {churn: 1.0}\n", 2, ["samplers.euler_5", "churn is set", "heun only"]),
    ("samplers:\n  heun: {churn_max: 5.0}\n", 2, ["samplers.heun", "churn_max is set", "> 0"]),
    (
        "samplers:\n  heun: {churn: 1.0, churn_min: 5.0, churn_max: 2.0}\n",
        2,
        ["samplers.heun", "churn_min is 5", "at most churn_max = 2"],
    ),
    ("samplers:\n  heun: {churn: -1.0}\n", 2, ["samplers.heun.churn", "-1"]),
    # learning rates that move nothing
    ("tune:\n  ect:\n    optimizer: {lr: 1.0e-36}\n", 3, ["optimizer.lr: found 1e-36", "1e-09"]),
    ("features:\n  classifier: {lr: 1.0e-300}\n", 2, ["features.classifier.lr: found 1e-300"]),
    (
        "pretrain:\n  ve:\n    optimizer: {warmup_kimg: 1.0e+9}\n",
        3,
        ["pretrain.ve.optimizer.warmup_kimg: found 1e+09", "a smaller batch or warm-up"],
    ),
    (
        PRETRAIN + "every: , milestones: [30, 48, 54], batch: 30000,\n    "
        "optimizer: {warmup_kimg: 2.0}}\n",
        3,
        ["pretrain.ve.optimizer.warmup_kimg: found 2", "0 to 30 thousand images is at most 0;"],
    ),
    ("tune:\n  ect:\n    dropout: '0.1'\n", 3, ["found '0.1'", "write it without quotes"]),
    ("tune:\n  ect:\n    optimizer: {lr: 1.0e3}\n", 3, ["write 1.0e+3, not 1.0e3"]),
    # batches that no step has
    ("pretrain:\n  ve: {batch: 6001}\n", 2,
     ["ve.batch: found 6001 with runs of at most 6000 images; allowed: at most 6000"]),
    ("tune:\n  ect_slope: {batch: 30001, snapshots: 1}\n", 2, ["ect_slope.batch: found 30001"]),
    # questions of nothing
    ("experiments:\n  split:\n    question: ''\n", 3, ["split.question: found ''", "be seen"]),
    ("experiments:\n  split:\n    question: ' '\n", 3, ["split.question: found ' '", "be seen"]),
    # seeds of nothing
    (ROWS + "samplers: [heun], seeds: [0, 1]}\n", 4, ["rows.0", "seeds is [0, 1] without tune"]),
    ("evaluation:\n  {seed: 1" + "0" * 18 + ", repeats: 2}\n", 2, ["evaluation.seed: leads to"]),
    # paths that cannot be looked at
    *(
        (text.format("a" * 300), 2, ["found 'aaa", "File name too long"])
        for text in (
            "dataset:\n  {{source: images, path: {}}}\n",
            "init:\n  m: {{format: edm, file: {}}}\n",
            "features:\n  {{inception_path: {}}}\n",
            "features:\n  {{dinov2_path: {}}}\n",
        )
    ),
    # labels that look alike, or like nothing
    ("samplers:\n  one_step: {label: '  '}\n", 2, ["one_step.label: found '  '", "be seen"]),
    ("samplers:\n  four_step: {label: '2 steps '}\n", 2, ["'2 steps '", "another label"]),
    ("samplers:\n  four_step: {label: \"2\\nsteps\"}\n", 2, ["another label"]),
    # keys and texts
    ("1: 2\n", 1, ["1: ", "type int; allowed: text", "keys should be strings"]),
    ("tune:\n  ect:\n    yes: 2\n", 3, ["tune.ect.True", "type bool", "strings"]),
    ("tune:\n  ~: {like: ect}\n", 2, ["tune.None", "NoneType"]),
    ('study: "a\\0b"\n', 1, ["study", "NUL"]),
    ('experiments:\n  split:\n    question: "\\ud800"\n', 3, ["split.question", "Unicode"]),
    (f"experiments:\n  split:\n    question: {'a' * 20_000}\n", 3, ["20000 characters"]),
    # names
    ("study: My study\n", 1, ["study: found 'My study'", "allowed: a name of a-z"]),
    (f"study: {LONG}\n", 1, ["study: found 'aaa", "at most 100"]),
    (f"tune:\n  {LONG}: {{like: ect}}\n", 2, ["at most 100"]),
    (f"samplers:\n  {'a' * 300}: {{kind: euler, steps: 1, label: x}}\n", 2, ["at most 100"]),
    # unknown words, with the nearest known one
    ("pretrian: {}\n", 1, ["pretrian: unknown key", "did you mean 'pretrain'?"]),
    ("tune:\n  ect:\n    ema_halflife: 3\n", 3, ["unknown key", "'ema_halflife_kimg'?"]),
    ("dataset:\n  source: digit\n", 2, ["dataset.source: found 'digit'", "mean 'digits'?"]),
    ("tune:\n  ect:\n    target: hen\n", 3, ["tune.ect.target: found 'hen'", "mean 'heun'?"]),
    ("tune:\n  ect:\n    weight: egdm\n", 3, ["tune.ect.weight", "did you mean 'edm'?"]),
    ("schedules:\n  mine: {map: sigmod}\n", 2, ["schedules.mine", "did you mean 'sigmoid'?"]),
    ("schedules:\n  fixed:\n    qq: 2\n", 3, ["schedules.fixed", "'qq' of fixed", "mean 'q'?"]),
    ("samplers:\n  heun:\n    stesp: 2\n", 3, ["heun", "'stesp'", "did you mean 'steps'?"]),
    ("tune:\n  mine:\n    like: etc\n", 3, ["tune.mine.like: found 'etc'", "did you mean 'ect'?"]),
    ("figures:\n  solver: huen\n", 2, ["figures.solver: found 'huen'", "did you mean 'heun'?"]),
    ("pretrain:\n  ve:\n    network: smal\n", 3, ["pretrain.ve.network", "did you mean 'small'?"]),
    (ROWS + "samplers: [one_stp]}\n", 4, ["rows.0.samplers", "did you mean 'one_step'?"]),
    ("experiments:\n  split:\n    kind: splits\n", 3, ["split.kind", "did you mean 'split'?"]),
    # one mistake, one line
    ("networks:\n  a:\n    chanels: 8\n    multipliers: [1]\n    blocks: 1\n", 3, ["'channels'?"]),
    ("features: {classifier: {network: plain, epoch: 1, epochs: 2}}\n", 1, ["mean 'epochs'?"]),
    # wrong kinds of value
    ("dataset: digits\n", 1, ["dataset: found 'digits'", "a mapping, `key"]),
    ("samplers: [heun]\n", 1, ["samplers: found ['heun']", "a mapping"]),
    ("evaluation: null\n", 1, ["evaluation: found None", "a mapping"]),
    ("evaluation:\n  images: yes\n", 2, ["evaluation.images: found True", "a valid integer"]),
    ("tune:\n  ect:\n    batch: 1.5\n", 3, ["tune.ect.batch: found 1.5", "allowed: a valid int"]),
    ("tune:\n  ect:\n    batch: 0\n", 3, ["found 0; allowed: greater than or equal to 1"]),
    ("tune:\n  ect:\n    dropout: 1.0\n", 3, ["tune.ect.dropout", "allowed: less than 1"]),
    ("tune:\n  ect:\n    optimizer:\n      lr: 1e-4\n", 4, ["lr: found '1e-4'", "write 1.0e-4"]),
    ("experiments:\n  split:\n    rows: []\n", 3, ["split.rows: found []", "at least 1 of them"]),
    ("networks:\n  small:\n    channels: 10\n", 3, ["small.channels: found 10", "a multiple of 4"]),
    ("pretrain:\n  ve:\n    microbatch: 65\n", 3, ["pretrain.ve", "microbatch is 65", "at most"]),
    ("pretrain:\n  ve:\n    kimg: 100\n", 3, ["pretrain.ve", "kimg is 100", "multiples of every"]),
    ("figures:\n  samples: {kimg: 31}\n", 2, ["figures.samples.kimg: found 31", "0, 6, 12"]),
    ("plugins: mine.py\n", 1, ["plugins: found 'mine.py'", "a list"]),
    # seeds
    ("pretrain:\n  ve:\n    seed: -1\n", 3, ["pretrain.ve.seed: found -1", "equal to 0"]),
    ("evaluation:\n  seed: -1\n", 2, ["evaluation.seed: found -1", "equal to 0"]),
    ("dataset:\n  split_seed: -1\n", 2, ["dataset.split_seed: found -1", "equal to 0"]),
    ("figures:\n  samples: {seed: -1}\n", 2, ["figures.samples.seed: found -1", "equal to 0"]),
    (TUNED + "seeds: [0, -1]}\n", 4, ["methods.rows.0.seeds.1: found -1", "equal to 0"]),
    (ROWS + "samplers: [one_step], seeds: []}\n", 4, ["rows.0.seeds: found []", "at least 1"]),
    # the same thing twice, or nothing
    (TUNED + "seeds: [0, 0]}\n", 4, ["rows.0.seeds: found 0 more than once; allowed: once"]),
    (ROWS + "samplers: [heun, heun]}\n", 4, ["rows.0.samplers: found 'heun' more than once"]),
    (ROWS.replace("[ve]", "[ve, ve]") + "samplers: [heun]}\n", 4, ["pretrain: found 've' more"]),
    (ROWS.replace("[30]", "[30, 30]") + "samplers: [heun]}\n", 4, ["kimg: found 30 more"]),
    (TUNED.replace("[sigmoid]", "[sigmoid, sigmoid]") + "}\n", 4, ["schedules: found 'sigmoid'"]),
    (SPLIT + "shares: [0, 0], schedules: [sigmoid], samplers: [heun]}\n", 4, ["shares: found 0"]),
    (SPLIT + "shares: [], schedules: [sigmoid], samplers: [heun]}\n", 4, ["shares: found []"]),
    ("evaluation:\n  metrics: [fd, kd, fd]\n", 2, ["evaluation.metrics: found 'fd' more than"]),
    ("evaluation:\n  export: [npz, npz]\n", 2, ["evaluation.export: found 'npz' more than once"]),
    ("plugins: [a.py, a.py]\n", 1, ["plugins", "a.py"]),
    ("samplers:\n  two_step: {times: [0.5, 1.0]}\n", 2, ["times is [0.5, 1.0]", "decreasing"]),
    ("samplers:\n  two_step: {times: [0.5, 0.5]}\n", 2, ["times is [0.5, 0.5]", "decreasing"]),
    ("samplers:\n  two_step:\n    label: 1 step\n", 3, ["two_step.label", "'1 step'", "one_step"]),
    ("samplers:\n  two_step:\n    label: ''\n", 3, ["samplers.two_step.label", "at least 1"]),
    ("figures:\n  widths_in: {nosuch: 5}\n", 2, ["figures.widths_in: found 'nosuch'", "curves"]),
    ("figures:\n  widths_in: {loos: 5}\n", 2, ["widths_in: found 'loos'", "did you mean 'loss'?"]),
    # paths
    ("dataset: {source: images, path: ''}\n", 1, ["dataset.path: found ''", "a path"]),
    ("dataset:\n  source: images\n  path: ' '\n", 3, ["dataset.path: found ' '", "a path"]),
    ('dataset: {source: images, path: "a\\nb"}\n', 1, ["path: found", "without control"]),
    ("features:\n  inception_path: ''\n", 2, ["features.inception_path: found ''", "a path"]),
    ("features:\n  dinov2_path: ''\n", 2, ["features.dinov2_path: found ''", "a path"]),
    ("plugins: ['']\n", 1, ["plugins", "''"]),
    ("init:\n  a: {format: edm, file: ''}\n", 2, ["init.a.file: found ''", "a path"]),
    ("init:\n  a: {format: edm, file: 'a{b}.pkl'}\n", 2, ["init.a.file", "without braces"]),
    ("features: {dinov2_path: 'a{b}.pt'}\n", 1, ["features.dinov2_path", "without braces"]),
    ("features: {inception_path: '{b}'}\n", 1, ["features.inception_path", "without braces"]),
    # gaps t - r that fp32 loses
    ("schedules:\n  sigmoid: {stages: 25}\n", 2, ["schedules.sigmoid: found", "stages 25", "s ="]),
    ("schedules:\n  sigmoid: {stages: 19}\n", 2, ["stages 19", "process flow", "fewer stages"]),
    ("schedules:\n  fixed: {q: 1.0e+8}\n", 2, ["schedules.fixed: found q 1e+08", "smaller q"]),
    ("schedules:\n  smooth: {stages: 30.0}\n", 2, ["schedules.smooth: found", "run of 'ect'"]),
    ("schedules:\n  piecewise: {stages: 40}\n", 2, ["schedules.piecewise", "stages 40"]),
    # numbers that YAML 1.1 reads in another base
    ("evaluation:\n  images: 0144\n", 2, ["found '0144'", "base 8 or 60", "leading"]),
    ("evaluation:\n  images: 1:40\n", 2, ["found '1:40'", "base 8 or 60"]),
    ("figures:\n  width_in: 1:40.5\n", 2, ["found '1:40.5'", "text in quotes"]),
    ("samplers:\n  heun: {label: 1:40, steps: -017}\n", 2, ["found '1:40'"]),
    ("evaluation: {images: !!int x}\n", 1, ["found 'x'; allowed: a number"]),
    ("evaluation: {images: !!bool x}\n", 1, ["found 'x'; allowed"]),
    ("evaluation: {images: !!timestamp x}\n", 1, ["found 'x'; allowed"]),
    ("evaluation: {images: !!int [1]}\n", 1, ["not YAML"]),
    # noise levels that no sampler reaches
    ("samplers:\n  two_step: {times: [500.0]}\n", 2, ["two_step.times.0: found 500.0", "80"]),
    ("samplers:\n  two_step: {times: [1.0e-300]}\n", 2, ["two_step.times.0: found 1e-300"]),
    ("features: {classifier: {lr: 1.0e+300}}\n", 1, ["classifier.lr: found 1e+300", "to 10"]),
    # a study that is none, or not its own
    ("study: published\n", 1, ["study: found 'published'", "allowed: another"]),
    ("experiments: {methods: ~, schedules: ~, split: ~, solvers: ~}\n", 1,
     ["experiments: found {}; allowed: at least 1 of them"]),
    # sizes
    ("tune: " + "[" * 5000 + "]" * 5000, 1, ["nested more than 50 deep"]),
    ("tune: " + "{a: " * 5000 + "1" + "}" * 5000, 1, ["nested more than 50 deep"]),
    (BOMB, 0, ["more than 100000 values, aliases written out"]),
    (MERGES, 0, ["more than 100000 keys"]),
    ("a: &a {<<: *a}\n", 1, ["a block merged into itself"]),
    ("a: &a [*a]\n", 0, ["more than 50 levels"]),
    ("#" * 2**20 + "#\n", 0, ["more than 1048576 bytes"]),
    ("networks:\n  small:\n    blocks: 100000000\n", 3, ["networks.small.blocks", "less than"]),
    ("networks:\n  small:\n    channels: 100000000\n", 3, ["small.channels", "less than"]),
    ("pretrain:\n  ve: {kimg: 1000000000, every: 1}\n", 2, ["kimg is 1000000000", "milestones"]),
    (f"tune:\n  ect_slope: {{snapshots: {10**9}}}\n", 2, ["snapshots: found 1000000000", "1000"]),
    ("dataset: {source: mnist, path: a, resolution: 1000000}\n", 1, ["resolution: found 1000000"]),
    ("features: {classifier: {epochs: 1000000000}}\n", 1, ["epochs: found", "less than or equal"]),
    ("samplers: {heun: {steps: 1000000000}}\n", 1, ["samplers.heun.steps: found 1000000000"]),
    ("figures: {width_in: 1.0e-9}\n", 1, ["figures.width_in: found 1e-09", "equal to 2"]),
    ("figures: {widths_in: {maps: 1.0e+9}}\n", 1, ["widths_in.maps", "less than or equal to 100"]),
    (TUNED + f"seeds: {[*range(20_000), 0]}}}\n", 4, ["seeds: found 0 more than once"]),
    ("experiments:\n  split:\n    rows:\n      - {pretrain: [ve], kimg: [30], tune: ect,"
     f" tune_kimg: 30, schedules: [sigmoid, constant], seeds: {list(range(5001))},"
     " samplers: [heun, one_step]}\n", 4, ["rows.0: found 20", "sets of images", "most 20000"]),
    ("evaluation:\n  repeats: 1000000000\n", 2, ["evaluation.repeats", "less than or equal"]),
]  # fmt: skip


def wholes(schema, path=""):
    """(path, schema) of every whole number in a JSON Schema."""
    if isinstance(schema, list):
        schema = dict(enumerate(schema))
    if isinstance(schema, dict):
        if schema.get("type") == "integer" and "enum" not in schema:
            yield path.lstrip("."), schema
        for key, part in schema.items():
            yield from wholes(part, f"{path}.{key}")


def test_every_whole_number_has_an_upper_bound():
    found = dict(wholes(Config.model_json_schema()))
    assert len(found) > 35 and "$defs.Tune.properties.snapshots" in found
    unbounded = [path for path, schema in found.items() if "aximum" not in str(schema)]
    assert not unbounded


def said(text, tmp_path, base=BASE):
    """The message about a study laid over a config."""
    study = tmp_path / "study.yaml"
    study.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as caught:
        Config.read(load.read(base, study))
    return str(caught.value).replace(f"{study}", "study.yaml")


@pytest.mark.parametrize("text, line, words", FAULTS, ids=[text[-60:] for text, *_ in FAULTS])
def test_a_fault_is_one_line_with_its_place(text, line, words, tmp_path, soon):
    message = said(text, tmp_path)
    assert len(message.splitlines()) == 1 and message.isprintable(), message
    place = "study.yaml: " if not line else f"study.yaml: line {line}: "
    assert message.startswith(place) and len(message) < 1500, message
    assert all(word in message or word in message.replace("\\", "\\\\") for word in words), message


def test_an_empty_path_is_not_the_working_directory():
    with pytest.raises(ValueError, match=r"^found an empty path; allowed: a study's YAML file"):
        load.read(BASE, "")


# bytes of a study: the line of the mistake, and words of the message
RAW = {
    "utf-16": ("study: a\n".encode("utf-16"), 1, "UTF-16"),
    "utf-16 without a mark": ("study: a\n".encode("utf-16-le"), 1, "not YAML"),
    "latin-1": ("study: a\nä: 1\n".encode("latin-1"), 2, "byte 0xe4; allowed: text in UTF-8"),
    "a pickle": (b"\x80\x04\x95\n", 1, "byte 0x80"),
    "a png": (b"\x89PNG\r\n\x1a\n", 1, "byte 0x89"),
    "zeros": (bytes(99), 1, "not YAML"),
}


@pytest.mark.parametrize("raw, line, words", RAW.values(), ids=RAW)
def test_a_file_that_is_no_text_is_named(raw, line, words, tmp_path):
    message = said(raw, tmp_path)
    assert message.startswith(f"study.yaml: line {line}: ") and words in message, message
    assert len(message.splitlines()) == 1


def test_of_many_mistakes_the_first_are_told(tmp_path):
    for value, count in (("1", 20), ("1", 21), (".nan", 5000)):
        text = "".join(f"key_{n}: {value}\n" for n in range(count))
        told = said(text, tmp_path).splitlines()
        assert [*told[:20]] == [line for line in told if " key_" in line]
        assert told[20:] == [f"and {count - 20} more mistakes like these"] * (count > 20)


def test_a_file_that_is_none_is_named(tmp_path):
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    for path, words in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none.yaml", "No such file"),
        (loop, "symbolic links"),
        (tmp_path / ("a" * 300), "too long"),
    ):
        with pytest.raises(ValueError) as caught:
            load.read(BASE, path)
        assert str(caught.value).startswith(shown_path(path)) and words in str(caught.value)


def test_what_a_byte_order_mark_precedes_is_read(tmp_path):
    (tmp_path / "bom.yaml").write_bytes(codecs.BOM_UTF8 + b"study: mine\r\n")
    assert load.read(BASE, tmp_path / "bom.yaml")["study"] == "mine"


def test_json_is_read_as_snakemake_reads_it(tmp_path):
    (tmp_path / "a.json").write_text('{\n\t"tune": {"ect": {"optimizer": {"lr": 1e-4}}}}')
    assert load.read(BASE, tmp_path / "a.json")["tune"]["ect"]["optimizer"]["lr"] == 1e-4


def test_a_mistake_in_an_anchored_block_is_told_once(tmp_path):
    text = BASE.read_text()
    line = text.splitlines().index("    batch: 32") + 1  # of pretrain.ve, which flow merges
    for new, words in (("batsh: 64", "batsh: unknown key"), ("batch: 0", "batch: found 0")):
        path = tmp_path / "config.yaml"
        path.write_text(text.replace("batch: 32\n    ema_half", f"{new}\n    ema_half", 1))
        with pytest.raises(ConfigError) as caught:
            Config.read(load.read(path))
        lines = str(caught.value).splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"{path}: line {line}: pretrain.ve.{words}")


def test_a_mistake_in_a_block_that_others_are_like_is_told_once(tmp_path):
    text = "tune:\n  ect:\n    batch: 0\n  mine: {like: ect}\n  yours: {like: mine}\n"
    message = said(text, tmp_path)
    assert message.startswith("study.yaml: line 3: tune.ect.batch: found 0")
    assert len(message.splitlines()) == 1


def test_a_key_that_a_study_does_not_set_is_named_in_the_file_below(tmp_path):
    lines = BASE.read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if text.startswith("evaluation:"))
    message = said("search: {seed: 5}\n", tmp_path)
    told = "study.yaml: line 1: search.models: missing, as are images; they are needed"
    assert message == told
    below = tmp_path / "below.yaml"
    below.write_text(BASE.read_text().replace("{images: 2000, ", "{images: 1, "))
    message = said("evaluation: {seed: 0}\n", tmp_path, below)
    assert message.startswith(f"{below}: line {line}: evaluation.images: found 1")


def test_a_name_where_nothing_is_defined_is_told_so(tmp_path):
    message = said("networks: {small: null}\n", tmp_path)
    assert (
        "pretrain.ve.network: found 'small'; allowed: a name that is defined, of which" in message
    )
    assert message.startswith(f"{BASE}: line ") and len(message.splitlines()) == 1


def test_blocks_of_one_anchor_are_changed_one_by_one(tmp_path):
    """As by Snakemake: what a study changes in one of them, the other does not get."""
    study = tmp_path / "study.yaml"
    study.write_text("pretrain: {ve: {optimizer: {lr: 5.0e-4}}}\n")
    pretrain = load.read(BASE, study)["pretrain"]
    assert (pretrain["ve"]["optimizer"]["lr"], pretrain["flow"]["optimizer"]["lr"]) == (5e-4, 2e-3)


def test_what_the_command_line_says_is_told_to_be_from_there():
    words = {"tune": {"ect": {"batch": 0}}}
    mapping = load.read(BASE)
    mapping["tune"]["ect"]["batch"] = 0
    with pytest.raises(ConfigError, match=r"^command line: tune\.ect\.batch: found 0"):
        Config.read(mapping, load.places_of([BASE], words))


def test_places_of_a_template_or_a_pipe_are_not_guessed(tmp_path):
    (tmp_path / "template.yaml").write_text("__use_yte__: true\n?if True:\n  study: a\n")
    assert load.places_of([BASE, tmp_path / "template.yaml"], {}) == {}
    assert load.places_of([BASE, "/dev/null"], {}) == {}


def test_the_config_of_a_module_is_checked_without_places():
    mapping = dict(load.read(BASE))
    mapping["evaluation"] = mapping["evaluation"] | {"images": float("inf")}
    with pytest.raises(ConfigError, match=r"^evaluation\.images: found inf; allowed: a finite"):
        Config.read(mapping)
    mapping["evaluation"] = mapping
    with pytest.raises(ConfigError, match="more than 50 levels"):
        Config.read(mapping)


def test_every_key_of_a_file_has_its_line(tmp_path):
    value, found = places.read(BASE)
    lines = BASE.read_text().splitlines()

    def walk(value, inner):
        for key, place in inner.items():
            if isinstance(key, str):
                assert re.search(rf"\b{key}:", lines[place.line - 1]), (key, place.line)
                part = value[key]
                if isinstance(part, dict):
                    walk(part, place.inner)

    walk(value, found)
    assert set(found) == set(value)


def test_a_search_is_checked(tmp_path):
    """The block that the default study has not."""
    for key, value, words in (("steps", [2, 2], "2 more than once"), ("seed", -1, "equal to 0")):
        text = f"search: {SEARCH | {key: value}}\n"
        message = said(text, tmp_path)
        assert message.startswith(f"study.yaml: line 1: search.{key}: found") and words in message


def test_snakemake_takes_no_text_of_a_config_for_a_wildcard():
    """A text of params that is no function goes through `verbatim`."""
    rules = [path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk")]
    texts = re.findall(r"^ {8}(?:settings|classifier)=(.*)$", "\n".join(rules), re.MULTILINE)
    assert len(texts) > 15
    assert all(text.startswith(("lambda wildcards", "verbatim(")) for text in texts), texts


def test_a_zip_with_braces_is_refused_and_a_folder_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a{b}.zip").touch()
    (tmp_path / "{photos}").mkdir()
    text = "dataset: {{source: images, path: '{}', classes: folders, held_out: 9, normalize: unit}}"
    message = said(text.format("a{b}.zip"), tmp_path)
    assert message.startswith("study.yaml: line 1: dataset: path: found 'a{b}.zip'"), message
    assert "without braces" in message
    (tmp_path / "study.yaml").write_text(text.format("{photos}"))
    assert Config.read(load.read(BASE, "study.yaml")).dataset.folder == "{photos}"


def test_a_study_without_the_config_below_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = ROOT / "workflow" / "studies" / "smoke.yaml"
    with pytest.raises(ConfigError, match=r"^dataset, .* more keys: missing; they are") as caught:
        Config.read(load.planned(study))
    assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "config.yaml").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"^config\.yaml: No such file"):
        load.planned(study)

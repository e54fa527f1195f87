"""What a config says of augmentation and of stochastic sampling, and what jobs are told of it."""

import pytest

from ect.config.cells import Tuned
from ect.config.config import Config
from ect.study import settings
from tests.helpers.configs import DEFAULT, changed

EDM = {"kind": "edm", "p": 0.12}


def test_settings_name_augmentation_only_where_there_is_some():
    """The network of tuning keeps the layer that its start has; its images are as they are."""
    plain, told = Config.read(DEFAULT), Config.read(changed("pretrain/ve/augment", EDM))
    seen = set()
    for model in dict.fromkeys(cell.model for cell in plain.all_cells()):
        before, after = settings.train(plain, model), settings.train(told, model)
        tuned = isinstance(model, Tuned)
        start = model.start.pretrain if tuned else model.pretrain
        seen.add((start, tuned))
        if start == "ve":
            assert after["network"].pop("augment_labels") == 9
            assert after["recipe"].pop("augment", None) == (None if tuned else EDM)
        assert before == after and "augment" not in before["recipe"]
        assert "ema_ramp_before" not in before["recipe"]
    assert seen == {("ve", True), ("ve", False), ("flow", True), ("flow", False)}


def test_no_churn_is_no_other_setting():
    def sampled(**options):
        block = DEFAULT["samplers"]["heun"] | options
        return settings.sample(Config.read(changed("samplers/heun", block)), "heun")

    plain = sampled()
    assert plain["options"] == {"steps": 18} and sampled(churn=0.0) == plain
    churned = {"churn": 40.0, "churn_min": 0.05, "churn_max": 50.0, "churn_noise": 1.003}
    assert sampled(**churned)["options"] == {"steps": 18} | churned
    assert sampled(churn=1.0) == plain | {"options": {"steps": 18, "churn": 1.0}}


@pytest.mark.parametrize("kind, later", [("edm", 1), ("ect", 0)])
def test_only_imports_of_edms_files_run_again(kind, later, tmp_path):
    class Study:
        init = {"start": type("Init", (), {"format": kind})}

    assert settings.import_version(Study, "start") == settings.STAGES["import"] + later

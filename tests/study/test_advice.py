"""What a study says before its first job."""

from ect.config.config import Config
from ect.study.advice import advice
from tests.helpers.configs import DEFAULT, SEARCH, changed


def with_halflife(kimg):
    recipe = DEFAULT["tune"]["ect"] | {"ema_std": None, "ema_halflife_kimg": kimg}
    return advice(Config.read(changed("tune/ect", recipe)))


def test_the_default_study_needs_no_advice():
    assert advice(Config.read(DEFAULT)) == []


def test_an_average_that_keeps_its_start_is_told_with_the_number():
    """The shortest tuning is that of the share of 90 %: 6 kimg, and 2^(-6 / 4) = 35 %."""
    (line,) = with_halflife(4.0)
    assert line.startswith("tune.ect: ema_halflife_kimg is 4, so after 6 kimg 35% of the average")


def test_an_average_that_keeps_less_than_a_hundredth_is_not():
    assert with_halflife(0.9) == []  # 2^(-6 / 0.9) = 0.98 %
    assert len(with_halflife(0.95)) == 1  # 1.26 %


def test_the_ramp_leaves_nothing_of_a_random_start():
    without = DEFAULT["pretrain"]["ve"] | {"ema_ramp": None, "ema_halflife_kimg": 50.0}
    (line,) = advice(Config.read(changed("pretrain/ve", without)))
    assert line.startswith("pretrain.ve: ema_halflife_kimg is 50")
    assert advice(Config.read(changed("pretrain/ve", without | {"ema_ramp": 0.05}))) == []


def test_subsets_of_a_distance_that_is_not_measured_are_told():
    (line,) = advice(Config.read(changed("evaluation/metrics", ["fd"])))
    assert line == "evaluation.kd_subsets: 20 has no effect, as metrics has no kd"
    searched = changed("evaluation/metrics", ["fd"]) | {"search": SEARCH | {"metric": "kd"}}
    assert advice(Config.read(searched)) == []

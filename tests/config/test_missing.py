"""What a study needs and does not find is listed, and needed by a run alone."""

from pathlib import Path

import pytest
import yaml

from ect.cli.main import main
from ect.config.config import Config
from ect.config.missing import missing, require, told
from ect.config.released import _OF_EDM, _OF_EDM2, EDM, EDM2, released
from ect.models.build import parameters
from tests.helpers.configs import DEFAULT, PICKLE, changed

INIT = {"format": "edm", "file": "models/edm2-img64-xl-0671088-0.040.pkl"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty folder."""
    monkeypatch.chdir(tmp_path)


def found(**init):
    return missing(Config.read(changed("init", init)))


def test_a_study_that_brings_all_it_needs_lacks_nothing():
    assert missing(Config.read(DEFAULT)) == []
    require(Config.read(DEFAULT))


def test_a_released_file_is_told_with_where_to_get_it_and_its_size():
    (one,) = found(mine=INIT)
    assert (one.key, one.path, one.job) == ("init.mine.file", INIT["file"], None)
    assert told(one).endswith(f"{EDM2}edm2-img64-xl-0671088-0.040.pkl, about 2.24 GB")
    with pytest.raises(ValueError, match=r"^init.mine.file: found no 'models/edm2-img64-xl-067"):
        require(Config.read(changed("init", {"mine": INIT})))


def test_what_nobody_released_is_said_to_be_unknown():
    (one,) = found(mine={"format": "ect", "file": "mine.safetensors"})
    assert told(one).endswith("to be put there: your own file, size unknown")


def test_what_is_there_is_not_missing():
    Path("models").mkdir()
    Path(INIT["file"]).write_bytes(PICKLE.read_bytes())
    assert found(mine=INIT) == []


def test_what_a_job_fetches_stops_no_run():
    data = {"source": "cifar10", "path": "datasets/cifar10"}
    config = changed("dataset", data) | {"features": {"extractor": "inception"}}
    for block in config["networks"].values():
        block["attention"] = [16]
    both = missing(Config.read(config))
    assert [one.job for one in both] == ["prepare_data", "fetch_inception"]
    require(Config.read(config))
    Path("datasets/cifar10/cifar-10-batches-py").mkdir(parents=True)
    assert missing(Config.read(config)) == both[1:]


@pytest.mark.parametrize("path, is_folder", [("photos", True), ("photos.zip", False)])
def test_images_that_are_not_there_are_a_folder_or_a_zip_by_their_name(path, is_folder):
    data = {"source": "images", "path": path, "held_out": 10, "resolution": 8, "classes": "folders"}
    study = Config.read(changed("dataset", data))
    assert (study.dataset.folder, study.dataset.archive) == (
        (path, None) if is_folder else (None, path)
    )
    assert [one.path for one in missing(study)] == [path]


def test_the_plan_lists_what_is_missing_and_ends_well(capsys):
    Path("config.yaml").write_text(yaml.safe_dump(changed("init", {"mine": INIT})))
    assert main(["plan"]) == 0
    assert "init.mine.file: found no 'models/edm2" in capsys.readouterr().out


NAMES = [f"edm-{words}.pkl" for words in _OF_EDM]
NAMES += [f"edm2-img64-{size}-0671088-0.040.pkl" for size in _OF_EDM2]


@pytest.mark.parametrize("name", NAMES)
def test_a_released_network_has_its_number_of_parameters(name):
    one = released(f"anywhere/{name}")
    assert one.url in (EDM + name, EDM2 + name)
    assert parameters(one.network, one.shape) == one.parameters
    assert one.size == one.parameters * (2 if "edm2" in name else 4)


@pytest.mark.parametrize(
    "name", ["edm-mnist.pkl", "edm2-img64-xl.pkl", "edm-ffhq-64x64-cond-vp.pkl"]
)
def test_other_names_are_not_known(name):
    assert released(name) is None

"""A recipe's key follows all that decides the weights, and training through it is the study's."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kitslib import config as config_door
from kitslib.config import PROFILES, RunConfig, arm, configure
from kitslib.config.code import PACKAGE
from kitslib.data import CaseFiles, data_folder, load_case, study_files
from kitslib.evaluation import dice, largest_components
from kitslib.networks import count_parameters
from kitslib.phantom import write_cohort
from kitslib.recipes import KidneyRecipe, Recipe, TumorRecipe
from kitslib.recipes.recipe import SOURCES
from kitslib.training import focal_loss, start
from kitslib.transforms import restore_mask

# what runs in a training and decides none of its numbers, or reaches the key as values
ELSEWHERE = {
    "config": "reaches the key as values",
    "training/runs.py": "the run's own files",
    "training/machine.py": "versions and precision, which stand in the checkpoint and the key",
    "training/progress.py": "shows",
    "training/memory.py": "explains errors",
    "data/cohort.py": "what it holds reaches the key as the cohort's key",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, list[CaseFiles]]:
    options = {"cohort.cases": 4, "cohort.matrix": 64, "cohort.held_out": 1, "tumor.epochs": 2}
    out = tmp_path_factory.mktemp("study")
    config = configure(profile="smoke", out=str(out), options=options)
    return config, study_files(config, data_folder(config, write_cohort))


@pytest.fixture(scope="module")
def kidney(study: tuple[RunConfig, list[CaseFiles]]) -> KidneyRecipe:
    return KidneyRecipe.of(*study, start())


@pytest.fixture(scope="module")
def tumor(study: tuple[RunConfig, list[CaseFiles]]) -> TumorRecipe:
    return TumorRecipe.of(*study, start(), arm="full")


@pytest.mark.parametrize("profile", ["demo", "study", "paper"])
@pytest.mark.parametrize("name", ["unet", "deeplab", "vnet_3d"])
def test_rivals_have_as_many_weights_as_the_baseline(
    tumor: TumorRecipe, name: str, profile: str
) -> None:
    training = PROFILES[profile].tumor
    rival, baseline = (
        replace(tumor, training=training, arm=arm(which)) for which in (name, "baseline")
    )
    with torch.device("meta"):
        sizes = [count_parameters(recipe.network()) for recipe in (rival, baseline)]
    assert abs(sizes[0] / sizes[1] - 1) < 0.05


def test_dice_is_taken_over_what_the_profile_or_the_arm_says(tumor: TumorRecipe) -> None:
    logits, target = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    target[0, 0, 0, 0] = 1
    recipe, losses = replace(tumor, arm=arm("hdc")), {}
    for over in ("sample", "batch"):
        training = replace(tumor.training, dice_over=over)
        losses[over] = replace(recipe, training=training).loss(logits, target, 0)
    assert losses["sample"] != losses["batch"]
    per_sample = replace(recipe, arm=arm("hdc_per_sample"), training=training)
    assert per_sample.loss(logits, target, 0) == losses["sample"]


def silent(line: str) -> None:
    """Where the lines of a training go."""


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package whose sources the keys are made of."""
    copy = tmp_path / "kitslib"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    monkeypatch.setattr(sys.modules["kitslib.config.code"], "PACKAGE", copy)
    assert config_door.code_key("networks")
    return copy


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("training/losses.py", "SMOOTH = 1e-5", "SMOOTH = 1e-3"),
        ("recipes/kidney.py", "(target > 0).float()", "(target > 1).float()"),
        ("evaluation/cascade.py", "0.5", "0.4"),
    ],
)
def test_a_changed_loss_or_validation_trains_anew(
    kidney: KidneyRecipe, tmp_path: Path, edited: Path, file: str, old: str, new: str
) -> None:
    first = replace(kidney, runs=tmp_path / "runs")
    first.fit(first.network(), log=silent)
    assert replace(first).run.finished
    text = (edited / file).read_text(encoding="utf-8")
    assert old in text
    (edited / file).write_text(text.replace(old, new), encoding="utf-8")
    second = replace(first)
    assert second.run.folder != first.run.folder and not second.run.finished


def test_prose_trains_nothing_anew(kidney: KidneyRecipe, edited: Path) -> None:
    before = replace(kidney).settings["code"]
    file = edited / "training" / "losses.py"
    file.write_text("# a remark\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    assert replace(kidney).settings["code"] == before


GAMMA = 1.5


def helper(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    terms = [focal_loss(output, target, gamma=GAMMA + more) for more in (0, 1)]
    return sum(terms)


@dataclass(frozen=True, kw_only=True)
class Focal(TumorRecipe):
    """The tumour stage with another loss, as one writes it in JupyterLab."""

    def loss(self, output: torch.Tensor, target: torch.Tensor, epoch: int) -> torch.Tensor:
        return helper(output, target)


def fields_of(recipe: Recipe) -> dict:
    return {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}


def test_a_subclass_is_another_run_and_so_is_what_its_loss_calls(tumor: TumorRecipe) -> None:
    other = Focal(**fields_of(tumor))
    assert other.run.folder != tumor.run.folder
    sources = "".join(other.settings["changed"])
    for word in ("helper(output, target)", "terms = [focal_loss(output", "GAMMA = 1.5"):
        assert word in sources
    assert tumor.settings["changed"] == []


def test_a_replaced_field_is_another_run(tumor: TumorRecipe) -> None:
    slower = replace(tumor, training=replace(tumor.training, lr=1e-5))
    baseline = replace(tumor, arm=arm("baseline"), name="tumor-baseline-s0")
    folders = {r.run.folder for r in (tumor, slower, baseline, replace(tumor, seed=1))}
    assert len(folders) == 4


def test_another_cohort_is_another_run(tumor: TumorRecipe) -> None:
    fewer = tumor.train.subset(tumor.train.case_ids[:1])
    assert replace(tumor, train=fewer).run.folder != tumor.run.folder
    assert replace(tumor, held_out=fewer).run.folder != tumor.run.folder


def files_at_work(recipe: Recipe) -> Iterator[str]:
    """The files of kitslib in which a function was called while a recipe trained."""
    seen: set[str] = set()

    def note(frame, event: str, argument: object) -> None:
        seen.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        recipe.fit(recipe.network(), log=silent)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    for name in seen:
        path = Path(name)
        if path.is_relative_to(PACKAGE) and path.parent != PACKAGE:
            yield path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("stage", ["kidney", "tumor"])
def test_every_file_at_work_in_a_training_is_in_its_key(
    request: pytest.FixtureRequest, tmp_path: Path, stage: str
) -> None:
    recipe = replace(request.getfixturevalue(stage), runs=tmp_path)
    missing = []
    for file in files_at_work(recipe):
        if not file.startswith((*SOURCES, *ELSEWHERE)) and not file.endswith("__init__.py"):
            missing.append(file)
    assert missing == [], "name them in recipes/recipe.py, or say here why not"


def test_a_finished_training_is_loaded_with_the_same_bits(
    kidney: KidneyRecipe, tmp_path: Path
) -> None:
    first = replace(kidney, runs=tmp_path)
    network = first.network()
    history = first.fit(network, log=silent)
    again = replace(first)
    other = again.network()
    assert again.fit(other, log=silent) == history
    for name, values in other.state_dict().items():
        assert torch.equal(values, network.state_dict()[name]), name


def test_the_recipe_says_which_network_and_stage(tumor: TumorRecipe) -> None:
    stage = tumor.stage(tumor.network())
    assert (stage.dims, stage.patch, stage.hu) == ("2.5d", (32, 48), "foreground")
    rows, slices = tumor.difficulty(
        [{"epoch": 1, "difficulty": {"a": 0.5}, "drawn_most": [(tumor.train.case_ids[0], 0, 2.0)]}]
    )
    assert rows == [{"epoch": 1, "case": "a", "difficulty": 0.5}]
    assert slices[0][0].endswith("weight 2.0")


def test_scores_in_the_cached_box_are_those_of_the_whole_scan(
    study: tuple[RunConfig, list[CaseFiles]], tumor: TumorRecipe
) -> None:
    config, files = study
    network = tumor.network().eval()
    network.map.bias.data += 0.1  # so that an untrained network finds something
    network.to(memory_format=torch.channels_last)
    held_out = [item for item in files if item.case_id in tumor.held_out.case_ids]
    for item, (_, _, row) in zip(held_out, tumor.scored(network, held_out), strict=True):
        whole, entry = load_case(item, config.cohort.labels).labels, tumor.held_out[item.case_id]
        probability = tumor.stage(network).probability(
            entry.imaging, entry.mask, tumor.accelerator.autocast
        )
        found, box = restore_mask(probability, entry.mapping) > 0, entry.mapping.box
        outside = np.ones(whole.shape, bool)
        outside[box] = False
        assert not whole[outside].any() and not found[outside].any() and found.any()
        assert row["dice_all_components"] == dice(found, whole == 2)
        assert row["dice"] == dice(largest_components(found, 1), whole == 2)
        assert row["tumor_ml"] == pytest.approx(entry.meta["volumes_ml"]["tumor"])


def test_a_batch_of_the_3d_arm_is_taken_in_as_many_parts_as_it_has_samples(
    study: tuple[RunConfig, list[CaseFiles]],
) -> None:
    config, files = study
    changed = replace(config.tumor, accumulate=4, epochs=1, steps=1)
    assert (changed.batch, changed.slab_batch) == (4, 1)
    for name in ("baseline", "vnet_3d"):
        recipe = TumorRecipe.of(replace(config, tumor=changed), files, start(), arm=name)
        assert len(recipe.fit(recipe.network(), silent)) == 1


def test_watched_cases_without_a_tumour_are_left_out_of_its_mean(tumor: TumorRecipe) -> None:
    (entry,) = tumor.watched.values()
    healthy = replace(entry, labels=np.minimum(entry.labels, 1))
    one, both = {"a": entry}, {"a": entry, "b": healthy}
    network, scores = tumor.network().eval(), []
    for watched in (one, both, {"b": healthy}):
        scores.append(replace(tumor, held_out=_Watched(watched)).validate(network))
    assert scores[0] == scores[1] and scores[0]["dice"] >= 0 and scores[2] == {}


class _Watched(dict):
    """Entries by case as a held-out cohort gives them."""

    key = "watched"

    @property
    def case_ids(self) -> list[str]:
        return list(self)

    def subset(self, case_ids: list[str]) -> _Watched:
        return self

"""The configuration refuses what it does not know, by name."""

from __future__ import annotations

import itertools
import json
import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from kitslib import config
from kitslib.config import (
    ARMS,
    MECHANISMS,
    PROFILES,
    SYNTHETIC_MARKER,
    ConfigError,
    arm,
    as_dict,
    configure,
    key,
    parse_settings,
)
from kitslib.config.arms import (
    ARM_GROUPS,
    FORMS,
    KIDNEY_ARMS,
    Arm,
    by_name,
    compared_pairs,
    kidney_arm,
)
from kitslib.networks import build

PROFILE_WIDTHS = [(8, 16, 32, 64), (16, 32, 64, 128, 256)]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "2", "-1e-3"])
def test_a_learning_rate_out_of_range_is_named(value: str) -> None:
    options = parse_settings([f"tumor.lr={value}"])
    with pytest.raises(ConfigError, match=r"TumorConfig\.lr: "):
        configure(profile="smoke", options=options)


def recipe(row: Arm) -> dict:
    """What an arm trains, without what it is called."""
    return {
        f.name: getattr(row, f.name)
        for f in fields(row)
        if f.name not in ("name", "description", "reference")
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_builds_and_survives_json(profile: str) -> None:
    built = configure(profile=profile)
    assert json.loads(json.dumps(as_dict(built)))["profile"] == profile


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"profile": "dmo"}, ["profile", "'dmo'", "did you mean 'demo'"]),
        ({"options": {"kidney.epoch": 3}}, ["'epoch'", "KidneyConfig", "did you mean 'epochs'"]),
        ({"options": {"kidney.epochs": "3"}}, ["KidneyConfig.epochs", "expected int", "str"]),
        ({"options": {"kidney.epochs": True}}, ["KidneyConfig.epochs", "bool"]),
        ({"options": {"kidney.epochs": 0}}, ["KidneyConfig.epochs", "0", "smallest allowed, 1"]),
        ({"options": {"kidney.dropout": 1.0}}, ["KidneyConfig.dropout", "largest allowed, 0.9"]),
        ({"options": {"kidney.hu": "lung"}}, ["KidneyConfig.hu", "'lung'", "soft_tissue"]),
        ({"options": {"tumor.patch": [96]}}, ["TumorConfig.patch", "2 values"]),
        ({"options": {"kidney": 3}}, ["'kidney'", "section"]),
        ({"options": {"profile.name": 3}}, ["profile has no fields"]),
        ({"options": 3}, ["options", "mapping"]),
        ({"options": {"arms": ["ful"]}}, ["arm", "'ful'", "did you mean 'full'"]),
        ({"seed": "1"}, ["RunConfig.seed", "expected int"]),
        ({"data": "no/such/folder"}, ["data", "no/such/folder", "is not a folder"]),
        ({"data": 7}, ["data", "expected str"]),
    ],
)
def test_wrong_settings_are_refused_by_name(arguments: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(**{"profile": "demo", **arguments})
    for word in words:
        assert word in str(caught.value)


def test_options_reach_their_section_and_nothing_else() -> None:
    plain, changed = (
        configure(profile="demo"),
        configure(profile="demo", options={"tumor.gamma": 1}),
    )
    assert changed.tumor.gamma == 1.0
    assert replace(changed, tumor=plain.tumor, changes=()) == plain
    assert changed.study == "demo+tumor.gamma=1.0" and plain.study == "demo"


def test_a_setting_that_is_the_profiles_own_changes_nothing() -> None:
    same = configure(profile="demo", options={"tumor.gamma": 2, "kidney.epochs": 17})
    assert same == configure(profile="demo")


def test_a_study_with_many_changes_has_a_short_name_of_its_own() -> None:
    names = set()
    for epochs in (3, 4):
        options = {f"tumor.{n}": 0.5 for n in ("gamma", "alpha", "lam", "lr", "clip")}
        options |= {"kidney.epochs": epochs, "arms": ["baseline", "multi_scale", "attention"]}
        names.add(configure(profile="demo", options=options).study)
    assert len(names) == 2 and all(len(name) < 120 and "/" not in name for name in names)


def test_the_command_makes_the_study_again(tmp_path: Path) -> None:
    options = {"seeds": [0, 1], "tumor.lr": 1e-5}
    config = configure(profile="smoke", out=str(tmp_path / "a b"), options=options)
    words = shlex.split(config.command)
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    out = words[words.index("--out") + 1]
    again = configure(profile="smoke", out=out, options=parse_settings(settings))
    assert again == config


def test_settings_are_read_as_json_or_text() -> None:
    found = parse_settings(["kidney.epochs=3", "seeds=[0, 1]", "tumor.hu=literal", "data=a=b"])
    assert found == {"kidney.epochs": 3, "seeds": [0, 1], "tumor.hu": "literal", "data": "a=b"}
    for word in ("kidney.epochs", "=3"):
        with pytest.raises(ConfigError, match="expected NAME=VALUE"):
            parse_settings([word])


@pytest.mark.parametrize("words", ["[baseline,full]", "[baseline, full]", '["baseline", "full"]'])
def test_a_list_of_names_needs_no_quotes(words: str) -> None:
    options = parse_settings([f"arms={words}"])
    assert configure(profile="smoke", options=options).arms == ("baseline", "full")


@pytest.mark.parametrize("name", ["profile", "data", "out", "seed", "changes"])
def test_a_parameter_is_no_option(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*parameter of its own"):
        configure(profile="smoke", options={name: "x"})


def test_relative_folders_count_from_the_project() -> None:
    assert configure(profile="demo", out="here").reports == config.ROOT / "here" / "demo"
    assert configure(profile="demo", out="/there").reports == Path("/there/demo")


def test_the_cumulative_arms_add_one_mechanism_after_the_other() -> None:
    names = ARM_GROUPS["cumulative"]
    assert names == ("baseline", *MECHANISMS[:-1], "full")
    assert [arm(name).mechanisms for name in names] == [
        MECHANISMS[:count] for count in range(len(MECHANISMS) + 1)
    ]
    assert [arm(name).reference for name in names] == ["", *names[:-1]]


def test_each_mechanism_stands_alone_once() -> None:
    alone = [arm(name) for name in ARM_GROUPS["alone"]]
    assert [row.mechanisms for row in alone] == [(mechanism,) for mechanism in MECHANISMS]
    assert {row.reference for row in alone} == {"baseline"}


def test_the_levels_differ_in_the_level_alone() -> None:
    rows = [arm(name) for name in ARM_GROUPS["levels"]]
    assert [row.hdc_level for row in rows] == [0, 1, 2, 3, None]
    words = {f: getattr(rows[-1], f) for f in ("name", "description", "reference")}
    for row in rows:
        assert replace(row, **words, hdc_level=None) == rows[-1]


def test_the_groups_hold_every_arm() -> None:
    assert set(itertools.chain(*ARM_GROUPS.values())) == set(ARMS)
    assert all(row.reference in ARMS for row in ARMS.values() if row.name != "baseline")
    assert {row.network for row in map(arm, ARM_GROUPS["rivals"])} == {"vnet", "unet", "deeplab"}


def test_no_two_arms_train_the_same_thing() -> None:
    assert [row.name for row in ARMS.values()] == list(ARMS)
    for one, other in itertools.combinations(ARMS.values(), 2):
        assert recipe(one) != recipe(other), (one.name, other.name)
    for first, second in itertools.combinations(KIDNEY_ARMS.values(), 2):
        assert first.settings != second.settings


def test_an_unknown_arm_lists_the_right_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        arm("everything")
    assert all(name in str(caught.value) for name in ARMS)
    with pytest.raises(ConfigError, match=r"did you mean 'mirror_none'.*standard, no_residual"):
        kidney_arm("mirror_non")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": "unet", "se": True, "hdc": True}, "unet has no se, hdc"),
        ({"attention_gate": "additive"}, "attention_gate is set while attention is off"),
        ({"hdc_level": 1}, "hdc_level is set while hdc is off"),
        ({"oversample_by": "cysts"}, "oversample_by is set while oversample is off"),
        ({"hdc": True, "hdc_level": -1}, "Arm.hdc_level: -1 is below the smallest allowed, 0"),
        ({"width": 0}, "Arm.width: 0.0 is below"),
        ({"network": "vet"}, "Arm.network: 'vet' is not a choice; did you mean 'vnet'"),
    ],
)
def test_an_arm_that_contradicts_itself_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        arm("baseline").variant("mine", "a trial", **settings)


def test_one_name_is_one_arm() -> None:
    baseline, changed = arm("baseline"), replace(arm("baseline"), se=True)
    assert by_name([baseline, baseline]) == {"baseline": baseline}
    with pytest.raises(ConfigError, match="'baseline' stands twice"):
        by_name([baseline, changed])


def test_the_options_of_a_network_are_the_arms_fields() -> None:
    shared = {"slices": 3, "widths": (8, 16, 32), "norm": True}
    assert arm("baseline").network_options(**shared) == {"name": "vnet", "dims": "2.5d", **shared}
    assert arm("unet").network_options(**shared) == {
        "name": "unet", "dims": "2.5d", **shared
    }  # fmt: skip
    assert arm("vnet_3d").network_options(**shared, width=0.45)["widths"] == (4, 7, 14)
    assert arm("deeplab").network_options(**shared)["rates"] == (12, 24, 36)  # of a map of 128
    small = arm("deeplab").network_options(**shared, patch=(48, 48))
    assert small["rates"] == (1, 2, 3)  # of 12 pixels
    assert arm("additive_gate").network_options(**shared)["attention_gate"] == "additive"
    level = arm("hdc_level_1").network_options(**shared)
    assert (level["hdc_level"], level["hdc_dilations"], level["attention_gate"]) == (
        1,
        (2, 3, 5),
        "concat",
    )
    assert arm("plain_dilation").network_options(**shared)["hdc_dilations"] == (2, 2, 2)
    assert arm("hdc").network_options(**shared) == arm("full").network_options(
        **shared
    )  # the rest is training
    in_a_form = {name for names in FORMS.values() for name in names} - {"oversample_by"}
    assert set(level) == {
        "name",
        "dims",
        *shared,
        "multi_scale",
        "se",
        "attention",
        "hdc",
        *in_a_form,
    }


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_builds_and_gives_back_the_size(name: str) -> None:
    network = build(**arm(name).network_options(slices=3, widths=(2, 2, 4, 4, 4), norm=True))
    x = torch.zeros(
        {"2d": (1, 1, 16, 20), "2.5d": (1, 3, 16, 20), "3d": (1, 1, 4, 16, 20)}[arm(name).dims]
    )
    assert network(x).shape == (1, 1, *x.shape[2:])


@pytest.mark.parametrize("name", ARM_GROUPS["left_out"])
def test_what_is_left_out_of_full_is_one_mechanism(name: str) -> None:
    left_out = name.removeprefix("no_")
    assert arm(name).reference == "full"
    assert set(arm("full").mechanisms) - set(arm(name).mechanisms) == {left_out}


def test_in_the_study_every_mechanism_has_room_to_act() -> None:
    config = PROFILES["study"]
    t = config.tumor
    assert min(t.patch) // 2 ** (len(t.widths) - 1) >= 12  # pixels of the deepest map
    assert t.slab_batch * t.slab == t.batch  # as many slices a step in 3D as in 2.5D
    assert len(config.seeds) >= 6 and not config.single_seed_arms
    assert config.cohort.held_out == 200


def test_deviations_are_named_with_what_the_paper_has() -> None:
    assert config.deviations(as_dict(PROFILES["paper"])) == []
    here = configure(profile="paper", options={"kidney.epochs": 3, "threads": 2, "seeds": [0]})
    assert config.deviations(as_dict(here)) == [
        {"setting": "seeds", "paper": [0, 1, 2], "here": [0]},
        {"setting": "kidney.epochs", "paper": 500, "here": 3},
    ]
    day = {row["setting"]: row["here"] for row in config.deviations(as_dict(PROFILES["day"]))}
    assert day["tumor.patch"] == [192, 384] and day["cohort.split"] == "fold0"
    assert "tumor.batch" not in day and "profile" not in day


@pytest.mark.parametrize("profile", ["smoke", "demo", "day", "paper"])
def test_kidney_windows_are_as_deep_as_the_slabs_trained_on(profile: str) -> None:
    assert PROFILES[profile].kidney.window_slices == PROFILES[profile].kidney.slab


@pytest.mark.parametrize("name", KIDNEY_ARMS)
def test_a_kidney_arm_changes_its_section_and_nothing_else(name: str) -> None:
    plain = PROFILES["demo"].kidney
    changed = replace(plain, **kidney_arm(name).settings)
    assert replace(changed, residual=True, deep_supervision=True, mirror="sagittal") == plain
    assert len(kidney_arm(name).settings) == (name != "standard")
    options = {"residual": changed.residual, "deep_supervision": changed.deep_supervision}
    outputs = build("resunet3d", widths=(2, 2, 2, 2, 2), **options).train()(
        torch.zeros(1, 1, 8, 8, 8)
    )
    assert isinstance(outputs, tuple) == changed.deep_supervision


def test_key_changes_with_any_value_but_not_with_order() -> None:
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert key({"a": 1, "b": 2}) != key({"a": 1, "b": 3})
    assert len(key(1)) == 16


def test_the_code_key_is_alike_for_any_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the text of ast.dump has a version's own fields and leaves others out
    monkeypatch.setattr(config.code, "PACKAGE", tmp_path)
    (tmp_path / "room.py").write_text('def f(a: int):\n    return f"{a}" or b"x"\n')
    assert config.code_key("room.py") == "b35d1ed65c0198a5"


def test_prose_does_not_change_the_code_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "kitslib" / "room.py"
    room.parent.mkdir()
    monkeypatch.setattr(config.code, "PACKAGE", tmp_path / "kitslib")
    keys = []
    for source in (
        '"""One."""\ndef f(x):\n    """Twice."""\n    return 2 * x\n',
        '"""Two."""\n# why\ndef f(x):\n    """Double."""\n    return 2 * x  # twice\n',
        '"""One."""\ndef f(x):\n    """Twice."""\n    return 3 * x\n',
    ):
        room.write_text(source)
        keys.append(config.code_key("room.py"))
    assert keys[0] == keys[1] != keys[2]


def test_a_parameter_that_the_notebook_does_not_have_is_refused_by_name() -> None:
    declared = 'profile: str = "demo"  # help\nseed: int = 0\n'
    config.check_parameters(["", declared, "# Parameters\nseed = 3\n", "x = 1"])
    config.check_parameters(["", declared, "x = 1"])
    with pytest.raises(ConfigError, match=r"'sed' .* did you mean 'seed'"):
        config.check_parameters(["", declared, "# Parameters\nsed = 3\n"])


def test_an_arm_is_compared_with_the_nearest_that_was_trained() -> None:
    assert compared_pairs(["baseline", "full"]) == [("baseline", "full")]
    assert compared_pairs(["full"]) == []
    pairs = compared_pairs(["baseline", "se", "hdc", "plain_dilation", "full"])
    assert pairs == [
        ("baseline", "se"), ("se", "hdc"), ("hdc", "plain_dilation"), ("hdc", "full"),
        ("baseline", "full"),
    ]  # fmt: skip
    every = compared_pairs(list(ARMS))
    assert {arm for _, arm in every} == set(ARMS) - {"baseline"} and len(every) == len(ARMS)


def test_a_profile_says_whether_its_networks_are_untrained() -> None:
    said = {name: config.untrained for name, config in PROFILES.items()}
    assert "3 epochs, a tumour network for 12 steps: too few to learn, on purpose" in said.pop(
        "smoke"
    )
    assert set(said.values()) == {""}
    longer = configure(profile="smoke", options={"tumor.steps": 100})
    assert longer.untrained == ""


def test_a_folder_of_rendered_cases_is_synthetic_and_not_drawn_here(tmp_path: Path) -> None:
    rendered, real = tmp_path / "rendered", tmp_path / "real"
    for folder in (rendered, real):
        folder.mkdir()
    (rendered / SYNTHETIC_MARKER).write_text("{}")
    found = [configure(profile="smoke", data=str(folder)) for folder in (rendered, real)]
    assert [(config.synthetic, config.drawn) for config in found] == [(True, False), (False, False)]
    drawn = configure(profile="smoke")
    assert drawn.synthetic and drawn.drawn

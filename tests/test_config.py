"""The configuration refuses what it does not know, by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kitslib import config
from kitslib.config import ARMS, MECHANISMS, PROFILES, ConfigError, arm, as_dict, configure, key


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
    plain, changed = configure(profile="demo"), configure(profile="demo", options={"tumor.gamma": 1})
    assert changed.tumor.gamma == 1.0
    assert replace(changed, tumor=plain.tumor) == plain


def test_relative_folders_count_from_the_project() -> None:
    assert configure(profile="demo", out="here").reports == config.ROOT / "here" / "demo"
    assert configure(profile="demo", out="/there").reports == Path("/there/demo")


def test_arms_are_named_as_they_are_listed_and_differ_in_their_flags() -> None:
    assert [a.name for a in ARMS.values()] == list(ARMS)
    assert arm("baseline").mechanisms == ()
    assert arm("full").mechanisms == MECHANISMS
    with pytest.raises(ConfigError, match="baseline, full"):
        arm("everything")


def test_key_changes_with_any_value_but_not_with_order() -> None:
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert key({"a": 1, "b": 2}) != key({"a": 1, "b": 3})
    assert len(key(1)) == 16


def test_prose_does_not_change_the_code_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "kitslib" / "room.py"
    room.parent.mkdir()
    monkeypatch.setattr(config.code, "ROOT", tmp_path)
    keys = []
    for source in (
        '"""One."""\ndef f(x):\n    """Twice."""\n    return 2 * x\n',
        '"""Two."""\n# why\ndef f(x):\n    """Double."""\n    return 2 * x  # twice\n',
        '"""One."""\ndef f(x):\n    """Twice."""\n    return 3 * x\n',
    ):
        room.write_text(source)
        keys.append(config.code_key("room"))
    assert keys[0] == keys[1] != keys[2]


def test_rooms_used_follows_imports_through_rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kitslib"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.py").write_text("from kitslib.b import x\n")
    (folder / "b.py").write_text("import kitslib.deep\nfrom kitslib.config import y\n")
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "unused.py").write_text("")
    monkeypatch.setattr(config.code, "ROOT", tmp_path)
    assert config.rooms_used("from kitslib import a\n") == ["a", "b", "deep"]


def test_a_parameter_that_the_notebook_does_not_have_is_refused_by_name() -> None:
    declared = 'profile: str = "demo"  # help\nseed: int = 0\n'
    config.check_parameters(["", declared, "# Parameters\nseed = 3\n", "x = 1"])
    config.check_parameters(["", declared, "x = 1"])
    with pytest.raises(ConfigError, match=r"'sed' .* did you mean 'seed'"):
        config.check_parameters(["", declared, "# Parameters\nsed = 3\n"])

"""A study as an RO-Crate: valid by its profile, the same bytes each time, no path of a machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import requests
import rocrate
from rocrate_validator import services
from rocrate_validator.utils.http import HttpRequester
from test_claim import a_study

from kitslib.commands.crate import write_crate

CONTEXT = Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld"  # of RO-Crate 1.3
WORKFLOW = "https://bioschemas.org/ComputationalWorkflow"
TERMS = {  # where that of 1.1, which ships with no package, says otherwise
    "ComputationalWorkflow": WORKFLOW, "FormalParameter": "https://bioschemas.org/FormalParameter",
    "input": f"{WORKFLOW}#input", "output": f"{WORKFLOW}#output",
}  # fmt: skip


def stored(folder: Path, **config) -> tuple[dict, dict]:
    """A finished study's folder with two seeds of an arm; its summary and records."""
    found, records = a_study(folder, synthetic="data" not in config)
    records["03_tumor-full-s1"] = {**records["03_tumor-full-s0"], "run": "tumor-full-s1"}
    for index, (name, record) in enumerate(records.items()):
        record |= {"began": 100.0 * index, "ended": 100.0 * index + 60, "commit": "1a2b3c4"}
        record["config"] = record["config"] | {"seeds": [0, 1], "changes": []} | config
        file = folder / "work" / "records" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(record), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(found), encoding="utf-8")
    for name in ("index.html", "04_ablations.html", "models/kidney/weights.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"this is {name}", encoding="utf-8")
    return found, records


def graph(crate: Path) -> dict[str, dict]:
    """The entities of a crate by their id."""
    with zipfile.ZipFile(crate) as archive:
        entities = json.loads(archive.read("ro-crate-metadata.json"))["@graph"]
    return {entity["@id"]: entity for entity in entities}


@pytest.fixture
def offline(monkeypatch) -> None:
    """What the validator would fetch is the context alone, and it gets it from a package."""
    context = json.loads(CONTEXT.read_text(encoding="utf-8"))
    context["@context"] |= TERMS

    def get(_requester, url: str, **_options) -> requests.Response:
        assert url == "https://w3id.org/ro/crate/1.1/context"
        answer = requests.Response()
        answer.status_code, answer._content = 200, json.dumps(context).encode()
        answer.headers["Content-Type"] = "application/ld+json"
        return answer

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)


def issues(crate: Path, cache: Path) -> list[str]:
    """What the profile's validator finds that must not be."""
    settings = {"rocrate_uri": str(crate), "profile_identifier": "provenance-run-crate-0.5"}
    settings |= {"requirement_severity": "REQUIRED", "offline": True, "cache_path": cache}
    return [str(issue.message) for issue in services.validate(settings).get_issues()]


def test_it_is_a_valid_provenance_run_crate(tmp_path, offline) -> None:
    crate = write_crate(tmp_path, *stored(tmp_path))
    assert issues(crate, tmp_path / "cache") == []
    spoiled, files = tmp_path / "spoiled", zipfile.ZipFile(crate)
    files.extractall(spoiled)
    text = (spoiled / "ro-crate-metadata.json").read_text(encoding="utf-8")
    (spoiled / "ro-crate-metadata.json").write_text(text.replace("ControlAction", "ReadAction"))
    assert any("ControlAction" in issue for issue in issues(spoiled, tmp_path / "cache"))


def test_the_same_study_gives_the_same_bytes(tmp_path) -> None:
    study = stored(tmp_path)
    first = write_crate(tmp_path, *study).read_bytes()
    assert write_crate(tmp_path, *study).read_bytes() == first
    assert not list(tmp_path.glob(".*")), "nothing is left of the writing"


def test_it_holds_the_run_and_neither_weights_nor_pages(tmp_path) -> None:
    found, records = stored(tmp_path)
    crate = write_crate(tmp_path, found, records)
    names, entities = set(zipfile.ZipFile(crate).namelist()), graph(crate)
    kept = {f"work/records/{name}.json" for name in records}
    kept |= {"Snakefile", "summary.json", "work/split.json", "constraints.txt", "LICENSE"}
    kept |= {f"notebooks/{name}.ipynb" for name in ("01_data", "03_tumor", "05_evaluation")}
    assert kept <= names
    assert not [name for name in names if name.endswith((".html", ".safetensors", ".nii.gz"))]
    page = entities["#04_ablations.html"]
    told = hashlib.sha256((tmp_path / "04_ablations.html").read_bytes()).hexdigest()
    assert page["sha256"] == told and {"@id": "#index.html"} in entities["./"]["subjectOf"]


def test_times_versions_and_tools_are_those_of_the_records(tmp_path) -> None:
    entities = graph(write_crate(tmp_path, *stored(tmp_path)))
    study, run = entities["#study"], entities["#run-02_kidney"]
    assert (study["startTime"], study["endTime"]) == (
        "1970-01-01T00:00:00+00:00", "1970-01-01T00:09:20+00:00",
    )  # fmt: skip
    assert (run["startTime"], run["endTime"]) == (
        "1970-01-01T00:01:40+00:00", "1970-01-01T00:02:40+00:00",
    )  # fmt: skip
    assert "./run_all.sh --profile demo, commit 1a2b3c4" in study["description"]
    assert entities["#torch"]["version"] == "2.13.0" and entities["#Python"]["version"] == "3.11.7"
    assert run["instrument"] == {"@id": "notebooks/02_kidney.ipynb"}
    assert run["result"] == {"@id": "work/records/02_kidney.json"}
    further = entities["#run-03_tumor-full-s1"]
    assert further["instrument"] == {"@id": "#kitslib-train"}
    order = entities["#order"]
    assert {"@id": "#control-04_ablations"} in order["object"] and len(order["object"]) == 6
    assert entities["#value-data"]["value"].startswith("synthetic cohort, key ")


@pytest.mark.parametrize("data", ["/secret/kits", "/secret/kits/", "/data"])
def test_of_the_folder_given_the_name_alone_is_told(tmp_path, data) -> None:
    found, records = stored(tmp_path, data=data, changes=["kidney.epochs=2"])
    file = tmp_path / "work" / "split.json"
    split = json.loads(file.read_text(encoding="utf-8"))
    place = data.rstrip("/")
    split["left_out"] = {"x": f"{place}/case_00001/imaging.nii.gz: torn; kitslib/data/cases knows"}
    file.write_text(json.dumps(split), encoding="utf-8")
    crate = write_crate(tmp_path, found, records)
    name, archive = place.rpartition("/")[2], zipfile.ZipFile(crate)
    told = json.loads(archive.read("work/split.json"))["left_out"]["x"]
    assert told == f"{name}/case_00001/imaging.nii.gz: torn; kitslib/data/cases knows"
    config = json.loads(archive.read("work/records/02_kidney.json"))["config"]
    assert config["data"].rstrip("/") == name
    entities = graph(crate)
    assert entities["#value-data"]["value"] == name
    assert entities["#value-kidney.epochs"]["value"] == "2"
    if data != "/data":
        for member in archive.namelist():
            assert b"secret" not in archive.read(member), member


def test_no_other_command_loads_it() -> None:
    code = "import sys, kitslib.commands.report; sys.exit('rocrate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""A study as a Workflow Run RO-Crate: one zip that says what was run, on what, and what came out.

Profile: Provenance Run Crate 0.5 (https://w3id.org/ro/wfrun/provenance/0.5). The workflow is the
Snakefile, its tools are the notebooks, and each record is the result of one execution.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kitslib import __version__, training
from kitslib.commands import followed
from kitslib.config import ROOT, read_json, replacing

CRATE = "ro-crate.zip"
ABOUT = "The run for machines, as one zip: workflow, each step with its time, versions, records."
PROFILES = {
    "ro/wfrun/process/0.5": "Process Run Crate", "ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}  # fmt: skip
FILES = {  # of the study's folder: what each is
    "summary.json": "Every result that the index page shows",
    "work/split.json": "Which cases were used, left out, trained on and tested",
    "work/rules.json": "By which rules results became verdicts, and since when",
    "models/README.md": "Model card", "DATA_CARD.md": "Data card",
}  # fmt: skip
SOURCES = {  # of the project's folder
    "constraints.txt": "The exact versions that run_all.sh installs",
    "CITATION.cff": "How to cite it", "LICENSE": "The licence",
}  # fmt: skip
NOTEBOOK = "application/x-ipynb+json"
FORMATS = {".json": "application/json", ".md": "text/markdown"}
TRAIN = "#kitslib-train"  # what makes a record without a notebook
DONE = "http://schema.org/CompletedActionStatus"
BIOSCHEMAS = "https://bioschemas.org/profiles"
STAMP = (1980, 1, 1, 0, 0, 0)  # of all files in the zip: the same study gives the same bytes
AGENT = {"agent": {"@id": "#agent"}, "actionStatus": DONE}
Records = Mapping[str, followed.Record]


def write_crate(folder: Path, found: Mapping[str, Any], records: Records) -> Path:
    """Write `ro-crate.zip` into a study's folder, which has its pages already; return its path.

    Without weights and volumes. Pages are named, and lie beside the zip. Of the path of a folder
    that was given with --data the last part is left.
    """
    from rocrate.rocrate import ROCrate  # nothing else needs its third of a second

    crate, last = ROCrate(version="1.1"), records["05_evaluation"]
    crate.add_jsonld({"@id": "#agent", "@type": "Organization", "name": "Not recorded"})
    files = add_files(crate, folder, records)
    workflow = add_workflow(crate, folder, found, records)
    given = add_parameters(crate, workflow, last["config"], files["summary.json"])
    words = f"{followed.command(last)}, commit {found['commit']}, on {found.get('device')}"
    study = {"name": f"Study, profile {found['profile']}", "description": words} | AGENT
    study |= {"startTime": moment(min(map(itemgetter("began"), records.values())))}
    study |= {"endTime": moment(max(map(itemgetter("ended"), records.values())))}
    order = study | {"@type": "OrganizeAction", "name": "The stages in their order"}
    made = list(files.values())
    whole = crate.add_action(workflow, "#study", object=given, result=made, properties=study)
    sides = {"object": add_runs(crate, records, files), "result": whole}
    crate.add_action(crate.get("#snakemake"), "#order", properties=order, **sides)
    describe(crate, folder, found, last)
    with TemporaryDirectory() as place, replacing(folder / CRATE) as part:
        crate.write(place)
        pack(Path(place), part)
    return folder / CRATE


def add_files(crate: Any, folder: Path, records: Records) -> dict[str, Any]:
    """Add the study's own files and records; return what came out of it, by name."""
    given = (records["05_evaluation"]["config"].get("data") or "").rstrip("/")
    path = re.compile(rf"(?<![\w./-]){re.escape(given)}(?![\w.-])") if given else None
    for name, words in SOURCES.items():
        about = {"name": words, "encodingFormat": "text/plain"}
        crate.add_file(ROOT / name, name, properties=about)
    files, told = {}, dict(FILES)
    for name in records:
        told[f"work/records/{name}.json"] = f"Record of {name}"
    for name, about in told.items():
        if not (folder / name).is_file():
            continue
        text = (folder / name).read_text(encoding="utf-8")
        if path and name.endswith(".json"):
            text = json.dumps(cut(json.loads(text), path, Path(given).name), indent=1) + "\n"
        described = {"name": about, "encodingFormat": FORMATS[Path(name).suffix]}
        files[name] = crate.add_file(io.StringIO(text), name, properties=described)
    return files


def cut(value: Any, path: re.Pattern[str], name: str) -> Any:
    """Return a JSON value with each path in its strings replaced."""
    if isinstance(value, str):
        return path.sub(name, value)
    if isinstance(value, list):
        return [cut(item, path, name) for item in value]
    if isinstance(value, dict):
        return {field: cut(item, path, name) for field, item in value.items()}
    return value


def add_workflow(crate: Any, folder: Path, found: Mapping[str, Any], records: Records) -> Any:
    """Add the Snakefile with its tools, a step each, and what it needs; return it."""
    version = training.commit() or "not recorded"  # of the files that are put in
    about = {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        "name": "The stages of the study", "version": version, "encodingFormat": "text/plain",
        "conformsTo": {"@id": f"{BIOSCHEMAS}/ComputationalWorkflow/1.0-RELEASE"},
    }  # fmt: skip
    source = ROOT / "Snakefile", "Snakefile"
    workflow = crate.add_workflow(*source, main=True, lang="snakemake", properties=about)
    for place, tool in enumerate(dict.fromkeys(map(tool_of, records, records.values()))):
        if tool == TRAIN:
            about = {"@type": "SoftwareApplication", "name": "kitslib train", "version": version}
            one = crate.add_jsonld({"@id": TRAIN, **about})
        else:
            title, question = followed.NOTEBOOKS[Path(tool).stem]
            about = {"@type": ["File", "SoftwareSourceCode"], "name": title, "version": version}
            about |= {"description": question, "encodingFormat": NOTEBOOK}
            one = crate.add_file(ROOT / tool, tool, properties=about)
        step = {"@id": f"#step-{Path(tool).stem}", "@type": "HowToStep", "position": str(place)}
        step = crate.add_jsonld(step | {"workExample": {"@id": one.id}, "name": about["name"]})
        workflow.append_to("hasPart", one)
        workflow.append_to("step", step)
    file = folder / "models" / "made.json"
    made = read_json(file) if file.is_file() else {"versions": {}, "python": "not recorded"}
    needed = {"snakemake": installed("snakemake"), "kitslib": __version__}
    for name, number in (needed | made["versions"] | {"Python": made["python"]}).items():
        about = {"@id": f"#{name}", "@type": "SoftwareApplication", "name": name}
        workflow.append_to("softwareRequirements", crate.add_jsonld(about | {"version": number}))
    return workflow


def tool_of(name: str, record: followed.Record) -> str:
    """Return what made a record: a notebook, or `kitslib train` for a seed without a page."""
    seeds, seed = record["config"]["seeds"], re.search(r"-s(\d+)$", name)
    paged = seed is None or int(seed[1]) == seeds[0]
    return f"notebooks/{name.partition('-')[0]}.ipynb" if paged else TRAIN


def add_parameters(crate: Any, workflow: Any, config: Mapping[str, Any], made: Any) -> list[Any]:
    """Add what the workflow was given and what it gives; return the values that were given."""
    given = {"profile": config["profile"], "data": followed.cohort(config)}
    if config.get("data"):
        given["data"] = Path(config["data"]).name
    for change in config.get("changes", []):
        name, _, value = change.partition("=")
        given[name] = value
    values = []
    for name, value in given.items():
        about = {"@id": f"#value-{name}", "@type": "PropertyValue", "name": name, "value": value}
        values.append(crate.add_jsonld(about | {"exampleOfWork": {"@id": f"#parameter-{name}"}}))
        one = {"workExample": {"@id": values[-1].id}}
        one = crate.add_formal_parameter(name, "Text", f"#parameter-{name}", properties=one)
        workflow.append_to("input", one)
    one = {"workExample": {"@id": made.id}}
    one = crate.add_formal_parameter("summary", "File", "#parameter-summary", properties=one)
    made["exampleOfWork"] = one
    workflow["output"] = one
    return values


def add_runs(crate: Any, records: Records, files: Mapping[str, Any]) -> list[Any]:
    """Add the execution that made each record; return what controlled them."""
    steps = []
    for name, record in records.items():
        tool, result = tool_of(name, record), files[f"work/records/{name}.json"]
        about = {"name": name, "description": f"Commit {record.get('commit')}"} | AGENT
        about |= {"startTime": moment(record["began"]), "endTime": moment(record["ended"])}
        run = crate.add_action(crate.get(tool), f"#run-{name}", result=result, properties=about)
        crate.root_dataset.append_to("mentions", run)
        step, about = crate.get(f"#step-{Path(tool).stem}"), about | {"@type": "ControlAction"}
        steps.append(crate.add_action(step, f"#control-{name}", object=run, properties=about))
    return steps


def describe(crate: Any, folder: Path, found: Mapping[str, Any], last: followed.Record) -> None:
    """Say on the crate's root what it is, whose, since when, by which profiles; name the pages."""
    about, root = followed.citation(found, last), crate.root_dataset
    terms = {"@id": f"https://spdx.org/licenses/{about['license']}", "@type": "CreativeWork"}
    authors = {"@id": "#authors", "@type": "Organization", "name": about["authors"]}
    root["license"] = crate.add_jsonld(terms | {"name": about["license"]})
    root["author"] = root["publisher"] = crate.add_jsonld(authors)
    root["name"] = f"{about['title']}, profile {found['profile']}"
    root["description"] = f"A study with its provenance: {followed.command(last)}"
    root["datePublished"] = moment(last["ended"])
    for address, name in PROFILES.items():
        version = address.rpartition("/")[2]
        one = {"@id": f"https://w3id.org/{address}", "@type": "CreativeWork", "name": name}
        root.append_to("conformsTo", crate.add_jsonld(one | {"version": version}))
    for name in ("#study", "#order"):
        root.append_to("mentions", crate.get(name))
    for page in sorted(folder.glob("*.html")):
        one = {"@id": f"#{page.name}", "@type": "CreativeWork", "name": page.name}
        one |= {"sha256": hashlib.sha256(page.read_bytes()).hexdigest()}
        one |= {"description": "A page of the study, beside the zip", "encodingFormat": "text/html"}
        root.append_to("subjectOf", crate.add_jsonld(one))


def pack(place: Path, target: Path) -> None:
    """Put a folder into a zip whose bytes depend on its files alone."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(place.rglob("*")):
            if file.is_file():
                entry = zipfile.ZipInfo(file.relative_to(place).as_posix(), STAMP)
                entry.external_attr, entry.create_system = 0o644 << 16, 3
                archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)


def installed(package: str) -> str:
    """Return the version of a package that need not be there."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return "not recorded"


def moment(seconds: float) -> str:
    """Return a time in seconds since 1970 as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

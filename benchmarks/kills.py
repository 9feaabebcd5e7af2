"""A study killed at random moments and started again: does it end as one that never was?

The smoke study runs twice undisturbed, which says what two studies have in common. Then each trial
begins in an empty folder, kills every process of the study with SIGKILL at random moments, one to
four of them, starts the study again after each, and compares all that it found in the end. A call
of the benchmark that is interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._findings import count, findings
from benchmarks._measure import Report, Table, command, conditions
from benchmarks._study import StudyError, study, study_key
from kitslib.config import ROOT, read_json, write_json
from kitslib.training import differing

KILLS = (2, 3, 4, 1)  # of one trial after the other
CALLS = 3  # after the last kill, before a trial counts as not ended
SHOWN = 3  # differences in the table; the others stand in the trial's file


def undisturbed(work: Path) -> float:
    """Run the study in an empty folder; return its seconds."""
    shutil.rmtree(work / "reports", ignore_errors=True)
    return study(work / "reports", log=work / "calls.log").usage().wall_s


def reference(work: Path) -> dict[str, Any]:
    """Return key, seconds and findings of the undisturbed study, run where `work` has none.

    Raises StudyError where a second one finds something else: then nothing can be compared.
    """
    path = work / "reference.json"
    if path.is_file() and read_json(path)["key"] == study_key():
        return read_json(path)
    shutil.rmtree(work, ignore_errors=True)
    undisturbed(work)
    found = findings(work / "reports" / "smoke")
    seconds = undisturbed(work)
    if names := differing(found, findings(work / "reports" / "smoke")):
        raise StudyError(f"two undisturbed studies differ: {'; '.join(names)}")
    write_json(path, {"key": study_key(), "seconds": seconds, "findings": found})
    return read_json(path)


def trial(number: int, seed: int, work: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Kill the study, let it end, compare; return the kills, the calls needed, and differences.

    Moments are drawn over the seconds that an undisturbed study takes; each call runs from one to
    the next. A study that ends before its first moment is begun anew with others.
    """
    rng, out, log = np.random.default_rng((seed, number)), work / "reports", work / "calls.log"
    kills: list[dict[str, Any]] = []
    while not kills:
        shutil.rmtree(out, ignore_errors=True)
        moments = rng.uniform(0, wanted["seconds"], KILLS[(number - 1) % len(KILLS)])
        for seconds in np.diff(np.sort(moments), prepend=0).tolist():
            call = study(out, log=log)
            if call.ends_within(seconds):
                break
            kills.append({"after_s": round(seconds, 1), "at_work": call.kill()})
    calls, ended = 0, False
    while not ended and calls < CALLS:
        calls += 1
        ended = study(out, log=log).process.wait() == 0
    differs = ["did not end"]
    if ended:
        differs = differing(wanted["findings"], findings(out / "smoke"))
    return {"trial": number, "kills": kills, "calls": calls, "differs": differs}


def row(found: dict[str, Any]) -> dict[str, Any]:
    """Return a trial as the table shows it."""
    differs, moments, at_work = found["differs"], [], []
    for kill in found["kills"]:
        moments.append(f"{kill['after_s']:.1f}")
        at_work.append(", ".join(kill["at_work"]))
    shown = "; ".join(differs[:SHOWN]) or "nothing"
    if len(differs) > SHOWN:
        shown += f"; and {len(differs) - SHOWN} more"
    return {
        "trial": found["trial"], "killed after, s": ", then ".join(moments),
        "at work": "; then ".join(at_work), "calls to the end": found["calls"], "differs": shown,
    }  # fmt: skip


def verdict(trials: Sequence[dict[str, Any]], asked: int) -> str:
    """Say how many of the trials ended alike, and whether all that were asked for did."""
    alike = sum(not found["differs"] for found in trials)
    kills = sum(len(found["kills"]) for found in trials)
    met = "met" if alike == len(trials) and kills >= asked else "missed"
    text = (
        f"{alike} of {len(trials)} studies, killed {kills} times in all, ended as one never killed"
    )
    return f"{text}; {asked} kills and all studies asked: {met}"


def report(folder: Path, args: argparse.Namespace, words: str, wanted: dict[str, Any]) -> Report:
    """Return the report on the trials in `folder`."""
    trials = [read_json(path) for path in sorted(folder.glob("*.json"))]
    facts, sizes = conditions(1, 1), []
    for kind, values in wanted["findings"].items():
        sizes.append(f"{count(values):,} of {kind}")
    note = (
        f"Moments are drawn with seed {args.seed} over the {wanted['seconds']:.0f} s that an "
        "undisturbed study took here; SIGKILL to every process. Seconds are those of the call."
    )
    return Report(
        name="kills",
        question="Does a study that was killed and started again end as one that never was?",
        command=words,
        conditions={
            "study": "smoke, each trial in an empty folder: cohort, cache and runs are made anew",
            "compared": f"{', '.join(sizes)}; but times, dates and the commit",
            "control": "two undisturbed studies, equal in all of these",
            **{name: facts[name] for name in ("processor", "GPU", "versions")},
        },
        tables=[Table(title="Trials", note=note, rows=[row(found) for found in trials])],
        bounds=[verdict(trials, args.kills)],
    )


def main(arguments: Sequence[str]) -> int:
    """Run the trials that are missing and publish the table; 1 where something differs."""
    options = argparse.ArgumentParser(prog="python -m benchmarks kills", description=__doc__)
    add = options.add_argument
    add("--kills", type=int, default=20, help="in all, over several studies (%(default)s)")
    add("--seed", type=int, default=0, help="of the moments (%(default)s)")
    add("--work", type=Path, default=ROOT / "reports" / "kills", help="folder for the studies")
    add("--out", type=Path, help="folder for kills.md and kills.json; else they are only printed")
    args = options.parse_args(arguments)
    work = args.work.resolve()
    wanted, trials = reference(work), work / f"trials-{args.seed}"
    done = number = 0
    while done < args.kills:
        number += 1
        path = trials / f"{number:03}.json"
        if not path.is_file():
            began = time.perf_counter()
            write_json(path, trial(number, args.seed, work, wanted))
            print(row(read_json(path)), f"{time.perf_counter() - began:.0f} s", flush=True)
        done += len(read_json(path)["kills"])
    found = report(trials, args, command("kills", arguments), wanted)
    found.publish(args.out)
    return int(any(" missed" in bound for bound in found.bounds))

"""The package names what it needs, the lock its versions, run_all.sh where it does not run."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kitslib

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
TORCH = "torch==2.13.0"
INSTALLERS = {"kitslib", "pip", "setuptools", "torch"}


def lines_of(name: str) -> list[str]:
    """The lines of a file without comments and empty ones."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def locked() -> dict[str, str]:
    """The exact version of each name that the lock has for this Python."""
    found = [Requirement(line) for line in lines_of("constraints.txt")]
    here = [one for one in found if one.marker is None or one.marker.evaluate()]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in here}


LOCK = locked()


def requirements_of(name: str) -> list[Requirement]:
    if name != "kitslib":
        return [Requirement(line) for line in metadata.requires(name) or []]
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra, lines in EXTRAS.items():
        found += [Requirement(f"{line}; extra == '{extra}'") for line in lines]
    return found


def closure(requirement: str) -> set[str]:
    """The names of all that a requirement installs on this machine."""
    found: set[tuple[str, str]] = set()
    todo = [Requirement(requirement)]
    while todo:
        parent = todo.pop()
        name = canonicalize_name(parent.name)
        for extra in {"", *parent.extras} - {e for n, e in found if n == name}:
            found.add((name, extra))
            todo += [
                child
                for child in requirements_of(name)
                if child.marker is None or child.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in found}


def test_every_import_of_the_package_is_a_dependency() -> None:
    modules: set[str] = set()
    for path in (ROOT / "kitslib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module or "")
    tops = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
    distributions = metadata.packages_distributions()
    needed = {canonicalize_name(distributions[top][0]) for top in tops - {"kitslib"}}
    assert needed <= names(PROJECT["dependencies"])


def test_all_that_lies_in_the_package_is_shipped() -> None:
    globs = PYPROJECT["tool"]["setuptools"]["package-data"]["kitslib"]
    listed = subprocess.run(
        ["git", "ls-files", "kitslib"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [Path(line).relative_to("kitslib") for line in listed.stdout.splitlines()]
    assert Path("py.typed") in files and Path("config/__init__.pyi") in files
    for file in files:
        if file.suffix != ".py":
            assert any(fnmatch(f"/{file}", f"*{glob.removeprefix('**')}") for glob in globs), file
    for folder in {file.parent for file in files if file.suffix == ".py"}:
        assert folder / "__init__.py" in files, "a folder that setuptools would not find"


def test_the_version_is_that_of_pyproject_everywhere() -> None:
    version = PROJECT["version"]
    assert metadata.version("kitslib") == kitslib.__version__ == version
    assert f"version: {version}" in lines_of("CITATION.cff")
    assert f"## [{version}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_hooks_before_a_commit_fetch_nothing() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    for repository in config["repos"]:
        assert repository["repo"] == "local"
        assert {hook["language"] for hook in repository["hooks"]} == {"system"}


def test_torch_is_exact_and_on_a_line_of_its_own() -> None:
    assert TORCH in PROJECT["dependencies"] and TORCH in lines_of("requirements.txt")
    assert not [name for name in LOCK if name == "torch" or name.startswith("nvidia")]


def test_the_lock_has_the_versions_that_are_installed() -> None:
    wrong = [
        f"{name}: locked {LOCK[name]}, installed {metadata.version(name)}"
        for name in sorted(closure("kitslib[dev]") & set(LOCK))
        if metadata.version(name) != LOCK[name]
    ]
    assert not wrong, f"{wrong}; install with -c constraints.txt, or make the lock anew"


def test_the_lock_has_all_that_is_needed_and_no_more() -> None:
    needed = closure("kitslib[dev]") - INSTALLERS
    of_torch_alone = closure(TORCH) - set(LOCK)  # CUDA's libraries, where torch is built for it
    assert needed - of_torch_alone == set(LOCK), "make the lock anew with .ci/lock"


def test_the_peers_of_the_benchmarks_are_named_alike() -> None:
    assert names(EXTRAS["benchmarks"]) == names(lines_of("benchmarks/requirements.txt"))


# run_all.sh


def on_a_machine(tmp_path: Path, uname: str, *words: str) -> subprocess.CompletedProcess:
    """Call run_all.sh where `uname` answers so."""
    fake = tmp_path / "uname"
    fake.write_text(f"#!/bin/sh\necho '{uname}'\n", encoding="utf-8")
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "run_all.sh", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("uname", "said"),
    [
        ("MINGW64_NT-10.0-22631 x86_64", "WSL"),
        ("MSYS_NT-10.0-22631 x86_64", "WSL"),
        ("CYGWIN_NT-10.0-22631 x86_64", "WSL"),
        ("Darwin x86_64", "Apple silicon"),
    ],
)
def test_a_platform_that_will_not_do_is_refused_in_one_sentence(
    tmp_path: Path, uname: str, said: str
) -> None:
    call = on_a_machine(tmp_path, uname, "--profile", "smoke", "--out", str(tmp_path / "out"))
    assert call.returncode == 1 and call.stdout == ""
    assert len(call.stderr.splitlines()) == 1 and said in call.stderr
    assert not (tmp_path / "out").exists()


def test_help_is_given_on_every_platform(tmp_path: Path) -> None:
    call = on_a_machine(tmp_path, "MSYS_NT-10.0-22631 x86_64", "--help")
    assert call.returncode == 0 and "usage" in call.stdout


def test_an_old_python_is_refused_in_one_sentence(tmp_path: Path) -> None:
    fake = tmp_path / "python3"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.6\nexit 1\n')
    fake.chmod(0o755)
    call = on_a_machine(tmp_path, "Darwin arm64")
    assert call.returncode == 1
    on_a_mac, refusal = call.stderr.splitlines()
    assert "mps" in on_a_mac and "float32" in on_a_mac
    assert refusal == "run_all.sh: Python 3.9.6 is too old; this study needs Python 3.11 or newer"


def test_run_all_is_written_for_the_bash_of_a_mac() -> None:
    text = (ROOT / "run_all.sh").read_text(encoding="utf-8")
    newer = (
        r"\$\{[^}]*(@[A-Za-z]|\^|,,?)\}|\b(mapfile|readarray|coproc|wait -n)\b"
        r"|(declare|local) -[A-Za-z]*[An]|&>>|\|&"
    )
    assert not re.findall(newer, text), "bash 3.2 does not know this"
    bare = re.findall(r'(?<!\+)"\$\{\w+\[@\]\}"', text)
    assert not bare, 'bash 3.2 calls an empty list unset: write ${list[@]+"${list[@]}"}'


def set_up(folder: Path, **more: str) -> subprocess.CompletedProcess:
    """Call a copy of run_all.sh that has nothing to install; it ends where pytest is not there."""
    for name in ("requirements.txt", "constraints.txt", "pyproject.toml"):
        (folder / name).write_text("")
    shutil.copy(ROOT / "run_all.sh", folder)
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    kept["PATH"] = f"{folder / 'bin'}:{Path(sys.executable).resolve().parent}:/usr/bin:/bin"
    words = more.pop("words", "bash run_all.sh").split()
    return subprocess.run(
        [*words, "test"], cwd=folder, env={**kept, **more}, capture_output=True, text=True
    )


@pytest.mark.parametrize("left", ["half made", "no pip"])
def test_an_environment_left_half_made_is_made_anew(tmp_path: Path, left: str) -> None:
    """By a python3 that is a script of sh, as site wrappers and version managers have it."""
    (tmp_path / "bin").mkdir()
    python, made = tmp_path / "bin" / "python3", tmp_path / ".venv"
    real = Path(sys.base_prefix) / "bin" / "python3"
    python.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    python.chmod(0o755)
    if left == "no pip":
        venv.create(made)
    else:
        (made / "bin").mkdir(parents=True)
        (made / "bin" / "python").symlink_to(real)
    call = set_up(tmp_path)
    assert "No module named pytest" in call.stderr, call.stderr
    assert (made / ".kitslib-stamp").is_file() and "installing" in call.stdout
    again = set_up(tmp_path, words="sh run_all.sh")
    assert again.stdout == "" and "No module named pytest" in again.stderr


def test_an_active_environment_without_pip_gets_it_and_one_that_is_gone_is_named(
    tmp_path: Path,
) -> None:
    venv.create(tmp_path / "theirs", symlinks=True)
    call = set_up(tmp_path, VIRTUAL_ENV=str(tmp_path / "theirs"))
    assert (tmp_path / "theirs" / ".kitslib-stamp").is_file(), call.stderr
    call = set_up(tmp_path, VIRTUAL_ENV=str(tmp_path / "gone"))
    assert call.returncode == 1 and call.stdout == "" and len(call.stderr.splitlines()) == 1
    assert f"{tmp_path / 'gone'} is gone" in call.stderr
    assert not (tmp_path / ".venv").exists() and not (tmp_path / "gone").exists()


def test_run_all_can_be_called_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "study").symlink_to("../run_all.sh")
    call = set_up(tmp_path, VIRTUAL_ENV="/no/such", words=f"bash {tmp_path / 'links' / 'study'}")
    assert "/no/such is gone" in call.stderr
    assert [path.name for path in (tmp_path / "links").iterdir()] == ["study"]
    assert (tmp_path / ".install.lock").exists()


# Dockerfile


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in their order, each with its words."""
    return [(word, rest) for word, _, rest in (x.partition(" ") for x in lines_of("Dockerfile"))]


def test_the_image_runs_the_command_as_another_user_than_root() -> None:
    last = dict(instructions())
    assert json.loads(last["ENTRYPOINT"]) == list(PROJECT["scripts"])
    assert last["USER"].partition(":")[0] not in ("0", "root")
    order = [word for word, _ in instructions()]
    assert order.index("USER") > len(order) - 1 - order[::-1].index("RUN")
    assert {word for word, _ in instructions()} <= {
        "FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT",
    }  # fmt: skip


@pytest.mark.skipif("CI" not in os.environ, reason="installs 1 GB anew; set CI=1 to try it")
@pytest.mark.skipif(
    "+cpu" not in metadata.version("torch") and "TORCH_INDEX" not in os.environ,
    reason="set TORCH_INDEX to PyTorch's index of CPU wheels",
)
def test_what_the_image_installs_segments_a_scan(tmp_path: Path) -> None:
    """Its steps, one after the other, in a folder and a virtual environment of their own."""
    venv.create(tmp_path / "venv", with_pip=True)
    kept = {word: os.environ[word] for word in os.environ if word.startswith("PIP_")}
    path = f"{tmp_path / 'venv' / 'bin'}:/usr/bin:/bin"
    environment = {**kept, "PATH": path, "LANG": "C.UTF-8", "PIP_NO_COMPILE": "1"}
    folder, sent = tmp_path, lines_of(".dockerignore")

    def call(*words: str) -> str:
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    for word, rest in instructions():
        if word == "FROM":
            here = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
            assert rest == here, f"this test needs the Python of {rest}"
        elif word == "ARG":
            name, _, default = rest.partition("=")
            environment[name] = os.environ.get(name, default.strip('"'))
        elif word == "ENV":
            name, _, value = rest.partition("=")
            environment[name] = value
        elif word == "WORKDIR":
            folder = tmp_path / rest.lstrip("/")
            folder.mkdir()
        elif word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                assert f"!{source}" in sent
                to = folder / target if len(sources) == 1 else folder / target / source
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, to)
        elif word == "RUN":
            call("sh", "-euc", rest)
        elif word == "ENTRYPOINT":
            call(*json.loads(rest), "phantom", "cohort", "--cases", "1", "--matrix", "64")
            call(*json.loads(rest), "predict", "cohort", "-o", "predictions")
            assert (folder / "predictions" / "prediction_00000.nii.gz").is_file()
            where = call("python", "-c", "import kitslib; print(kitslib.__file__)")
            assert Path(where).is_relative_to(tmp_path / "venv")
            call("pip", "check")
    shutil.rmtree(tmp_path / "venv")

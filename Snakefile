# The stages of the study and what each depends on. Called by run_all.sh with the study.json that
# `python -m kitslib study` writes; on a cluster by slurm/run.sh.
import functools
import json
import os
import sys
from math import ceil
from pathlib import Path
from shlex import join, quote

import yaml

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

from kitslib.config import RESULTS, arm, as_dict, code_key, configure, key, kidney_arm, notebook_key

ON_SLURM = config.pop("on", "") == "slurm"
study = configure(**config)
SETTINGS = {name: value for name, value in as_dict(study).items() if name not in ("out", "seed")}
# The engine works in the folder `work`: by relative names, no letter of the folder's own path matters to it.
PAGES, WORK = Path(".."), Path("")
TUMOR = [f"03_tumor-{arm}-s{seed}" for arm in study.arms for seed in study.seeds_of(arm)]
KIDNEY = [f"02_kidney-{arm}-s{seed}" for arm in study.kidney_arms for seed in study.seeds]
CASCADE = "full" if "full" in study.arms else study.arms[-1]  # the arm of the cascade
STAGES = ["01_data", "02_kidney", *KIDNEY, *TUMOR, "04_ablations", "05_evaluation"]
FIRST, *FURTHER = map(str, study.seeds)  # of an arm the first seed has a page, the others a record alone
PAGED = [name for name in STAGES if not name.endswith(tuple(f"-s{seed}" for seed in FURTHER))]


def braced(words):
    """Words of a shell command in which Snakemake is to fill nothing in."""
    return words.replace("{", "{{").replace("}", "}}")


def listing(folder):
    """Each case with its row of kits.json and its files' size and time: a mended case starts the study anew.

    Of the cases alone, since --out may lie in --data; linked folders and files are followed.
    """
    from kitslib.data import find_cases

    found = []
    for case in find_cases(folder) if folder else ():
        files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in case.paths if path]
        found.append((case.case_id, case.source, case.record, files))
    return found


DATA = key(listing(study.data))
PROCESSES = int(os.environ.get("KITS_PROCESSES", 1))  # that train the cascade's kidney network together
SHARES = PROCESSES * study.kidney.accumulate
if PROCESSES > 1 and study.kidney.batch % SHARES:
    words = f"kidney.batch: {study.kidney.batch} cannot be shared out equally to --processes {PROCESSES}"
    sys.exit(f"{words} with kidney.accumulate {study.kidney.accumulate}; use --set kidney.batch={SHARES}")
OWN_GPU = f". {braced(quote(str(ROOT / 'cards.sh')))} {{resources.gpu}}; "
CELL_SECONDS = {"smoke": 900, "demo": 3600, "study": 7200}.get(study.profile, 60 * 86400)  # a cell that takes longer hangs

FOR_A_CPU = study.profile in ("smoke", "demo", "study", "release")
# a GPU of this machine is one stage's at a time; a cluster is asked for one only where it is needed
GPU = int(not ON_SLURM or study.device == "cuda" or (study.device == "auto" and not FOR_A_CPU))
ESTIMATE = WORK / ("slurm.json" if ON_SLURM else "preflight.json")  # of a node, or of this machine


def needs(name):
    """What a stage asks a cluster for: as preflight found on one of its nodes, with room, more at each attempt."""
    file = study.work / ESTIMATE
    if not ON_SLURM or not file.is_file():
        return {}
    costs = dict(zip(STAGES, json.loads(file.read_text())["estimate"]["costs"]))

    def cost(wildcards):
        return costs[name.format(**dict(wildcards.items()))]

    return {
        "runtime": lambda wildcards, attempt: ceil(attempt * (10 + 2 * cost(wildcards)["seconds"] / 60)),
        "mem_mb": lambda wildcards, attempt: ceil(attempt * (1000 + 1.5 * cost(wildcards)["memory"] / 1e6)),
    }


@functools.cache
def identity(notebook):
    """Changes with the data, the settings, the notebook and the code it uses."""
    return key(DATA, SETTINGS, notebook_key(ROOT / "notebooks" / f"{notebook}.ipynb"))


# papermill without a grammar that it never uses and that takes more than a second to load
PAPERMILL = """python -c 'import sys; sys.modules["rfc3987_syntax"] = None; import papermill.cli; papermill.cli.papermill()'"""


def trained():
    """Before notebook 02: the cascade's kidney network by several processes, where they are asked for.

    The words do not change with their number: what was trained by one is not trained anew by two.
    """
    words = "[ ${KITS_PROCESSES:-1} = 1 ] || accelerate launch --multi_gpu --num_processes $KITS_PROCESSES"
    words += " --num_machines 1 --main_process_port 0 --mixed_precision no --dynamo_backend no"
    return f"{braced(words)} -m {train('kidney')} --seed {FIRST} &&"


def train(network):
    """The command that trains a network of this study; `network` may hold Snakemake's wildcards."""
    words = f"--profile {study.profile} --data {quote(study.data or '')} --out {quote(study.out)}"
    for name, value in config["options"].items():
        words += f" --set {quote(f'{name}={json.dumps(value)}')}"
    return f"kitslib train {network} {braced(words)}"


def execute(notebook, name, more="", before=""):
    """The command that executes a notebook; what it printed and the notebook itself are kept if it fails.

    `cat` ends with the last process that can write to it: a kernel that outlives its engine keeps its GPU.
    """
    options = yaml.safe_dump({"options": dict(config["options"])}, default_flow_style=True, width=10**6)
    options = quote(braced(options.strip()))
    folders = braced(f"-r data {quote(study.data or '')} -r out {quote(study.out)}")
    given = f"-r profile {study.profile} {folders} -y {options} {more}"
    source = braced(quote(str(ROOT / "notebooks" / f"{notebook}.ipynb")))
    return logged(
        f"{before} {PAPERMILL} {source} {{log.notebook:q}} -k python3 --no-progress-bar --log-output"
        f" --execution-timeout {CELL_SECONDS} {given}"
    )


def logged(words):
    """A command whose words, beginning and end go into its log, as kitslib/commands/watch.py reads them."""
    return (
        f"echo began $(date +%s) > {{log.text:q}}; SECONDS=0;"
        f" {{{{ {words}; }}}} 2>&1 | cat >> {{log.text:q}}"
        f" || {{{{ echo FAILED after $SECONDS s >> {{log.text:q}}; exit 1; }}}};"
        f" echo done in $SECONDS s >> {{log.text:q}}"
    )


INDEXED = "report.py", "followed.py", "cards.py", "claim.py", "claim.yaml", "crate.py"  # of kitslib/commands
TRAINED = code_key(*RESULTS)  # decides a record that is made without a notebook


def further(network):
    """The command that trains and scores an arm with a seed that has no page."""
    return logged(f"python -m {train(network)} --seed {{wildcards.seed}} --record")


def preflight():
    """The command that writes what every stage takes on the machine that it runs on."""
    words = ["python", "-m", "kitslib", "preflight", "--profile", study.profile, "--out", study.out]
    for name, value in config["options"].items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    words = braced(join([*words, *([study.data] if study.data else [])]))
    return f"{words} --jobs {{threads}} --json {{output:q}} > {{log:q}} 2>&1 || test -s {{output:q}}"


def logs(name):
    return {"notebook": str(WORK / "notebooks" / f"{name}.ipynb"), "text": str(WORK / "logs" / f"{name}.log")}


def stage(name):
    return str(WORK / "records" / f"{name}.json")


def data_record(wildcards):
    """The record of the data stage; what a stage read of it is in the stage's own identity."""
    return checkpoints.data.get().output[0]


wildcard_constraints:
    arm="|".join((*study.arms, *study.kidney_arms)),
    seed="|".join(FURTHER) or "none",
    page="|".join(PAGED),


rule all:
    input:
        PAGES / "index.html",
        expand(str(PAGES / "{page}.html"), page=PAGED),
        [stage(name) for name in STAGES],


localrules: page, index


rule preflight:  # on a cluster, on such a node as the stages get
    output: ESTIMATE
    log: WORK / "logs" / "preflight.log"
    params: identity=key(DATA, SETTINGS)
    threads: study.threads
    resources: gpu=GPU, runtime=lambda wildcards, attempt: 60 * attempt, mem_mb=lambda wildcards, attempt: 8000 * attempt
    shell: preflight()


# A checkpoint: once it has run, Snakemake asks which stages behind it are of older code; behind a rule
# that runs it does not (its issue 4166).
checkpoint data:
    output: stage("01_data")
    log: **logs("01_data")
    params: identity=identity("01_data")
    threads: study.threads if ON_SLURM else workflow.cores
    resources: **needs("01_data")
    shell: execute("01_data", "01_data", "-p jobs {threads}")


rule kidney:
    input: ancient(data_record)
    output: stage("02_kidney")
    log: **logs("02_kidney")
    params: identity=identity("02_kidney")
    threads: study.threads * PROCESSES
    resources: gpu=GPU * PROCESSES, **needs("02_kidney")
    priority: 10
    shell: OWN_GPU + execute("02_kidney", "02_kidney", f"-p seed {FIRST}", before=trained())


rule kidney_arm:
    input: ancient(data_record)
    output: stage(f"02_kidney-{{arm}}-s{FIRST}")
    log: **logs(f"02_kidney-{{arm}}-s{FIRST}")
    params: identity=lambda wildcards: key(identity("02_kidney"), kidney_arm(wildcards.arm).settings)
    threads: study.threads
    resources: gpu=GPU, **needs(f"02_kidney-{{arm}}-s{FIRST}")
    shell: OWN_GPU + execute("02_kidney", f"02_kidney-{{wildcards.arm}}-s{FIRST}", f"-r arm {{wildcards.arm}} -p seed {FIRST}")


rule kidney_arm_further:
    input: ancient(data_record)
    output: stage("02_kidney-{arm}-s{seed}")
    log: text=logs("02_kidney-{arm}-s{seed}")["text"]
    params: identity=lambda wildcards: key(DATA, SETTINGS, TRAINED, kidney_arm(wildcards.arm).settings)
    threads: study.threads
    resources: gpu=GPU, **needs("02_kidney-{arm}-s{seed}")
    shell: OWN_GPU + further("{wildcards.arm}")


rule tumor:
    input: ancient(data_record)
    output: stage(f"03_tumor-{{arm}}-s{FIRST}")
    log: **logs(f"03_tumor-{{arm}}-s{FIRST}")
    params: identity=lambda wildcards: key(identity("03_tumor"), as_dict(arm(wildcards.arm)))
    threads: study.threads
    resources: gpu=GPU, **needs(f"03_tumor-{{arm}}-s{FIRST}")
    priority: 5  # the kidney arms are the shortest: kept for last, so that all cores end at about the same time
    shell: OWN_GPU + execute("03_tumor", f"03_tumor-{{wildcards.arm}}-s{FIRST}", f"-r arm {{wildcards.arm}} -p seed {FIRST}")


rule tumor_further:
    input: ancient(data_record)
    output: stage("03_tumor-{arm}-s{seed}")
    log: text=logs("03_tumor-{arm}-s{seed}")["text"]
    params: identity=lambda wildcards: key(DATA, SETTINGS, TRAINED, as_dict(arm(wildcards.arm)))
    threads: study.threads
    resources: gpu=GPU, **needs("03_tumor-{arm}-s{seed}")
    priority: 5
    shell: OWN_GPU + further("{wildcards.arm}")


rule ablations:
    input: [stage(name) for name in (*KIDNEY, *TUMOR)]
    output: stage("04_ablations")
    log: **logs("04_ablations")
    params: identity=identity("04_ablations")
    resources: **needs("04_ablations")
    shell: execute("04_ablations", "04_ablations")


rule evaluation:
    input: stage("01_data"), stage("02_kidney"), [stage(name) for name in (*KIDNEY, *TUMOR)], stage("04_ablations")
    output: stage("05_evaluation")
    log: **logs("05_evaluation")
    params: identity=identity("05_evaluation")
    threads: study.threads
    resources: gpu=GPU, **needs("05_evaluation")
    shell: OWN_GPU + execute("05_evaluation", "05_evaluation", f"-r arm {CASCADE} -p seed {FIRST}")


rule page:
    input: stage("{page}")
    output: str(PAGES / "{page}.html")
    params:
        notebook=str(WORK / "notebooks" / "{page}.ipynb"),
        identity=code_key("reporting", "commands/report.py"),
    priority: 20  # a stage's page is there as soon as the stage has ended
    shell: "python -m kitslib report {params.notebook:q} {output:q} > /dev/null"


rule index:  # fills in the pages what each mechanism is worth
    input: [stage(name) for name in STAGES], expand(str(PAGES / "{page}.html"), page=PAGED)
    output: [PAGES / name for name in ("index.html", "summary.json", "rerun.html", "claim.html", "ro-crate.zip")]
    params: identity=code_key("reporting", *(f"commands/{name}" for name in INDEXED))
    shell: f"python -m kitslib report --index {braced(quote(str(study.reports)))} > /dev/null"


watching = []  # what shows how far the study is, where preflight has estimated it


onstart:
    from kitslib.commands.watch import Watch

    needed = {str(file) for job in workflow.dag.needrun_jobs() for file in job.output}
    todo = [name for name in STAGES if stage(name) in needed]
    if todo == STAGES[:1]:  # what else is of older code is found once it has run
        todo = STAGES
    estimate = study.work / ESTIMATE
    if todo and estimate.is_file():
        watching.append(Watch(study, STAGES, todo, estimate))
        watching[0].start()


onsuccess:
    [watch.stop() for watch in watching]


onerror:
    [watch.stop() for watch in watching]

"""`train`: one network of a study, by one process or several."""

from __future__ import annotations

import argparse
import ctypes
import signal
import sys
import warnings

from kitslib.commands import study
from kitslib.commands.line import study_config
from kitslib.commands.timing import require_batch
from kitslib.config import ARMS, KIDNEY_ARMS, ConfigError, launched
from kitslib.data import data_folder, require_study, study_files
from kitslib.phantom import write_cohort
from kitslib.recipes import KidneyRecipe, TumorRecipe, start_study
from kitslib.training import begin, record

PR_SET_PDEATHSIG = 1  # of Linux's prctl
NETWORKS = {"kidney": (KidneyRecipe, "")}
NETWORKS |= {name: (KidneyRecipe, name) for name in KIDNEY_ARMS}
NETWORKS |= {name: (TumorRecipe, name) for name in ARMS}


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """The notebooks find the network and load it. By two processes, on two GPUs or
    two cores: accelerate launch --multi_gpu --num_processes 2 -m kitslib train kidney"""
    words = "kidney, the cascade's first network; or an arm of either stage"
    parser.add_argument("network", choices=NETWORKS, metavar="NETWORK", help=words)
    words = "also score the held-out cases, and keep that as the notebook of the network does"
    parser.add_argument("--record", action="store_true", help=words)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    study.add(parser)


def run(args: argparse.Namespace) -> int:
    """Train a network, or go on where its training was; print the folder of the run."""
    warnings.filterwarnings("ignore", "Grad strides")  # DDP, of eight numbers
    if launched() and sys.platform == "linux":
        # else the processes of a launcher that was killed train on, beside those that resume
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    config = study_config(args, args.data, args.out)
    if args.record and args.network == "kidney":
        raise ConfigError("--record: the cascade's kidney network is notebook 02's; name an arm")
    accelerator = start_study(config)
    stage, arm = NETWORKS[args.network]
    with accelerator.main_process_first():  # it prepares the cases, the others find them
        files = study_files(config, data_folder(config, write_cohort))
        require_study(config, files)
        recipe = stage.of(config, files, accelerator, arm=arm, seed=args.seed)
    name = f"{'02_kidney' if stage is KidneyRecipe else '03_tumor'}-{arm}-s{args.seed}"
    began = begin(config, name) if args.record else 0.0
    require_batch(recipe)
    network = recipe.network()
    history = recipe.fit(network)
    if args.record and accelerator.is_main_process:
        held_out = [item for item in files if item.case_id in recipe.held_out.case_ids]
        rows = [row for _, _, row in recipe.scored(network, held_out)]
        found = recipe.results(network, history)
        record(config, name, began=began, arm=arm, rows=rows, **found)
    accelerator.print(recipe.run.folder)
    accelerator.end_training()
    return 0

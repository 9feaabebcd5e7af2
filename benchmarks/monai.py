"""MONAI's SegResNet on the study's cases, with the study's hours: what would it have scored?

As MONAI's tutorials have it: resampled to one spacing (that of our tumour network), windowed, crops
drawn around labels, flips, bfloat16, a sliding window with half overlap, probabilities resampled
back. Squared Dice and cross-entropy and AdamW's rate are Auto3DSeg's; the rate falls as a cosine
over the budget (from 1e-3, a hundred steps end in background alone). An interrupted call goes on.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _beside
from benchmarks._measure import INSTALL, Table, device, installed, parser

PATCH, BATCH, FILTERS = (48, 96, 96), 2, 16
RATE, KEEP_S = 2e-4, 120  # at the start; seconds between checkpoints
HU = (-160.0, 240.0)
QUESTION = "What would MONAI's SegResNet have scored on the same cases, in the same time?"


def transforms(spacing: Sequence[float], *, labels: bool) -> list[Any]:
    """Reading, resampling, windowing of a scan, and of its labels too."""
    from monai import transforms as mt

    keys, modes = ["image", "label"][: 1 + labels], ("bilinear", "nearest")[: 1 + labels]
    return [
        mt.LoadImaged(keys, ensure_channel_first=True),
        mt.Orientationd(keys, axcodes="IPL"),  # slices, rows, columns
        mt.Spacingd(keys, pixdim=spacing, mode=modes),
        mt.ScaleIntensityRanged(["image"], *HU, 0.0, 1.0, clip=True),
    ]


def network() -> Any:
    """SegResNet with one input and three outputs: background, kidney, tumour."""
    from monai.networks.nets import SegResNet

    return SegResNet(init_filters=FILTERS, in_channels=1, out_channels=3, dropout_prob=0.2)


def train(job: Mapping[str, Any]) -> None:
    """Train for `seconds` in all; the weights go to `to`."""
    import torch
    from monai import data, losses
    from monai import transforms as mt
    from monai.utils import set_determinism

    set_determinism(seed=0)
    torch.set_num_threads(job["threads"])
    both, where, part = ["image", "label"], device(), Path(job["to"] + ".part")
    steps = [*transforms(job["spacing"], labels=True), mt.SpatialPadd(both, PATCH)]
    steps.append(mt.RandCropByPosNegLabeld(both, "label", PATCH, pos=2, neg=1, num_samples=BATCH))
    steps.append(mt.RandFlipd(both, prob=0.5, spatial_axis=2))
    steps.append(mt.RandShiftIntensityd(["image"], 0.1, prob=0.5))
    kept = data.PersistentDataset(job["cases"], mt.Compose(steps), cache_dir=job["cache"])
    model = network().to(where)
    loss = losses.DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-5)
    done = count = 0
    if part.is_file():
        state = torch.load(part, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done, count = state["done"], state["count"]
    workers = {"num_workers": job["threads"] - 1, "persistent_workers": job["threads"] > 1}
    loader = data.DataLoader(kept, shuffle=True, collate_fn=data.list_data_collate, **workers)
    began, saved = time.perf_counter() - done, time.perf_counter()
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        share = min(done / job["seconds"], 1.0)
        optimizer.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * share)) / 2
        images, labels = (batch[name].as_tensor().to(where) for name in both)
        with torch.autocast(where, torch.bfloat16):
            value = loss(model(images).float(), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        now, count = time.perf_counter(), count + 1
        if (done := now - began) >= job["seconds"] or now - saved > KEEP_S:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state | {"done": done, "count": count}, part)
            saved = now
            print(f"{count} steps, {done:.0f} s, loss {value.item():.3f}", flush=True)
        if done >= job["seconds"]:
            break
    part.replace(job["to"])


def predict(job: Mapping[str, Any]) -> None:
    """Label maps of scans, in their own grids."""
    import nibabel as nib
    import numpy as np
    import torch
    from monai import transforms as mt
    from monai.inferers import sliding_window_inference as slide

    torch.set_num_threads(job["threads"])
    where, model = device(), network()
    model.load_state_dict(torch.load(job["model"], weights_only=True, map_location="cpu")["model"])
    model.to(where).eval()
    prepare = mt.Compose(transforms(job["spacing"], labels=False))
    back = mt.Invertd("pred", prepare, orig_keys="image", nearest_interp=False)
    for source, target in job["scans"]:
        scan = prepare({"image": source})
        with torch.inference_mode(), torch.autocast(where, torch.bfloat16):
            found = slide(scan["image"][None].to(where), PATCH, 2, model, overlap=0.5)
        scan["pred"] = found[0].float().cpu().softmax(0)
        labels = back(scan)["pred"].argmax(0).numpy().astype(np.uint8)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(labels, nib.load(source).affine), target)


def main(arguments: Sequence[str]) -> int:
    """Train, predict and score for each budget; print the tables."""
    reader = parser("monai", __doc__, threads=2, repeats=1)
    _beside.options(reader)
    args = reader.parse_args(arguments)
    if not installed("monai"):
        print(f"python -m benchmarks monai: MONAI is not installed: {INSTALL}", file=sys.stderr)
        return 1
    task, costs, peers = _beside.task(reader, args), [], {}
    grid, work = task.config.tumor_grid, task.work / "monai"
    job = {"threads": task.threads, "cache": str(work / "cache"), "cases": task.labelled()}
    job["spacing"] = [grid.spacing_z] + [grid.spacing_xy or -1] * 2  # -1: as it is
    for hours in task.hours:
        name, system = f"monai-{hours:g}h", f"MONAI SegResNet, {hours:g} h"
        folder, weights = work / f"{hours:g}h", work / f"{hours:g}h.pt"
        scans = [(str(f.imaging), str(folder / f"{f.case_id}.nii.gz")) for f in task.test]
        stages = {"train": {"to": str(weights), "seconds": hours * 3600}}
        stages["predict"] = {"model": str(weights), "scans": scans}
        for stage, more in stages.items():
            words = _beside.child("benchmarks.monai", stage, job | more)
            costs.append(_beside.cost(system, stage, task.measured(f"{name}-{stage}", words)))
        peers[system] = (hours, task.scored(f"{name}-scores", folder))
    took = Table(title="What it took", note="", rows=[*costs, *task.own_cost()])
    tables = [*_beside.score_tables(task.ours, peers), took]
    bounds = [_beside.ahead(task.ours, name, rows) for name, (_, rows) in peers.items()]
    _beside.publish("monai", QUESTION, task, arguments, args.out, tables, bounds, "monai")
    return 0


if __name__ == "__main__":
    {"train": train, "predict": predict}[sys.argv[1]](json.loads(sys.argv[2]))

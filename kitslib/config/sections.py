"""What can be set: one typed section per stage, and the configuration of a run that holds them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kitslib.config.arms import KIDNEY_ARMS, arm, kidney_arm
from kitslib.config.checked import Checked, ConfigError, number
from kitslib.config.code import HERE, key

SYNTHETIC_MARKER = "synthetic.json"  # in a folder of rendered cases
NAME_LENGTH = 100  # of a study's folder
FEW_STEPS = 50  # fewer leave a tumour network untrained
KidneyHu = Literal["soft_tissue", "ancestor"]
TumorHu = Literal["foreground", "literal", "centre45_width350", "per_slice"]
Schedule = Literal["constant", "late_drop", "one_cycle"]


@dataclass(frozen=True, kw_only=True)
class CohortConfig(Checked):
    """Which cases are used, and the synthetic ones where no data folder is given."""

    cases: int = number(210, 4)
    seed: int = number(19, 0)  # of the synthetic cases; settings were chosen on those of 2019
    matrix: int = number(512, 32)  # pixels in plane of a synthetic slice
    spacing_z: tuple[float, ...] | None = None  # mm; None: drawn as in KiTS19
    cysts: Literal["typical", "hard"] = "typical"
    labels: Literal["kits19", "kits23", "kits23_folded"] = "kits19"
    defects: Literal["keep", "exclude"] = "keep"
    # fold0 to fold4: a fifth of the cases, the same for both stages; each case is in one of them
    split: Literal["nested", "paper", "fold0", "fold1", "fold2", "fold3", "fold4"] = "nested"
    held_out: int | None = number(None, 1)  # tumour cases held out, but by fold; None: 15 of 210
    draw: float = number(1.0, 0.1, 1)  # share of the training cases that each seed draws for itself
    # of synthetic cases: as in KiTS19; any field of view, phase and body that a clinic sees; or
    # with tissues of any HU besides
    variety: Literal["kits", "clinic", "wild"] = "kits"
    tumor_free: float = number(0.0, 0, 1)  # share of the patients of "clinic" and "wild"
    fresh: bool = False  # `cases` new ones in every epoch, made while it runs: `kitslib release`


@dataclass(frozen=True, kw_only=True)
class KidneyGrid(Checked):
    """The voxel grid of stage 1."""

    spacing_z: float = number(2.0, 0.3, 10)  # mm
    matrix: int = number(256, 16, 1024)  # pixels on the shorter in-plane side
    # mm, and the scan is cut to the body first; None: `matrix` over the whole field of view
    spacing_xy: float | None = number(None, 0.3, 10)
    average: bool = False  # voxels are averaged before a coarser grid is read from them
    margin_mm: float = number(100.0, 0, 2000)  # kept above and below the kidneys: 50 slices of 2 mm


@dataclass(frozen=True, kw_only=True)
class TumorGrid(Checked):
    """The voxel grid of stage 2 and the kidney mask on it."""

    spacing_z: float = number(1.0, 0.3, 10)  # mm
    spacing_xy: float | None = number(None, 0.3, 10)  # mm; None: the native pixel
    region: Literal["box", "slice"] = "slice"
    margin_mm: float = number(15.0, 0, 2000)  # of the box around the kidneys
    mask_dilation_mm: float = number(5.0, 0, 100)  # by how much the kidney mask is grown
    # outside the mask: the lower HU once resampled, or multiplied by 0 before, as may be meant
    masking: Literal["after", "before"] = "after"
    # voxels are averaged before a coarser grid is read, which begins at the kidneys' box
    average: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask_dilation_mm > self.margin_mm:
            raise ConfigError(
                "TumorGrid.margin_mm must be at least mask_dilation_mm, or the box would cut the"
                f" mask; got {self.margin_mm} < {self.mask_dilation_mm}"
            )


@dataclass(frozen=True, kw_only=True)
class KidneyConfig(Checked):
    """Stage 1: network, loss, sampling and schedule of the 3D ResUNet."""

    hu: KidneyHu = "soft_tissue"
    widths: tuple[int, ...] = number((16, 32, 64, 128, 256), 2)
    norm: bool = False
    dropout: float = number(0.3, 0, 0.9)
    residual: bool = True
    deep_supervision: bool = True
    supervision: float = number(0.33, 0, 1)  # p, the weight of the three coarser maps
    supervision_factor: float = number(0.8, 0, 1)
    supervision_every: int = number(15, 1)  # epochs
    loss: Literal["dice", "dice_cross_entropy"] = "dice"
    dice_squared: bool = True  # squares in the denominator
    foreground_weight: float = number(4.0, 0)  # of kidney voxels in the cross-entropy
    tumor_weight: float = number(1.0, 0)  # of tumour voxels there, times the weight of the kidney
    slab: int = number(64, 8)  # consecutive slices in a sample
    patch: int | None = number(None, 16)  # rows and columns of a sample; None: the whole matrix
    batch: int = number(2, 1)
    mirror: Literal["none", "sagittal", "central"] = "sagittal"
    move: bool = False  # random rotation, shift and zoom of a batch
    jitter: bool = False  # those, and random gain, offset, blur and noise
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    schedule: Schedule = "constant"
    lr: float = number(1e-4, 0, 1)
    clip: float = number(1.0, 0)  # largest gradient norm; 0: not clipped
    epochs: int = number(500, 1)
    samples_per_case: int = number(1, 1)  # slabs drawn from each case in an epoch, on average
    volume_power: float = number(0.0, 0, 2)  # cases are drawn as their kidney volume to this power
    foreground_oversampling: float = number(0.0, 0, 1)  # share of slabs centred on a kidney
    arm_epochs: int = number(500, 1)  # of each arm that is compared with the others
    accumulate: int = number(1, 1)  # parts that a batch is taken in, one after the other
    compile: bool = False  # through torch.compile
    validate_every: int = number(10, 1)  # epochs
    window: Literal["padded", "literal", "overlap_average"] = "padded"
    window_slices: int = number(64, 4)
    test_time_mirroring: bool = False  # mean probability of the scan and its mirror image
    components: int = number(2, 1)  # largest connected components kept
    components_by: Literal["volume", "certainty"] = "volume"  # certainty: sum of 2 p - 1
    least_ml: float = number(0.0, 0)  # smaller components are no kidneys


@dataclass(frozen=True, kw_only=True)
class TumorConfig(Checked):
    """Stage 2: network widths, losses, sampling and schedule shared by all arms."""

    hu: TumorHu = "foreground"
    patch: tuple[int, int] = number((512, 512), 16)  # rows, columns of a training sample
    slab: int = number(16, 4)  # slices of a training sample of the 3D arm
    slab_batch: int = number(1, 1)  # samples in a step of the 3D arm
    window_slices: int | None = number(None, 4)  # of the 3D arm's windows on a scan; None: 2 slabs
    slices: int = number(5, 1, 15)  # k: channels of a 2.5D sample
    widths: tuple[int, ...] = number((16, 32, 64, 128, 256), 2)
    norm: bool = True
    gamma: float = number(2.0, 0)
    alpha: float = number(0.75, 0, 1)
    lam: float = number(1.0, 0)  # weight of the Dice term beside the focal term
    dice_weights: tuple[float, float] = number((0.1, 0.9), 0, 1)  # background, tumour
    dice_over: Literal["sample", "batch"] = "batch"  # an arm may have its own
    dice_squared: bool = True
    mirror: Literal["none", "sagittal"] = "sagittal"  # beside the paper's five augmentations
    jitter: bool = False  # random gain, offset and noise beside the augmentations
    batch: int = number(8, 1)
    accumulate: int = number(1, 1)
    compile: bool = False
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    schedule: Schedule = "constant"
    lr: float = number(1e-4, 0, 1)
    clip: float = number(1.0, 0)
    epochs: int = number(200, 1)
    steps: int = number(500, 1)  # optimiser steps in an epoch
    foreground_oversampling: float = number(0.5, 0, 1)  # share of samples centred on a tumour
    oversample_every: int = number(10, 1)  # epochs between measurements of the difficulty
    oversample_stride: int = number(1, 1)  # difficulty is measured on each n-th slice
    oversample_gain: float = number(3.0, 0)
    oversample_cap: float = number(4.0, 1)  # largest weight of a slice against the smallest
    validate_every: int = number(10, 1)
    scored_every: int = number(1, 1)  # of a scan each n-th slice is predicted, others interpolated
    test_time_mirroring: bool = False  # mean probability of the kidneys and their mirror image


@dataclass(frozen=True, kw_only=True)
class RunConfig(Checked):
    """All that a notebook needs to know: the profile's numbers, the data, where results go."""

    profile: str
    changes: tuple[str, ...] = ()  # what differs from the profile: "kidney.epochs=3"
    data: str | None = None  # folder of a KiTS cohort; None: the synthetic one
    out: str = str(HERE / "reports")
    seed: int = number(0, 0)
    threads: int = number(1, 1, 1024)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    seeds: tuple[int, ...] = (0,)
    arms: tuple[str, ...] = ("baseline", "full")
    single_seed_arms: tuple[str, ...] = ()  # arms that are trained with the first seed alone
    kidney_arms: tuple[str, ...] = tuple(KIDNEY_ARMS)
    cohort: CohortConfig = field(default_factory=CohortConfig)
    kidney_grid: KidneyGrid = field(default_factory=KidneyGrid)
    tumor_grid: TumorGrid = field(default_factory=TumorGrid)
    kidney: KidneyConfig = field(default_factory=KidneyConfig)
    tumor: TumorConfig = field(default_factory=TumorConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.arms + self.single_seed_arms:
            arm(name)
        for name in self.kidney_arms:
            kidney_arm(name)

    def seeds_of(self, name: str) -> tuple[int, ...]:
        """The seeds that an arm is trained with."""
        return self.seeds[:1] if name in self.single_seed_arms else self.seeds

    @property
    def drawn(self) -> bool:
        """Whether the study draws its own phantoms."""
        return self.data is None

    @property
    def synthetic(self) -> bool:
        """Whether the CT is synthetic: drawn, or a folder of cases that were rendered."""
        return self.drawn or (Path(self.data) / SYNTHETIC_MARKER).is_file()

    @property
    def untrained(self) -> str:
        """What every page says where the networks cannot have learned anything, else empty."""
        steps = self.tumor.epochs * self.tumor.steps
        words = f"The kidney network is trained for {self.kidney.epochs} epochs, a tumour network "
        words += f"for {steps} steps: too few to learn, on purpose. It shows that everything runs."
        return words if steps < FEW_STEPS else ""

    @property
    def study(self) -> str:
        """The study's name: its profile and what differs from it, as in `demo+kidney.epochs=3`."""
        name = re.sub(r"[^\w.,=+-]", "", "+".join((self.profile, *self.changes)))
        if len(name) > NAME_LENGTH:
            name = f"{name[:NAME_LENGTH]}-{key(self.changes)[:8]}"
        return name

    @property
    def command(self) -> str:
        """The command that makes this study."""
        words = ["./run_all.sh", "--profile", self.profile]
        for change in self.changes:
            words += ["--set", change]
        if self.data:
            words += ["--data", self.data]
        if self.out != str(HERE / "reports"):
            words += ["--out", self.out]
        return shlex.join(words)

    @property
    def reports(self) -> Path:
        """Folder of the study's pages."""
        return Path(self.out) / self.study

    @property
    def work(self) -> Path:
        """Folder of the study's records, executed notebooks and logs."""
        return self.reports / "work"

    @property
    def store(self) -> Path:
        """Folder of what studies share, named by keys: synthetic cohorts, cache, runs."""
        return Path(self.out) / "work"

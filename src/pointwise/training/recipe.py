"""How a scan becomes what a network reads: the same steps in training and in labelling."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from pointwise.cloud.extent import find_extent
from pointwise.cloud.frame import Frame
from pointwise.cloud.scan import Scan
from pointwise.cloud.units import in_unit
from pointwise.training.augment import Augmentation, about_z
from pointwise.training.classes import IGNORED, Classes
from pointwise.training.columns import Columns
from pointwise.training.features import Features
from pointwise.training.ground import Ground
from pointwise.training.relabel import AS_IS, Relabelling
from pointwise.training.thin import far_sparser, thin

Task = Literal["segmentation", "classification"]
TASKS = get_args(Task)
FAR = 1000  # blocks from its centre that a stray is taken to be at most


class Prepared:
    """A scan with what its blocks need, each made when it is first asked for.

    ``cube [N]`` says which of the points here stands for each of the original ones, where the scan
    was thinned. ``ground`` is the side of a column that the ground is looked for in, ``frame`` that
    of the survey which the scan is a part of.
    """

    def __init__(
        self,
        scan: Scan,
        side: float,
        cube: np.ndarray | None = None,
        ground: float = 0.0,
        frame: Frame | None = None,
    ) -> None:
        self.scan = scan
        self.side = side
        self.cube = cube
        self.ground_side = ground
        self.frame = frame

    @cached_property
    def ground(self) -> Ground:
        return Ground(self.scan.points, side=self.ground_side, frame=self.frame)

    @cached_property
    def columns(self) -> Columns:
        return Columns(self.scan.points, self.side, self.stray, self.frame)

    @cached_property
    def stray(self) -> np.ndarray:
        """The points far away from all others: bool ``[N]``."""
        return find_extent(self.scan.points).stray


@dataclass(frozen=True)
class Recipe:
    """The task, the classes, the features, and how scans are cut.

    Segmentation reads square columns ``block`` wide (in the scans' unit), of which the outer
    ``margin`` is only seen, not labelled, and which hold at most ``most`` points. Classification
    reads whole clouds, thinned at random to ``most`` points; ``unit_sphere`` says that each cloud
    is brought to the same size first. With a ``spacing``, all points in a cube of that edge are
    one. The ground is looked for in columns ``ground`` wide; 0 means by each scan's density.
    ``relabelling`` is what training made of the codes in files. All lengths are in ``unit``, None
    where the data did not state it.
    """

    task: Task
    classes: Classes
    features: Features
    block: float
    margin: float
    most: int
    unit_sphere: bool = False
    spacing: float = 0.0
    rotate: float = 180.0  # the largest turn in training, degrees
    ground: float = 0.0
    relabelling: Relabelling = AS_IS
    unit: str | None = None

    @property
    def reach(self) -> float:
        """How far from a point lies what its label can depend on, seen from above.

        A block that holds the point, with its margins, and the ground about what lies in it.
        """
        return self.block + 2 * self.spacing + 4 * self.ground

    @property
    def reads_height(self) -> bool:
        return "height" in self.features.names

    def targets(self, scan: Scan) -> np.ndarray:
        """The class indices to be found: int64 ``[N]`` of points, or ``[1]`` of a cloud."""
        scan = self.relabelling.applied(scan)
        if self.task == "segmentation":
            labels = scan.labels
        else:
            labels = None if scan.label is None else np.array([scan.label])
        if labels is None:
            return np.full(len(scan) if self.task == "segmentation" else 1, IGNORED)
        return self.classes.index(self.classes.by_name(labels, scan.classes))

    def prepare(self, scan: Scan, command: str = "label", frame: Frame | None = None) -> Prepared:
        """Checks that the scan has the features; brings it to the size and the spacing learned.

        ``frame`` is that of the survey, where the scan is a part of one.
        """
        self.features.check(scan, command)
        scan = self.features.without_constants(self.in_unit(scan))
        if self.task == "classification":  # a stray has no class to be found
            scan = without_strays(scan)
        scan = to_unit_sphere(scan) if self.unit_sphere else scan
        if frame is None and len(scan) and len(find_extent(scan.points).parts) == 1:
            # As the points are before any of them become one: so it is in the frame of a survey.
            frame = Frame.of(scan.points)
        if self.spacing > 0 and len(scan):
            thinned, cube = thin(scan, self.spacing, self.features.names, frame)
            if len(thinned) > 0.99 * len(scan) and far_sparser(scan, self.spacing):
                unit = self.unit or "the unit of what was learned from"
                warnings.warn(
                    f"{scan.source or scan.name or 'a scan'}: its points lie much further apart"
                    f" than the cells learned with, which are {2 * self.spacing:g} wide; are its"
                    f" coordinates in {unit}?",
                    stacklevel=3,
                )
            return Prepared(thinned, self.block / 8, cube, self.ground, frame)
        return Prepared(scan, self.block / 8, None, self.ground, frame)

    def in_unit(self, scan: Scan) -> Scan:
        """The scan in the unit learned; says what is converted, and what is assumed."""
        if scan.unit == self.unit or self.unit_sphere:  # where any unit is the same
            return scan
        if scan.unit is None:  # without a name, so that it is said once of a thousand files
            said = f"scans that do not state their unit are taken to be in {self.unit}"
        elif self.unit is None:
            said = (
                f"scans in {scan.unit} are read as what was learned from, which did not state its"
                " unit"
            )
        else:
            name = scan.source or scan.name or "a scan"
            said = f"{name}: is in {scan.unit}, and read in {self.unit}, as was learned"
        warnings.warn(said, stacklevel=3)
        return replace(in_unit(scan, self.unit), unit=self.unit)

    def sample(
        self,
        prepared: Prepared,
        index: np.ndarray,
        augmentation: Augmentation | None = None,
        rng: np.random.Generator | None = None,
        angle: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The points, turned by ``angle`` degrees or augmented at random: float32 ``[n, 3]``
        about their centre, and the features float32 ``[n, C]``."""
        absolute = prepared.scan.points[index]
        local = self._local(absolute, prepared.stray[index])
        turn, scale = None, 1.0
        if angle:
            turn = about_z(angle)
            local = local @ turn
        if augmentation is not None and rng is not None:
            local, turn, scale = augmentation.move(local, rng)
        ground = prepared.ground if self.reads_height else None
        features = self.features.values(
            prepared.scan, index, local, ground, augmentation, turn, scale, rng
        )
        return local, features

    def _local(self, points: np.ndarray, stray: np.ndarray) -> np.ndarray:
        """Points about their centre, float32 ``[n, 3]``; strays no further than it can tell."""
        # Centred in float64: a metre in UTM coordinates leaves float32 with centimetres only.
        if not stray.any():
            return (points - points.mean(axis=0)).astype(np.float32)
        centre = np.median(points, axis=0) if stray.all() else points[~stray].mean(axis=0)
        far = FAR * self.block
        return (points - centre).clip(-far, far).astype(np.float32)

    def thin(self, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """At most ``most`` of the points ``index``, in their order."""
        if len(index) <= self.most:
            return index
        return index[np.sort(rng.permutation(len(index))[: self.most])]


def without_strays(scan: Scan) -> Scan:
    """The scan's points that do not lie far away from all others; itself where all do not."""
    stray = find_extent(scan.points).stray
    return scan.select(~stray) if stray.any() else scan


def to_unit_sphere(scan: Scan) -> Scan:
    """The scan moved and scaled so that it just fits into a sphere of radius 1 about the origin;
    without its strays."""
    scan = without_strays(scan)
    centred = scan.points - scan.points.mean(axis=0)
    radius = np.sqrt((centred**2).sum(axis=1).max())
    return replace(scan, points=centred / (radius or 1.0))


def sizes_differ(scans: list[Scan]) -> bool:
    """Whether the clouds are of such different sizes that no one cell size can serve them.

    So it is with models in whatever unit their author drew them in, and never with scans.
    """
    extents = [np.linalg.norm(np.ptp(find_extent(s.points).kept, axis=0)) for s in scans]
    small, large = np.quantile(extents, [0.05, 0.95])
    return bool(large > 5 * small)

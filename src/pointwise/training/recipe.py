"""How a scan becomes what a network reads: the same steps in training and in labelling."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import Scan
from pointwise.cloud.units import in_unit
from pointwise.training.augment import Augmentation, about_z
from pointwise.training.classes import IGNORED, Classes
from pointwise.training.columns import Columns
from pointwise.training.features import Features
from pointwise.training.ground import Ground
from pointwise.training.thin import thin

Task = Literal["segmentation", "classification"]
TASKS = get_args(Task)
FAR = 1000  # blocks from its centre that a stray is taken to be at most


class Prepared:
    """A scan with what its blocks need, each made when it is first asked for.

    ``cube [N]`` says which of the points here stands for each of the original ones, where the scan
    was thinned.
    """

    def __init__(self, scan: Scan, side: float, cube: np.ndarray | None = None) -> None:
        self.scan = scan
        self.side = side
        self.cube = cube

    @cached_property
    def ground(self) -> Ground:
        return Ground(self.scan.points)

    @cached_property
    def columns(self) -> Columns:
        return Columns(self.scan.points, self.side, self.stray)

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
    one. All lengths are in ``unit``, None where the data did not state it.
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
    unit: str | None = None

    def targets(self, scan: Scan) -> np.ndarray:
        """The class indices to be found: int64 ``[N]`` of points, or ``[1]`` of a cloud."""
        if self.task == "segmentation":
            labels = scan.labels
        else:
            labels = None if scan.label is None else np.array([scan.label])
        if labels is None:
            return np.full(len(scan) if self.task == "segmentation" else 1, IGNORED)
        return self.classes.index(self.classes.by_name(labels, scan.classes))

    def prepare(self, scan: Scan, command: str = "label") -> Prepared:
        """Checks that the scan has the features; brings it to the size and the spacing learned."""
        self.features.check(scan, command)
        if not self.unit_sphere:  # else any unit is the same
            scan = self._in_unit(scan)
        if self.task == "classification":  # a stray has no class to be found
            scan = without_strays(scan)
        scan = to_unit_sphere(scan) if self.unit_sphere else scan
        if self.spacing > 0 and len(scan):
            thinned, cube = thin(scan, self.spacing, self.features.names)
            return Prepared(thinned, self.block / 8, cube)
        return Prepared(scan, self.block / 8)

    def _in_unit(self, scan: Scan) -> Scan:
        """The scan in the unit learned; says what is converted, and what is assumed."""
        if scan.unit == self.unit:
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
        return in_unit(scan, self.unit)

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
        ground = prepared.ground if "height" in self.features.names else None
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

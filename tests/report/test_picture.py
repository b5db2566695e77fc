from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from pointwise.cloud.scan import Scan
from pointwise.report import picture
from pointwise.report.palette import class_colors, rgb
from pointwise.report.picture import write_picture

VIEWS = np.s_[70:780, :]  # the rows above the legend


def pixels(path) -> np.ndarray:
    return np.round(imread(path)[..., :3] * 255).astype(int)


def count(image: np.ndarray, color: str) -> int:
    """The pixels within a hair of a colour, in any brightness that the shading gives."""
    wanted = np.array(rgb(color))
    light = (image @ wanted / (wanted @ wanted))[..., None]
    return int(((np.abs(image - light * wanted).max(-1) < 8) & (light[..., 0] > 0.25)).sum())


def texts_written_by(module, monkeypatch) -> list[str]:
    """The texts that the figures which a module writes during a test carry."""
    texts: list[str] = []
    save = module.save

    def spy(figure, path):
        texts.extend(text.get_text() for text in figure.texts)
        texts.extend(t.get_text() for legend in figure.legends for t in legend.get_texts())
        save(figure, path)

    monkeypatch.setattr(module, "save", spy)
    return texts


@pytest.fixture
def written(monkeypatch) -> list[str]:
    return texts_written_by(picture, monkeypatch)


def test_classes_appear_in_their_colours_and_the_ceiling_does_not(room, tmp_path, written):
    write_picture(room, tmp_path / "room.png")
    image = pixels(tmp_path / "room.png")
    assert image.shape == (900, 1600, 3)
    for name, least in (("floor", 20_000), ("wall", 5_000), ("chair", 1_000)):
        assert count(image[VIEWS], class_colors([name])[0]) > least, name
    assert count(image[VIEWS], class_colors(["ceiling"])[0]) < 50
    assert "ceiling left out (600 points)" in " ".join(written)
    assert {"floor 60.0 %", "wall 33.3 %", "chair 6.0 %", "unlabelled 0.7 %"} <= set(written)


def test_a_cloud_of_ceiling_alone_is_shown(room, tmp_path, written):
    write_picture(room.select(room.labels == 0), tmp_path / "room.png")
    assert count(pixels(tmp_path / "room.png")[VIEWS], class_colors(["ceiling"])[0]) > 20_000
    assert "left out" not in " ".join(written)


def test_true_colours(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.random((4000, 3)) * (10, 10, 0)
    color = np.where(points[:, :1] < 5, (200, 30, 30), (20, 60, 210)).astype(np.uint8)
    write_picture(Scan(points=points, fields={"color": color}), tmp_path / "c.png")
    above = pixels(tmp_path / "c.png")[VIEWS][:, 1060:1560]  # the view from above is a map
    red, blue = (np.nonzero((above == c).all(-1)) for c in ((200, 30, 30), (20, 60, 210)))
    assert len(red[0]) > 20_000
    assert len(blue[0]) > 20_000
    assert red[1].mean() < 200 < 300 < blue[1].mean()


def test_height_runs_from_dark_to_bright(tmp_path, written):
    points = np.random.default_rng(0).random((4000, 3)) * (1, 1, 8)
    write_picture(Scan(points=points), tmp_path / "h.png")
    image = pixels(tmp_path / "h.png")[VIEWS]  # tall: one view, with the top at the top
    drawn = image.min(-1) < 250
    rows = np.nonzero(drawn.any(1))[0]
    top, bottom = rows.min(), rows.max()
    fifth = (bottom - top) // 5
    upper = image[top : top + fifth][drawn[top : top + fifth]]
    lower = image[bottom - fifth : bottom][drawn[bottom - fifth : bottom]]
    assert upper[:, 1].mean() > 1.5 * lower[:, 1].mean()
    assert "coloured by height" in " ".join(written)


def test_the_town_looks_like_its_classes(town, tmp_path):
    write_picture(town, tmp_path / "town.png")
    image = pixels(tmp_path / "town.png")[VIEWS]
    for name in ("ground", "high vegetation", "building"):
        assert count(image, class_colors([name])[0]) > 20_000, name
    assert (image == 255).all(-1).mean() > 0.2


def test_many_classes_keep_the_largest_in_the_legend(tmp_path, written):
    labels = np.repeat(np.arange(40), np.arange(40) + 1)
    points = np.random.default_rng(0).random((len(labels), 3))
    write_picture(Scan(points=points, labels=labels), tmp_path / "m.png")
    assert any(text.startswith("class 39 ") for text in written)
    assert not any(text.startswith("class 3 ") for text in written)
    assert "and 16 more" in written


@pytest.mark.parametrize(
    "points",
    [[[1.0, 2, 3]], [[1e6, 5e6, 10]] * 40, [[0, 0, 0], [0, 0, 9]]],
    ids=["one point", "all the same", "a line"],
)
def test_clouds_without_extent_are_drawn(points, tmp_path):
    write_picture(Scan(points=np.array(points, float)), tmp_path / "p.png")
    drawn = pixels(tmp_path / "p.png")[VIEWS].min(-1) < 200
    assert 5 < drawn.sum() < 6000  # of a million pixels: points, the scale, the ticks


def test_missing_coordinates_and_intensities(room, tmp_path, written):
    room.points[:5] = np.nan
    room.fields["intensity"][5:900] = np.nan
    write_picture(room, tmp_path / "n.png", by="intensity")
    assert "1,495 points" in " ".join(written)
    assert (pixels(tmp_path / "n.png")[VIEWS].min(-1) < 250).sum() > 20_000


def test_what_cannot_be_shown(room, tmp_path):
    with pytest.raises(ValueError, match="holds no points"):
        write_picture(room.select(np.arange(0)), tmp_path / "p.png")
    with pytest.raises(ValueError, match="this scan has no intensity"):
        write_picture(Scan(points=np.eye(3)), tmp_path / "p.png", by="intensity")
    with pytest.raises(ValueError, match="not supported"):
        write_picture(room, tmp_path / "p.las")
    assert list(tmp_path.iterdir()) == []

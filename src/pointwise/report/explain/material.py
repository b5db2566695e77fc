"""What the page's convolutions work on: a picture, a cloud, and weights for every setting.

The page cuts what it needs out of these, from the front: the first rows, columns, channels and
outputs. All values are small and short, so that a reader can follow the arithmetic in the head.
"""

from __future__ import annotations

import numpy as np

# The most that a reader can set; page.html has the same limits in its fields.
SIZE, CHANNELS, KERNEL, MULTIPLIER = 16, 8, 7, 4
POINTS, CLOUD_CHANNELS, CLOUD_KERNELS = 96, 4, (1, 3, 5)

CHANNEL_NAMES = ("red", "green", "blue", "brightness", "height", "outline", "left", "grain")

_SPRITES = (
    """
    bbbbbbyy
    bbbrrbyy
    bbrrrrbb
    brrrrrrb
    bwwwwwwb
    bwdwwkwb
    bwdwwwwb
    gggggggg
    """,
    """
    bbbbbbbb
    bbgggbbb
    bgggggbb
    bggrggbb
    bbgggbbb
    bbbdbbbb
    bbbdbbbb
    gggggggg
    """,
    """
    bbbbwbbb
    bbbbwwbb
    bbbbwwwb
    bbbbwwww
    bbbbdbbb
    rrrrrrrr
    krrrrrrk
    kkkkkkkk
    """,
    """
    kkkkkkkk
    kkyyykyk
    kyyykkkk
    kyykkkkk
    kyykkkwk
    kyyykkkk
    kkyyykkk
    kkkkkkkk
    """,
)

_COLORS = {  # red, green, blue, each 0 to 9
    "b": (2, 5, 8),  # sky
    "y": (9, 8, 1),  # sun
    "r": (8, 2, 1),  # roof
    "w": (9, 9, 8),  # wall
    "d": (4, 2, 1),  # door
    "k": (1, 1, 2),  # night
    "g": (2, 6, 1),  # grass
}

# Factors between channels; each row and column of a weight takes them in another order.
_FACTORS = (1.0, 2.0, -1.0, 1.0, -2.0, 1.0, -1.0, 2.0)


def picture() -> np.ndarray:
    """``[CHANNELS, SIZE, SIZE]``, whole numbers 0 to 9: a house, a tree, a boat and the moon."""
    house, tree, boat, moon = ([list(row) for row in s.split()] for s in _SPRITES)
    drawn = np.block([[np.array(house), np.array(tree)], [np.array(boat), np.array(moon)]])
    rgb = np.array([[_COLORS[letter] for letter in row] for row in drawn])
    rgb = rgb.transpose(2, 0, 1)  # [3, SIZE, SIZE]
    brightness = rgb.sum(axis=0) // 3
    rows, columns = np.indices(brightness.shape)
    upper = np.roll(brightness, 1, axis=0)
    rest = [
        brightness,
        9 - rows % 8,
        np.minimum(9, np.abs(brightness - upper)),
        9 - columns % 8,
        np.random.default_rng(3).integers(0, 10, brightness.shape),
    ]
    return np.stack([*rgb, *rest]).astype(np.float64)


def kernels(size: int) -> list[np.ndarray]:
    """Eight kernels ``[size, size]``: blur, upright and level edges, middle, diagonals, cross, rim.

    A kernel of one weight is a 1: there is no pattern in it.
    """
    if size == 1:
        return [np.ones((1, 1))] * 8
    steps = np.arange(size)
    tent = 0.5 * np.minimum(steps + 1, size - steps)
    side = np.sign(2 * steps - (size - 1)).astype(np.float64)
    middle = np.full((size, size), -0.25)
    middle[size // 2, size // 2] = 0.25 * (size**2 - 1)
    down = np.sign(steps[None, :] - steps[:, None])
    up = np.sign(steps[None, :] + steps[:, None] - (size - 1))
    cross = np.full((size, size), -0.5)
    cross[size // 2, :] = cross[:, size // 2] = 1.0
    rim = np.full((size, size), -1.0)
    rim[[0, -1], :] = rim[:, [0, -1]] = 0.5
    return [
        np.outer(tent, tent),
        np.outer(tent, side),
        np.outer(side, tent),
        middle,
        0.5 * down,
        0.5 * up,
        cross,
        rim,
    ]


def image_weights() -> dict:
    """Weights by kernel size, and the mix: more than any setting needs."""
    sizes = range(1, KERNEL + 1)
    outputs = CHANNELS * MULTIPLIER
    return {
        # [C_out, C_in, k, k]: output o has one pattern, and takes each channel by a factor
        "standard": {
            size: np.stack(
                [
                    [_factor(o, c) * kernels(size)[o % 8] for c in range(CHANNELS)]
                    for o in range(CHANNELS)
                ]
            )
            for size in sizes
        },
        # [C·m, 1, k, k]
        "depthwise": {
            size: np.stack([[kernels(size)[o % 8] * (1 + o // 8)] for o in range(outputs)])
            for size in sizes
        },
        # [C_out, C·m]
        "mix": np.array([[_factor(o, c) for c in range(outputs)] for o in range(CHANNELS)]),
    }


def _factor(output: int, channel: int) -> float:
    return _FACTORS[(3 * output + channel + channel // 8) % 8]


def cloud() -> tuple[np.ndarray, np.ndarray]:
    """Points ``[POINTS, 3]`` in metres and features ``[POINTS, CLOUD_CHANNELS]``.

    A table on a floor: forty points of the floor, five of each leg, thirty-six of the top.
    """
    rng = np.random.default_rng(11)
    floor = np.array([[0.25 * x, 0.4 * y, 0.0] for y in range(5) for x in range(8)])
    floor[:, :2] += rng.uniform(-0.08, 0.08, (40, 2))
    corners = [(0.45, 0.4), (1.35, 0.4), (0.45, 1.2), (1.35, 1.2)]
    legs = np.array([[x, y, 0.13 * (step + 1)] for x, y in corners for step in range(5)])
    top = np.array([[0.4 + 0.2 * x, 0.35 + 0.18 * y, 0.8] for y in range(6) for x in range(6)])
    top[:, :2] += rng.uniform(-0.05, 0.05, (36, 2))
    points = np.concatenate([floor, legs, top]).round(2)
    brightness = np.concatenate([rng.integers(2, 5, 40), rng.integers(0, 3, 20), [7] * 36])
    brightness[60:] += rng.integers(-1, 3, 36)
    height = (10 * points[:, 2]).round()
    red = np.minimum(9, brightness + 1)
    green = np.maximum(0, brightness - rng.integers(0, 3, POINTS))
    return points, np.stack([height, brightness, red, green], axis=1).astype(np.float64)


def chosen(count: int) -> np.ndarray:
    """Which points ``[count]`` stand for all of them where fewer are wanted: evenly spread."""
    return np.arange(count) * POINTS // count


def cloud_weights() -> dict:
    """Weights for the cells of a cloud by kernel size, and the mix."""
    return {
        # [C_out, C_in, k, k, k], the last three z, y, x
        "standard": {
            size: np.stack(
                [
                    [_factor(o, c) * cell_kernels(size)[o] for c in range(CLOUD_CHANNELS)]
                    for o in range(CLOUD_CHANNELS)
                ]
            )
            for size in CLOUD_KERNELS
        },
        # [C, 1, k, k, k]
        "depthwise": {
            size: np.stack([[kernel] for kernel in cell_kernels(size)]) for size in CLOUD_KERNELS
        },
        "mix": np.array(
            [[_factor(o, c) for c in range(CLOUD_CHANNELS)] for o in range(CLOUD_CHANNELS)]
        ),
    }


def cell_kernels(size: int) -> list[np.ndarray]:
    """Four kernels ``[size, size, size]``: blur, above and below, right and left, middle."""
    if size == 1:
        return [np.ones((1, 1, 1))] * 4
    steps = np.arange(size)
    tent = 0.5 * np.minimum(steps + 1, size - steps)
    side = np.sign(2 * steps - (size - 1)).astype(np.float64)
    middle = np.full((size, size, size), -0.5)
    middle[size // 2, size // 2, size // 2] = 4.0
    return [
        np.einsum("z,y,x->zyx", tent, tent, 2 * tent),
        np.einsum("z,y,x->zyx", side, tent, 2 * tent),
        np.einsum("z,y,x->zyx", tent, 2 * tent, side),
        middle,
    ]

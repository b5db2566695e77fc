"""How far apart colours are, for eyes with three kinds of cone and for those without one of them.

Vision without a kind of cone: Machado, Oliveira and Fernandes, 2009, severity 1, on linear RGB.
Distance: CIEDE2000 (Sharma, Wu and Dalal, 2005); 1 is about what can just be seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from pointwise.report.palette import rgb

VISION = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip


def lab(color: str, vision: str = "normal") -> np.ndarray:
    """CIE L*a*b* of ``#rrggbb`` as seen."""
    part = np.array(rgb(color)) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    r, g, b = np.clip(VISION[vision] @ linear, 0, 1)
    xyz = np.array([0.4124564 * r + 0.3575761 * g + 0.1804375 * b,
                    0.2126729 * r + 0.7151522 * g + 0.0721750 * b,
                    0.0193339 * r + 0.1191920 * g + 0.9503041 * b])  # fmt: skip
    xyz /= (0.95047, 1, 1.08883)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(one: Sequence[float], other: Sequence[float]) -> float:
    """The distance of two colours in L*a*b*."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    grey = 0.5 * (1 - np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))
    a1, a2 = a1 * (1 + grey), a2 * (1 + grey)
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    light, c, h = (l1 + l2) / 2, (c1 + c2) / 2, h1 + h2
    if c1 * c2 != 0:
        far = abs(h1 - h2) > 180
        h = (h + (360 if h < 360 else -360)) / 2 if far else h / 2
    weight = 1 + sum(
        factor * np.cos(np.radians(times * h + shift))
        for factor, times, shift in ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    )
    lightness = (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    chromas, hues = (c2 - c1) / (1 + 0.045 * c), hue / (1 + 0.015 * c * weight)
    rotation = -2 * np.sqrt(c**7 / (c**7 + 25.0**7))
    rotation *= np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2))))
    return float(np.sqrt(lightness**2 + chromas**2 + hues**2 + rotation * chromas * hues))


def nearest(colors: dict[str, str], vision: str) -> tuple[float, str, str]:
    """The smallest distance between two of some named colours, and whose it is."""
    seen = {name: lab(color, vision) for name, color in colors.items()}
    return min((ciede2000(seen[a], seen[b]), a, b) for a, b in itertools.combinations(seen, 2))

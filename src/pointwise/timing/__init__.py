"""How long things take, how much faster one is than another, and when a machine cannot tell.

Everything that times goes through here: turns (``in_turns``), what is said of single runs
(``Times``), ratios with an interval (``Ratio``), and what else the machine did in the meantime
(``Watch``), without which no verdict is given.
"""

from pointwise.timing.load import BUSY, Load, Watch
from pointwise.timing.ratio import UNKNOWN, Ratio, ratio
from pointwise.timing.times import Times
from pointwise.timing.turns import FEWEST, Run, in_turns, measured

__all__ = [
    "BUSY",
    "FEWEST",
    "UNKNOWN",
    "Load",
    "Ratio",
    "Run",
    "Times",
    "Watch",
    "in_turns",
    "measured",
    "ratio",
]

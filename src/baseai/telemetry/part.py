"""A part is what an accelerator is built of, as far as its name tells: whether a reading can be believed depends on it.

Invariant: a name that nobody knows claims nothing: its zeros are not believed and its memory fits any size.
"""

import re
from dataclasses import dataclass

HBM = re.compile(
    r"\b(?:G[HB]\d{3}|[HB]\d{2,3}|A100|A800|A30\b|V100|P100|MI\s?\d{3})|0x74[0-9a-f]{2}", re.IGNORECASE
)
ONE_NAME_PER_DIE = re.compile(r"\b(?:G[HB]\d{3}|H\d{2,3}|B\d{3}|Blackwell|Rubin)", re.IGNORECASE)
MI300_ON = re.compile(r"\bMI\s?3\d\d|0x74[ab][0-9a-f]|0x75a[0-9a-f]", re.IGNORECASE)
NVIDIA = re.compile(r"nvidia|tesla|quadro|geforce|\b[ABHLTV]\d{1,3}\b", re.IGNORECASE)
MEMORY_GB = re.compile(r"\b(\d{2,3})\s?GB\b", re.IGNORECASE)

BOARD_GIB = (
    8,
    12,
    16,
    20,
    22,
    24,
    32,
    40,
    44,
    48,
    64,
    80,
    94,
    96,
    128,
    141,
    144,
    180,
    192,
    256,
    288,
    384,
    432,
)
RESERVED_RATIO = 0.01  # a driver keeps less than this of a part's memory for itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What the name of a model tells."""

    model: str

    @property
    def has_hbm(self) -> bool:
        """Whether its memory has a temperature of its own."""
        return bool(HBM.search(self.model))

    @property
    def shares_profiler(self) -> bool:
        """Whether a user's profiler takes the counters away from everybody else: NVIDIA before Hopper, all of AMD."""
        return not ONE_NAME_PER_DIE.search(self.model)

    @property
    def tells_pcie_bandwidth(self) -> bool:
        """Whether 0 on AMD's PCIe bandwidth is a measured 0: from MI300 on."""
        return bool(MI300_ON.search(self.model))

    @property
    def compute_slices(self) -> int:
        """Into how many slices MIG divides it."""
        return 4 if re.search(r"\bA30\b", self.model) else 7

    @property
    def memory_gb(self) -> float | None:
        """Its memory as the name states it."""
        found = MEMORY_GB.search(self.model)
        return float(found[1]) if found else None


UNKNOWN = Part(model="")


def is_board_size(memory_b: float) -> bool:
    """Whether a part is sold with this much memory, less what its driver keeps."""
    return any((1 - RESERVED_RATIO) <= memory_b / (size * 2**30) <= 1 for size in BOARD_GIB)

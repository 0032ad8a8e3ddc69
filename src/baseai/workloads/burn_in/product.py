"""A product is one matrix multiplication, timed over and over, whose result is known exactly.

Invariant: the operands are small whole numbers, so that every partial sum is exact in the accumulator, whatever the
order of summation: one wrong bit in a result of fp32 or int8 is found, not forgiven. Formats that round the result
(bf16, fp8) are compared with the exact one to their own precision: a flipped sign or exponent is found, a flipped last
digit only when it comes and goes, for every window's last result must equal the first to the bit.
Power and so speed depend on the data: whole numbers draw a little less than noise would.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LARGEST = (
    8  # operands are whole numbers from -8 to 8: exact in every format, and |sum| < 2**24 up to 2**18 rows
)
WINDOW_S = 0.25
WARM_UPS = 3
VECTORS = 2  # the whole result is weighed with so many vectors
ROUNDING = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp8": 2.0**-5}  # largest relative error of a rounded element
DEVIATIONS = 6.0  # of the sum of a row's rounding errors, beyond which they are none


class NotOffered(Exception):
    """This device or this torch has no such product; the sentence says what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What the windows of one product came to."""

    gflops: tuple[float, ...]  # 10⁹ operations a second of each window, oldest first
    wrong_rows: int  # rows of a result that were not what they should be

    @property
    def median(self) -> float:
        return median_of(self.gflops)

    @property
    def kept_ratio(self) -> float:
        """The median rate of the last quarter of windows over that of the first."""
        quarter = max(1, len(self.gflops) // 4)
        return median_of(self.gflops[-quarter:]) / median_of(self.gflops[:quarter])


class Product:
    """C = A·B of square matrices on one device. Raises NotOffered where there is no such thing here."""

    def __init__(self, number_format: str, rows: int, device: str, seed: int) -> None:
        import torch

        self.number_format = number_format
        self.rows = rows
        self._device = device
        chance = torch.Generator().manual_seed(seed)
        shape = (rows, rows)
        self._left = torch.randint(-LARGEST, LARGEST + 1, shape, generator=chance, dtype=torch.int8)
        self._right = torch.randint(-LARGEST, LARGEST + 1, shape, generator=chance, dtype=torch.int8)
        self._multiply = self._multiplication()
        try:
            self.first = self._multiply()
            self.wait()
        except (RuntimeError, ValueError, TypeError, AttributeError) as wrong:
            raise NotOffered(str(wrong).splitlines()[0]) from wrong

    def _multiplication(self) -> "Callable[[], torch.Tensor]":
        import torch

        left, right = self._left.to(self._device), self._right.to(self._device)
        if self.number_format == "int8":
            return lambda: torch._int_mm(left, right)
        if self.number_format == "fp8":
            if not hasattr(torch, "_scaled_mm"):
                raise NotOffered("this torch has no product of fp8")
            one = torch.ones((), device=self._device)
            eight = torch.float8_e4m3fn if not _older_amd() else torch.float8_e4m3fnuz
            try:
                row, column = left.float().to(eight), right.t().contiguous().float().to(eight).t()
            except (RuntimeError, TypeError) as wrong:
                raise NotOffered(str(wrong).splitlines()[0]) from wrong
            return lambda: torch._scaled_mm(row, column, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        if self.number_format not in kinds:
            raise NotOffered(f"{self.number_format} is no number format known here")
        kind = kinds[self.number_format]
        one_side, other_side = left.to(kind), right.to(kind)
        out = torch.empty((self.rows, self.rows), dtype=kind, device=self._device)
        return lambda: torch.mm(one_side, other_side, out=out)

    def run(self, seconds: float, *, stop: Callable[[], bool] = lambda: False) -> Rates:
        """Multiply for so long. `stop` is asked between windows."""
        import torch

        for _ in range(WARM_UPS):
            self._multiply()
        self.wait()
        began_s = time.perf_counter()
        self._multiply()
        self.wait()
        a_window = max(1, round(WINDOW_S / max(1e-6, time.perf_counter() - began_s)))
        reference = self._multiply().clone()
        wrong = self.wrong_rows(reference)
        rates: list[float] = []
        deadline_s = time.perf_counter() + seconds
        while not rates or (time.perf_counter() < deadline_s and not stop()):
            result = reference
            began_s = time.perf_counter()
            for _ in range(a_window):
                result = self._multiply()
            self.wait()
            rates.append(a_window * 2.0 * self.rows**3 / (time.perf_counter() - began_s) / 1e9)
            if not torch.equal(result, reference):
                wrong = max(wrong, int((result != reference).any(dim=1).sum()))
        return Rates(gflops=tuple(rates), wrong_rows=wrong)

    def wrong_rows(self, result: "torch.Tensor") -> int:
        """How many rows of a result are not what they should be, reckoned on the host."""
        import torch

        # Each row is weighed: C·x must be A·(B·x), whole numbers below 2**53, so equal means equal. A row with one
        # wrong element is always found where nothing is rounded, for no weight is zero.
        host, left, right = result.cpu().double(), self._left.double(), self._right.double()
        wrong = torch.zeros(self.rows, dtype=torch.bool)
        for vector in range(1, VECTORS + 1):
            weights = (torch.arange(self.rows, dtype=torch.float64) * vector) % 13 + 1
            off = (host @ weights - left @ (right @ weights)).abs()
            rounding = ROUNDING.get(self.number_format, 0.0)
            allowed = DEVIATIONS * rounding * (host * weights).square().sum(dim=1).sqrt()
            wrong |= ~(off <= allowed)  # and not `off > allowed`: a NaN is within nothing
        return int(wrong.sum())

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self._device != "cpu":
            import torch

            torch.cuda.synchronize()


def _older_amd() -> bool:
    """Whether the device knows fp8 only in the form that AMD had before the common one (MI300X and its kin)."""
    import torch

    if not torch.version.hip or not torch.cuda.is_available():
        return False
    return str(torch.cuda.get_device_properties(0).gcnArchName).startswith("gfx94")


def median_of(values: tuple[float, ...]) -> float:
    """The middle one; of an even number the mean of the two in the middle. Raises ValueError for none."""
    if not values:
        raise ValueError("nothing has no median")
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2

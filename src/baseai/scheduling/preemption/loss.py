"""A loss is what making room for another run took from an attempt: the work since its last checkpoint.

Invariant: it is told in figures, and the other run is named to those alone who may read of it. Pure.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What one preempted attempt lost. Work is in accelerator-seconds, as it is billed."""

    for_reservation: bool = False  # it went for capacity that was reserved, else for a run
    for_name: str | None  # the run that started instead; None where the reader may not know it
    saved_step: int | None  # of its last checkpoint, from which it goes on; None: it has none
    saved: bool  # it has a checkpoint of its own making at all
    lost_accelerator_s: float


def sentence_of(loss: Loss) -> str:
    """The loss in plain English, as it stands with the run."""
    whom = f"run {loss.for_name}" if loss.for_name else "another run"
    if loss.for_reservation:
        whom = "a reservation"
    if not loss.saved:
        return f"made room for {whom} and starts anew: {amount_of(loss.lost_accelerator_s)} of work had not been saved"
    where = "its checkpoint" if loss.saved_step is None else f"its checkpoint at step {loss.saved_step:,}"
    return f"made room for {whom} and goes on from {where}: {amount_of(loss.lost_accelerator_s)} of work are done again"


def amount_of(accelerator_s: float) -> str:
    """As `0.4 accelerator-seconds`, `12 accelerator-minutes`, `3.5 accelerator-hours`."""
    for size, name in ((3600.0, "hours"), (60.0, "minutes")):
        if accelerator_s >= 2 * size:
            return f"{accelerator_s / size:.3g} accelerator-{name}"
    return f"{accelerator_s:.3g} accelerator-seconds"

"""Baselines that plan the whole of a workload at once, and so are for a bench only."""

from collections.abc import Iterator

import numpy as np

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall, Spot
from baseai.scheduling.policy.knowledge import known, shortest_left_s
from baseai.scheduling.policy.seam import Moment, Move, Packing, Start


class ListScheduling:
    """The longest first, each where it is done earliest, given what was promised before it. Gangs of one pod."""

    needs_durations = True

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        self._free_s = [[0.0] * bay.devices for bay in hall.bays]
        self._promised: list[tuple[float, int, Gang, Spot]] = []

    def turn(self, moment: Moment) -> Iterator[Move]:
        for gang in sorted(moment.arrived, key=lambda gang: (-shortest_left_s(moment, gang), gang.number)):
            self._promise(gang, moment)
        self._promised.sort(key=lambda promise: promise[:2])
        while self._promised and self._promised[0][0] <= moment.now_s:
            _, _, gang, spot = self._promised.pop(0)
            yield Start(gang.run_id, (spot,))

    def _promise(self, gang: Gang, moment: Moment) -> None:
        """Hold the devices of the row on which it ends first."""
        hall, count = moment.hall, gang.shape.devices
        best: tuple[float, int, float, tuple[int, ...]] | None = None
        for row, free_s in enumerate(self._free_s):
            model = hall.models[hall.model[row]]
            if len(free_s) < count or model not in gang.shape.models:
                continue
            devices = sorted(range(len(free_s)), key=lambda device: (free_s[device], device))[:count]
            start_s = max(moment.now_s, *(free_s[device] for device in devices))
            end_s = start_s + known(moment.work_s(gang, model))
            if best is None or end_s < best[0]:
                best = (end_s, row, start_s, tuple(devices))
        if best is None:
            raise ValueError(f"{gang.run_id} fits nowhere")
        end_s, row, start_s, devices_of_it = best
        for device in devices_of_it:
            self._free_s[row][device] = end_s
        self._promised.append((start_s, gang.number, gang, Spot(row, devices_of_it)))

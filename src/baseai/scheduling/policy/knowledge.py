"""What a policy makes of durations that depend on the model: the shortest that could come true."""

import math

from baseai.ground.fault import Refused
from baseai.scheduling.gang import Gang
from baseai.scheduling.policy.seam import Moment, Running


def shortest_left_s(moment: Moment, gang: Gang) -> float:
    """Seconds still to be done on the model that is fastest for it. Raises Refused where durations are not known."""
    models = gang.shape.models or (moment.hall.models[0],)
    found = [known(moment.left_s(gang, model)) for model in models if model in moment.hall.models]
    return min(found, default=math.inf)


def ends_s(moment: Moment, running: Running) -> float:
    """When it ends where it is."""
    return moment.now_s + known(moment.left_s(running.gang, running.model))


def known(seconds: float | None) -> float:
    if seconds is None:
        raise Refused("this policy decides by durations, and they are not to be known: take another one")
    return seconds

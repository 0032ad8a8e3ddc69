"""The autoscalers by the names people type."""

from collections.abc import Mapping

from baseai.ground.fault import Refused
from baseai.twin.serving.policy.hpa import Hpa, HpaTuned
from baseai.twin.serving.policy.kpa import Kpa
from baseai.twin.serving.policy.ours import Ours
from baseai.twin.serving.policy.ray import Ray, RayTuned
from baseai.twin.serving.policy.seam import Autoscaler

AUTOSCALERS: Mapping[str, type[Autoscaler]] = {
    "ours": Ours,
    "kpa": Kpa,
    "hpa": Hpa,
    "hpa-tuned": HpaTuned,
    "ray": Ray,
    "ray-tuned": RayTuned,
}


def autoscaler_named(name: str) -> type[Autoscaler]:
    """Raises Refused where there is none of that name."""
    if name not in AUTOSCALERS:
        raise Refused(f"there is no autoscaler {name}; there are {', '.join(AUTOSCALERS)}")
    return AUTOSCALERS[name]

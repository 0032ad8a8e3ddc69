"""The OpenAI dialect: which models there are, and how the fields of a body are read.

Invariant: a field that would change the answer and that we cannot honour is refused by name; a field that OpenAI does
not know is left aside, as clients send other servers' extensions. Only the routes that answer from a model read bodies.
"""

from collections.abc import Callable, Mapping
from typing import Any

from baseai.workloads.inference.engine import BadInput
from baseai.workloads.inference.server.exchange import kind_of
from baseai.workloads.inference.server.refusal import UnknownModel
from baseai.workloads.inference.server.terms import Terms

MODELS = "/v1/models"
TEXTS_IN: Mapping[str, str] = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
}
"""The field that holds the text of each route: what a refusal of a too long one names."""


def routes(terms: Terms) -> dict[str, Callable[[], tuple[int, Any]]]:
    """`GET /v1/models` and `GET /v1/models/{id}`."""
    models = [
        {"id": name, "object": "model", "created": terms.created_at_s, "owned_by": terms.owned_by}
        for name in (terms.model_name, *terms.aliases)
    ]
    free = {f"{MODELS}/{model['id']}": _always(model) for model in models}
    return {MODELS: _always({"object": "list", "data": models[:1]}), **free}


def _always(told: Any) -> Callable[[], tuple[int, Any]]:
    return lambda: (200, told)


def refuse_other_models(path: str, terms: Terms) -> None:
    """Raises UnknownModel where the path asks for a model that is not here."""
    if path.startswith(f"{MODELS}/"):
        raise UnknownModel(path.removeprefix(f"{MODELS}/"), terms.model_name)


def model_of(body: Mapping[str, Any], terms: Terms) -> str:
    """The name that the client used. Raises BadInput, UnknownModel."""
    name = body.get("model")
    if name is None:
        raise BadInput(f"model is missing; name it, here {terms.model_name}", "model", "missing_field")
    if not isinstance(name, str):
        raise BadInput(f"model must be a string, not {kind_of(name)}", "model")
    if name not in terms.names:
        raise UnknownModel(name, terms.model_name)
    return name


def number(body: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    """A field that is a number between two bounds, or absent, or null. Raises BadInput."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"{name} must be a number, not {kind_of(value)}", name)
    if not least <= value <= most:
        raise BadInput(f"{name} must be from {least:g} to {most:g}, not {value:g}", name)
    return value


def whole(body: Mapping[str, Any], name: str, least: int, most: int | None = None) -> int | None:
    """A field that is a whole number not below `least`; None where it is absent or null. Raises BadInput."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        came = f"{value:g}" if isinstance(value, float) else kind_of(value)
        raise BadInput(f"{name} must be a whole number, not {came}", name)
    if value < least:
        raise BadInput(f"{name} must be at least {least}, not {value}", name)
    if most is not None and value > most:
        raise BadInput(f"{name} must be at most {most}, not {value}", name)
    return value


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A field that is true, false, null or absent. Raises BadInput."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise BadInput(f"{name} must be true or false, not {kind_of(value)}", name)
    return value

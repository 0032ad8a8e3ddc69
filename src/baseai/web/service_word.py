"""What the codes of services are called: states of services, versions, replicas and SLOs, and the requests one may try.

Invariant: every state of the room `serving` has its word and shape here; a test walks them. Pure.
"""

from collections.abc import Mapping
from types import MappingProxyType

from baseai.web.phrase import N_, Look

SERVICE_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "idle": Look(
            word=N_("at rest"), shape="◌", tone="waiting",
            meaning=N_("It has no replica and holds no lease; the next request wakes it."),
        ),
        "starting": Look(
            word=N_("starting"), shape="◑", tone="busy", meaning=N_("Replicas are wanted, and none answers yet."),
        ),
        "serving": Look(word=N_("serving"), shape="▶", tone="good", meaning=N_("Its replicas answer.")),
        "failing": Look(
            word=N_("failing"), shape="▲", tone="bad",
            meaning=N_("Its replicas end before they answer; it is tried ever more slowly."),
        ),
        "stopped": Look(
            word=N_("stopped"), shape="■", tone="plain", meaning=N_("It was stopped and takes no requests."),
        ),
    }
)  # fmt: skip
VERSION_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "candidate": Look(word=N_("taking over"), shape="◑", tone="busy"),
        "current": Look(word=N_("current"), shape="●", tone="good"),
        "retired": Look(word=N_("replaced"), shape="■", tone="plain"),
        "rolled_back": Look(word=N_("taken back"), shape="↻", tone="warn"),
    }
)
REPLICA_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "starting": Look(word=N_("starting"), shape="◑", tone="busy"),
        "ready": Look(word=N_("answering"), shape="●", tone="good"),
        "draining": Look(word=N_("draining"), shape="◧", tone="warn"),
        "gone": Look(word=N_("gone"), shape="■", tone="plain"),
    }
)
SLO_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "kept": Look(word=N_("kept"), shape="✓", tone="good"),
        "burning": Look(
            word=N_("burning"), shape="▲", tone="warn",
            meaning=N_("Kept over the last hour, but more are slow now than may be."),
        ),
        "missed": Look(
            word=N_("missed"), shape="✕", tone="bad", meaning=N_("More were slow over the last hour than may be."),
        ),
        "unmeasured": Look(
            word=N_("too few requests"), shape="◌", tone="waiting",
            meaning=N_("Too little was asked over the last hour to say."),
        ),
    }
)  # fmt: skip
LOOKS: Mapping[str, Mapping[str, Look]] = MappingProxyType(
    {"service": SERVICE_STATES, "version": VERSION_STATES, "replica": REPLICA_STATES, "slo": SLO_STATES}
)
# Requests that a person may try, by the name of their example.
EXAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "chat": N_("Chat"),
        "completion": N_("Completion of a text"),
        "generate": N_("Continuation by a language model"),
        "embeddings": N_("Embedding of a text"),
        "infer": N_("Inference over tensors"),
        "json": N_("Call with JSON"),
        "models": N_("List of models"),
        "metadata": N_("What the model takes and gives"),
        "any": N_("Request to the program"),
    }
)
EXAMPLE_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "infer": N_("Write the inputs that the model has; the request before this one names them."),
        "json": N_("Write what the function takes: JSON, or any other text."),
    }
)


def look_of(noun: str, state: str) -> Look:
    """How a state of a noun of services is shown; an unknown one by its own code."""
    return LOOKS[noun].get(state) or Look(word=state, shape="?", tone="plain")

"""The terms of a replica's server: what its service decides about names and bounds.

Invariant: nothing here is about the model itself; that the engine says. Made by the host from the service's spec.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a replica's server is told by its service."""

    model_name: str
    version: str = "1"  # of the service, as clients of the Open Inference Protocol see it
    aliases: tuple[str, ...] = ()  # further names that are answered, for example the service's own
    concurrency: int = 16  # requests computed at once; beyond twice that many under way, 503
    most_body_bytes: int = 8 << 20
    created_at_s: int = 0  # seconds since 1970; what `/v1/models` says
    owned_by: str = "baseai"
    # What its gateway shows; None: whoever comes is answered.
    token: str | None = field(default=None, repr=False)

    @property
    def names(self) -> frozenset[str]:
        """Every name that is answered."""
        return frozenset((self.model_name, *self.aliases))

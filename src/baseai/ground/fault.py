"""A fault is the world refusing: an exception with its facts and whether repeating can help.

Invariant: every fault survives pickling, because all its facts are in `args`. Doors map a fault to
a status by its class; nothing below a door knows HTTP. A bug is a ValueError or an assert, never a Fault.
"""

from typing import ClassVar


class Fault(Exception):
    """Something outside the program said no. Subclasses pass all their facts to `super().__init__`."""

    retryable: ClassVar[bool] = False


class Refused(Fault):
    """The request is understood and must not be done as it stands; the sentence says what to change."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class NotFound(Fault):
    """There is no such thing, or the asker may not know that there is."""

    def __init__(self, noun: str, name: str) -> None:
        super().__init__(noun, name)
        self.noun = noun
        self.name = name

    def __str__(self) -> str:
        return f"no {self.noun} {self.name}"


class Conflict(Fault):
    """The thing has moved on since the asker looked, or already is something else."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence

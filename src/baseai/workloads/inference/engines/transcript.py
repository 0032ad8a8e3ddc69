"""A transcript is the text of one answer while its tokens come: whole characters only, and nothing of a stop text.

Invariant: the texts given out, joined, are the decoded answer up to the first stop text; what may yet become the
beginning of one is held back until it is clear. Pure: it is given how tokens are decoded.
"""

from collections.abc import Callable, Sequence

HALF = "\ufffd"  # what a decoder gives for bytes that are no whole character
MOST_HALF = 8  # tokens that may go by without a whole character; beyond, the model writes no UTF-8


class Transcript:
    """See above."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        self.stopped = False  # a stop text has come
        self._decode = decode
        self._stops = stops
        self._tokens: list[int] = []
        self._before = 0  # first of the tokens that give the new ones their context
        self._told = 0  # tokens whose text is out or held
        self._held = ""

    def add(self, token: int) -> str:
        """What can be said now that this token has come."""
        self._tokens.append(token)
        return self._said(self._fresh(last=False), last=False)

    def end(self) -> str:
        """What is left when no further token comes."""
        return self._said(self._fresh(last=True), last=True)

    def _fresh(self, *, last: bool) -> str:
        # A token's text may depend on the one before it (a leading blank, half a character), so both are decoded.
        window = self._tokens[self._before :]
        before = self._decode(window[: self._told - self._before])
        now = self._decode(window)
        waits = len(self._tokens) - self._told
        if now.endswith(HALF) and waits < MOST_HALF and not last:
            return ""
        self._before, self._told = self._told, len(self._tokens)
        return now[len(before) :]

    def _said(self, fresh: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + fresh
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = 0 if last else max((_begun(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _begun(text: str, stop: str) -> int:
    """How many of the text's last characters are the beginning of the stop text."""
    return next(
        (length for length in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:length])), 0
    )

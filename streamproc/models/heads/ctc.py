"""Text out of a network trained by connectionist temporal classification (Graves et al., ICML 2006).

At each of T steps there is a distribution over an alphabet and a blank. A path takes one symbol a step; its text is
what is left when repeated symbols are merged and blanks removed. Many paths give one text, whose probability is the
sum of theirs. Greedy reading takes the text of the best path, beam search looks for the best text.

A text's confidence is p^(1/n): p its probability, over all of its paths, and n the number of its symbols, 1 for the
empty text. It is the geometric mean a symbol, so that long and short texts compare, and it counts what a symbol's own
score does not show: that there might be one more, or one less. Both ways of reading are measured by it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamproc.models.heads import TextRead
from streamproc.models.heads.scores import log_probabilities

__all__ = ["Blank", "CtcReader", "beam_search", "greedy", "log_likelihood"]

Blank: TypeAlias = Literal["first", "last"]
LogProbabilities: TypeAlias = NDArray[np.float64]
"""(T, symbols with the blank): natural logarithms, each row a distribution."""

_Prefix: TypeAlias = tuple[int, ...]
_Beams: TypeAlias = dict[_Prefix, tuple[float, float]]

_NEVER = -math.inf
_NEGLIGIBLE = math.log(1e-5)  # symbols less likely at a step do not extend a beam there: trained models give few others


class CtcReader:
    """(batch, symbols, T) or (batch, T, symbols): logits, their softmax, or its logarithm.

    ``alphabet``: the symbols in the model's order, without the blank, which comes ``first`` or ``last`` of all.
    ``symbols_first``: the first of the two layouts. ``beam_width``: texts that a beam search pursues; 1 reads greedily.
    A beam search never gives a less probable text than greedy reading.
    """

    def __init__(
        self,
        tensor: str,
        alphabet: Sequence[str],
        *,
        blank: Blank = "last",
        symbols_first: bool,
        beam_width: int = 1,
    ) -> None:
        self._tensor = tensor
        self._symbols = ("", *alphabet) if blank == "first" else (*alphabet, "")
        self._blank = 0 if blank == "first" else len(alphabet)
        self._symbols_first = symbols_first
        self._beam_width = beam_width

    @property
    def name(self) -> str:
        """The kind of output and the way of reading, for people."""
        return "ctc text" if self._beam_width == 1 else f"ctc text, beam search of width {self._beam_width}"

    def read(self, outputs: Mapping[str, NDArray[Any]], row: int) -> TextRead:
        """The text and its confidence; see :class:`Reader`. Nonsense reads as nothing, with confidence 0."""
        values = outputs[self._tensor][row]
        steps = log_probabilities(values.T if self._symbols_first else values)
        if steps is None:
            return TextRead(text="", confidence=0.0)
        read = greedy(steps, self._blank)
        score = log_likelihood(steps, read, self._blank)
        if self._beam_width > 1:
            found = beam_search(steps, self._blank, self._beam_width)
            if found != read and (better := log_likelihood(steps, found, self._blank)) > score:
                read, score = found, better
        confidence = math.exp(min(score, 0.0) / max(1, len(read)))
        return TextRead(text="".join(self._symbols[index] for index in read), confidence=confidence)


def greedy(steps: LogProbabilities, blank: int) -> _Prefix:
    """The text of the best path, as symbol indices."""
    path = steps.argmax(axis=1)
    begins = np.diff(path, prepend=-1) != 0
    return tuple(path[begins & (path != blank)].tolist())


def log_likelihood(steps: LogProbabilities, text: Sequence[int], blank: int) -> float:
    """The logarithm of a text's probability, over all paths that give it: the forward variables of Graves et al.,
    equations 6 to 8.

    >>> half = np.log(np.full((2, 2), 0.5))  # of the paths --, -a, a- and aa, three give the text a
    >>> round(math.exp(log_likelihood(half, [0], blank=1)), 6)
    0.75
    """
    places = np.full(2 * len(text) + 1, blank)  # a blank before, between and after the symbols
    places[1::2] = text
    # From a symbol to the next without a blank between: not if they are equal, or they would be merged.
    leaps = np.zeros(len(places), dtype=bool)
    leaps[3::2] = places[3::2] != places[1:-2:2]
    emitted = steps[:, places]
    reached = np.full(len(places), _NEVER)
    reached[:2] = emitted[0, :2]
    for step in emitted[1:]:
        before = np.concatenate([[_NEVER, _NEVER], reached])
        leapt = np.where(leaps, before[:-2], _NEVER)
        reached = np.logaddexp(np.logaddexp(reached, before[1:-1]), leapt) + step
    return float(np.logaddexp.reduce(reached[-2:]))


def beam_search(steps: LogProbabilities, blank: int, width: int) -> _Prefix:
    """The most probable text among those that a prefix beam search finds, as symbol indices.

    Graves, "Supervised Sequence Labelling with Recurrent Neural Networks", section 7.5.2, as simplified by Hannun et
    al., arXiv:1408.2873, algorithm 1, without a language model. Exact where ``width`` holds every prefix.
    """
    beams: _Beams = {(): (0.0, _NEVER)}
    for step in steps:
        grown = _grown(beams, float(step[blank]), _candidates(step, blank, width))
        beams = dict(heapq.nlargest(width, grown.items(), key=lambda beam: _added(*beam[1])))
    return next(iter(beams))


def _grown(beams: _Beams, blank: float, candidates: Sequence[tuple[int, float]]) -> _Beams:
    """All beams one step on. A beam is a text with the logarithms of the probabilities of its paths so far: those that
    end in a blank, and those that end in its last symbol."""
    grown: _Beams = {}

    def add(prefix: _Prefix, in_blank: float, in_symbol: float) -> None:
        had = grown.get(prefix)
        grown[prefix] = (in_blank, in_symbol) if had is None else (_added(had[0], in_blank), _added(had[1], in_symbol))

    for prefix, (in_blank, in_symbol) in beams.items():
        either = _added(in_blank, in_symbol)
        add(prefix, either + blank, _NEVER)
        for symbol, score in candidates:
            if prefix and prefix[-1] == symbol:  # again: only a blank between makes two of it
                add(prefix, _NEVER, in_symbol + score)
                add((*prefix, symbol), _NEVER, in_blank + score)
            else:
                add((*prefix, symbol), _NEVER, either + score)
    return grown


def _candidates(step: LogProbabilities, blank: int, width: int) -> list[tuple[int, float]]:
    """The symbols that may extend a beam at a step, with their scores: no more than could survive it."""
    likely = np.flatnonzero(step >= _NEGLIGIBLE)
    likely = likely[likely != blank]
    if len(likely) > width:
        likely = likely[np.argsort(-step[likely], kind="stable")[:width]]
    return list(zip(likely.tolist(), step[likely].tolist(), strict=True))


def _added(one: float, other: float) -> float:
    """log(e^one + e^other), for -inf as well."""
    if one < other:
        one, other = other, one
    return one if other == _NEVER else one + math.log1p(math.exp(other - one))

"""Text out of CTC outputs, against all paths one by one."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.models.heads.ctc import Blank, CtcReader, beam_search, greedy, log_likelihood

Steps = NDArray[np.float64]

SEEDS = st.integers(0, 2**32 - 1)
PATH = (3, 0, 0, 3, 0, 1, 1, 2, 3)  # with 3 for the blank, "aabc"


def random_steps(seed: int, length: int, symbols: int, sharpness: float = 2.0) -> Steps:
    """Logarithms of random distributions, (length, symbols)."""
    logits = np.random.default_rng(seed).normal(scale=sharpness, size=(length, symbols))
    steps: Steps = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return steps


def peaked(path: Sequence[int], symbols: int, peak: float = 0.96) -> Steps:
    """A path's symbol has probability ``peak`` at each step, the others share the rest."""
    values = np.full((len(path), symbols), (1 - peak) / (symbols - 1))
    values[np.arange(len(path)), path] = peak
    steps: Steps = np.log(values)
    return steps


def collapsed(path: Sequence[int], blank: int) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def all_texts(steps: Steps, blank: int) -> dict[tuple[int, ...], float]:
    """The probability of every text, path by path."""
    texts: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(steps.shape[1]), repeat=len(steps)):
        text = collapsed(path, blank)
        texts[text] = texts.get(text, 0.0) + math.exp(sum(row[symbol] for row, symbol in zip(steps, path, strict=True)))
    return texts


def reader(*, blank: Blank = "last", symbols_first: bool = False, beam_width: int = 1) -> CtcReader:
    return CtcReader("out", "abc", blank=blank, symbols_first=symbols_first, beam_width=beam_width)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, length=st.integers(1, 5), symbols=st.integers(2, 4), first=st.booleans())
def test_likelihood_and_wide_beam_agree_with_all_paths(seed: int, length: int, symbols: int, first: bool) -> None:
    steps, blank = random_steps(seed, length, symbols), 0 if first else symbols - 1
    texts = all_texts(steps, blank)
    for text, probability in texts.items():
        assert math.exp(log_likelihood(steps, text, blank)) == pytest.approx(probability)
    assert beam_search(steps, blank, width=10_000) == max(texts, key=lambda text: texts[text])


@given(seed=SEEDS, length=st.integers(1, 30), symbols=st.integers(2, 9))
def test_greedy_takes_the_best_symbol_of_each_step(seed: int, length: int, symbols: int) -> None:
    steps = random_steps(seed, length, symbols)
    assert greedy(steps, symbols - 1) == collapsed([int(row.argmax()) for row in steps], symbols - 1)


@settings(deadline=None)
@given(path=st.lists(st.integers(0, 4), min_size=1, max_size=12), width=st.sampled_from([1, 3, 10]))
def test_on_clear_outputs_a_beam_of_any_width_is_greedy(path: list[int], width: int) -> None:
    steps = peaked(path, 5)
    assert beam_search(steps, 4, width) == greedy(steps, 4) == collapsed(path, 4)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, length=st.integers(1, 18), symbols=st.integers(2, 12), width=st.integers(2, 10))
def test_beam_search_is_never_less_sure_than_greedy(seed: int, length: int, symbols: int, width: int) -> None:
    steps = random_steps(seed, length, symbols, sharpness=1.0)
    outputs = {"out": steps[None]}
    alphabet = [chr(ord("a") + index) for index in range(symbols - 1)]
    plain = CtcReader("out", alphabet, symbols_first=False).read(outputs, 0)
    beam = CtcReader("out", alphabet, symbols_first=False, beam_width=width).read(outputs, 0)
    total = beam.confidence ** max(1, len(beam.text))
    assert total >= (1 - 1e-9) * plain.confidence ** max(1, len(plain.text))
    assert total >= (1 - 1e-9) * math.exp(steps.max(axis=1).sum())  # the greedy path alone


def test_where_many_paths_outweigh_the_best_one() -> None:
    steps = np.log(np.array([[0.4, 0.6], [0.4, 0.6]]))  # --: 0.36; a-, -a and aa together: 0.64
    outputs = {"out": np.exp(steps)[None]}
    assert CtcReader("out", "a", symbols_first=False).read(outputs, 0).text == ""
    found = CtcReader("out", "a", symbols_first=False, beam_width=2).read(outputs, 0)
    assert found.text == "a"
    assert found.confidence == pytest.approx(0.64)


@pytest.mark.parametrize("beam_width", [1, 5])
@pytest.mark.parametrize("symbols_first", [False, True])
@pytest.mark.parametrize("blank", ["first", "last"])
@pytest.mark.parametrize("form", ["logits", "probabilities", "logarithms"])
def test_layouts_and_forms(beam_width: int, symbols_first: bool, blank: Blank, form: str) -> None:
    steps = peaked(PATH, 4)
    values = {"logits": steps + 3.5, "probabilities": np.exp(steps), "logarithms": steps}[form]
    if blank == "first":
        values = np.roll(values, 1, axis=1)
    batch = np.stack([np.zeros_like(values), values]).astype(np.float32)
    outputs = {"out": batch.transpose(0, 2, 1) if symbols_first else batch}
    found = reader(blank=blank, symbols_first=symbols_first, beam_width=beam_width).read(outputs, 1)
    assert found.text == "aabc"
    probability = math.exp(log_likelihood(steps, (0, 0, 1, 2), 3))
    assert found.confidence == pytest.approx(probability ** (1 / 4), rel=1e-4)


def test_long_and_short_texts_are_alike_sure() -> None:
    short, long = peaked([3, 0, 3], 4), peaked([3, 0] * 30 + [3], 4)
    confidences = [reader().read({"out": steps[None]}, 0).confidence for steps in (short, long)]
    assert confidences[1] == pytest.approx(confidences[0], abs=0.04)


def test_symbols_of_several_characters() -> None:
    outputs = {"out": peaked([0, 2, 1, 2], 3)[None]}
    assert CtcReader("out", ("ab", " "), symbols_first=False).read(outputs, 0).text == "ab "


def test_nothing_there() -> None:
    found = reader().read({"out": peaked([3] * 5, 4)[None]}, 0)
    assert not found
    assert found.confidence == pytest.approx(0.96**5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("beam_width", [1, 5])
def test_nonsense_reads_as_nothing(bad: float, beam_width: int) -> None:
    values = peaked(PATH, 4)
    values[2, 1] = bad
    found = reader(beam_width=beam_width).read({"out": values[None]}, 0)
    assert (found.text, found.confidence) == ("", 0.0)


@pytest.mark.parametrize("beam_width", [1, 5])
def test_certainty(beam_width: int) -> None:
    values = np.zeros((1, len(PATH), 4), dtype=np.float32)
    values[0, np.arange(len(PATH)), PATH] = 1
    found = reader(beam_width=beam_width).read({"out": values}, 0)
    assert (found.text, found.confidence) == ("aabc", 1.0)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, beam_width=st.sampled_from([1, 4]))
def test_extreme_logits(seed: int, beam_width: int) -> None:
    values = np.random.default_rng(seed).uniform(-3e38, 3e38, (1, 12, 4)).astype(np.float32)
    assert 0 <= reader(beam_width=beam_width).read({"out": values}, 0).confidence <= 1


@pytest.mark.bench
@pytest.mark.parametrize("symbols", [23, 68])
@pytest.mark.parametrize("sharpness", [8.0, 1.0])
@pytest.mark.parametrize("beam_width", [1, 10])
def test_cost(symbols: int, sharpness: float, beam_width: int) -> None:
    outputs = {"out": random_steps(0, 18, symbols, sharpness)[None].astype(np.float32)}
    alphabet = [chr(65 + index) for index in range(symbols - 1)]
    read = CtcReader("out", alphabet, symbols_first=False, beam_width=beam_width)
    best_ms = min(_run_ms(read, outputs) for _ in range(50))
    print(f"{symbols} symbols, sharpness {sharpness:g}, width {beam_width}: {best_ms:.2f} ms a text")


def _run_ms(read: CtcReader, outputs: dict[str, NDArray[np.float32]]) -> float:
    started = time.perf_counter()
    read.read(outputs, 0)
    return (time.perf_counter() - started) * 1e3

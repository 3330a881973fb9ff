"""Moonshine's encoder and decoder through onnxruntime, its tokenizer file, and one decoding call.

Jeffries et al. 2024, arXiv 2410.15608: raw 16 kHz audio in, SentencePiece-like tokens out, two
frames' worth of attention over the whole stretch. Run directly rather than through the
moonshine-voice library, whose own VAD cuts sentences apart and which keeps token scores to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podtool.engines.beam_search import (
    Hypothesis,
    Scores,
    Work,
    finished,
    is_loop,
    log_softmax,
    searching,
)
from podtool.engines.onnx_session import open_session
from podtool.errors import ModelError

START, END = 1, 2
_SPACE = "\u2581"
TOKENS_PER_SECOND = 6.5  # more than anybody says; the bound of the reference implementation


def read_tokenizer(path: Path) -> list[bytes]:
    """The pieces of a tokenizer.bin: each a length (one byte, or two from 128 on) and its bytes."""
    raw = path.read_bytes()
    pieces: list[bytes] = []
    at = 0
    while at < len(raw):
        length = raw[at]
        at += 1
        if length >= 128:
            if at >= len(raw):
                break
            length = raw[at] * 128 + length - 128
            at += 1
        pieces.append(raw[at : at + length])
        at += length
    if at != len(raw) or len(pieces) < 3:
        raise ModelError(f"{path} is not a Moonshine tokenizer", "podtool models verify")
    return pieces


class MoonshineModel:
    """The two networks and the vocabulary; stateless between calls."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._encoder = open_session(folder / "encoder_model.ort", threads)
        self._decoder = open_session(folder / "decoder_model_merged.ort", threads)
        # Heads and their width differ between tiny and base; the file says which.
        self.past: dict[str, tuple[int, int]] = {
            i.name: (i.shape[1], i.shape[3])
            for i in self._decoder.get_inputs()
            if i.name.startswith("past_key_values")
        }
        self._outputs = [o.name for o in self._decoder.get_outputs()]
        self.pieces = read_tokenizer(folder / "tokenizer.bin")
        self.silent = np.array(
            [
                index != END and (piece.startswith(b"<<") or piece in (b"<unk>", b"<s>"))
                for index, piece in enumerate(self.pieces)
            ]
        )

    def encode(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        """16 kHz samples (views, n) -> (views, about n / 384, width)."""
        feed = {"input_values": views, "attention_mask": np.ones(views.shape, np.int64)}
        states: NDArray[np.float32] = self._encoder.run(None, feed)[0]
        return states

    def run(self, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """One call of the decoder; outputs by name."""
        outputs = self._decoder.run(None, feed)
        return dict(zip(self._outputs, outputs, strict=True))

    def decode(
        self, views: NDArray[np.float32], beam: int, alpha: float, longest: int | None = None
    ) -> list[Hypothesis]:
        """What is said in 16 kHz samples (views, n): hypotheses, best first.

        The views are the same speech, shifted: at each step the mean of their log-probabilities
        decides, which is an ensemble of one model.
        """
        return finished(self.decoding(views, beam, alpha, longest))

    def decoding(
        self, views: NDArray[np.float32], beam: int, alpha: float, longest: int | None = None
    ) -> Work[list[Hypothesis]]:
        """`decode` in pieces, of which each costs so many milliseconds (`cost_of_...`)."""
        samples = views.shape[1]
        states = self.encode(views)
        yield cost_of_hearing(samples) * len(views)
        decoding = _Decoding(self, states, samples)
        first = decoding.start([START])[-1]
        yield cost_of_tokens(1, samples)
        search = searching(first, decoding.step, END, beam, longest or _longest(samples), alpha)
        while True:
            try:
                yield cost_of_step(int(next(search)) * len(views), samples)
            except StopIteration as stop:
                found: list[Hypothesis] = stop.value
                return found

    def following(self, samples: NDArray[np.float32], guess: Sequence[int]) -> Work[Hypothesis]:
        """The likeliest token after each other in 16 kHz samples (n,), from what was heard before.

        In pieces, as `decoding`.

        `guess` are the tokens of an earlier, shorter hearing: all of them are looked at in one
        call, and those up to the first that is not the likeliest any more are kept.
        The guess saves time; it changes the result by no more than rounding does.
        """
        states = self.encode(samples[None])
        yield cost_of_hearing(len(samples))
        decoding = _Decoding(self, states, len(samples))
        scores = decoding.start([START, *guess])
        yield cost_of_tokens(1 + len(guess), len(samples))
        likeliest = scores.argmax(axis=-1)
        kept = next((i for i, t in enumerate(guess) if likeliest[i] != t), len(guess))
        decoding.forget(1 + kept)
        tokens, log_probs = list(guess[:kept]), [float(scores[i, t]) for i, t in enumerate(guess)]
        log_probs, now = log_probs[:kept], scores[kept]
        while True:
            token = int(now.argmax())
            log_probs.append(float(now[token]))
            if token == END or len(tokens) >= _longest(len(samples)) or is_loop([*tokens, token]):
                return Hypothesis(tuple(tokens), tuple(log_probs), sum(log_probs))
            tokens.append(token)
            now = decoding.step([token], [0])[0]
            yield cost_of_step(1, len(samples))

    def words(self, hypothesis: Hypothesis) -> list[tuple[str, float]]:
        """The written words of a hypothesis, each with its probability (mean over tokens)."""
        found: list[tuple[bytearray, list[float]]] = []
        space = _SPACE.encode()
        for token, log_prob in zip(hypothesis.tokens, hypothesis.log_probs, strict=False):
            piece = self.pieces[token]
            if piece.startswith(space) or not found:
                found.append((bytearray(), []))
            found[-1][0].extend(piece.replace(space, b""))
            found[-1][1].append(log_prob)
        words: list[tuple[str, float]] = []
        for raw, log_probs in found:
            text = raw.decode("utf-8", "replace").strip()
            if text:
                words.append((text, float(np.exp(np.mean(log_probs)))))
        return words


# What pieces of work cost in milliseconds, as measured on one core of a server of 2023. Whoever
# divides work by these and not by a clock does the same at the same moment everywhere.


def cost_of_hearing(samples: int) -> float:
    """The encoder, on so many samples at 16 kHz."""
    seconds = samples / 16000
    return 7.2 * seconds + 0.28 * seconds**2


def cost_of_tokens(tokens: int, samples: int) -> float:
    """The decoder, on so many tokens at once."""
    return 4.7 + 0.33 * tokens + 0.7 * samples / 16000


def cost_of_step(rows: int, samples: int) -> float:
    """The decoder, on one token of so many hypotheses."""
    return 3.0 + rows * (0.3 + 0.12 * samples / 16000)


def _longest(samples: int) -> int:
    return max(4, int(samples / 16000 * TOKENS_PER_SECOND))


class _Decoding:
    """The decoder on its way through one stretch, heard in one or more views."""

    def __init__(self, model: MoonshineModel, states: NDArray[np.float32], samples: int) -> None:
        self._model, self._states, self._samples = model, states, samples
        self._views = states.shape[0]
        self._past: dict[str, NDArray[np.float32]] = {}
        for name, (heads, width) in model.past.items():
            frames = 0 if ".decoder." in name else states.shape[1]
            self._past[name] = np.zeros((self._views, heads, frames, width), np.float32)
        self._feed: dict[str, NDArray[Any]] = {}

    def start(self, tokens: Sequence[int]) -> Scores:
        """The first tokens of one hypothesis -> log-probabilities after each, (tokens, words)."""
        ids = np.tile(np.array(tokens, np.int64), (self._views, 1))
        scores: Scores = self._run(ids, False)[0]
        return scores

    def step(self, tokens: Sequence[int], parents: Sequence[int]) -> Scores:
        """As `beam_search` wants it."""
        width = next(iter(self._past.values())).shape[0] // self._views
        rows = [view * width + parent for view in range(self._views) for parent in parents]
        for name, value in self._past.items():
            if ".decoder." in name or value.shape[0] != len(rows):
                self._past[name] = value[rows]
        ids = np.tile(np.array(tokens, np.int64), self._views)[:, None]
        scores: Scores = self._run(ids, True)[:, -1]
        return scores

    def forget(self, kept: int) -> None:
        """Go on after the first `kept` tokens."""
        for name, value in self._past.items():
            if ".decoder." in name:
                self._past[name] = np.ascontiguousarray(value[:, :, :kept])

    def _run(self, ids: NDArray[np.int64], cached: bool) -> Scores:
        """(views x hypotheses, n) tokens -> (hypotheses, n, words) log-probabilities."""
        rows, model = len(ids), self._model  # view by view, the hypotheses within
        if len(self._feed.get("encoder_hidden_states", ())) != rows:
            # The decoder thins this mask to the encoder's rate by itself: one per sample.
            self._feed["encoder_attention_mask"] = np.ones((rows, self._samples), np.int64)
            repeated = np.repeat(self._states, rows // self._views, axis=0)
            self._feed["encoder_hidden_states"] = repeated
        flag = {"use_cache_branch": np.array([cached])}
        found = model.run({**self._feed, **self._past, "input_ids": ids, **flag})
        for name in model.past:
            if not cached or ".decoder." in name:  # cross-attention keys come once
                self._past[name] = found[name.replace("past_key_values", "present")]
        logits = found["logits"].astype(np.float32)
        logits[..., model.silent] = -1e9
        scores = log_softmax(logits).reshape(self._views, -1, *logits.shape[1:])
        return scores[0] if self._views == 1 else log_softmax(scores.mean(axis=0))

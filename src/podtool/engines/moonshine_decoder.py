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

from podtool.engines.beam_search import Hypothesis, Scores, beam_search, log_softmax
from podtool.engines.onnx_session import open_session
from podtool.errors import ModelError

START, END = 1, 2
_HEADS, _HEAD_DIM = 8, 36
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
        self._past = [
            i.name for i in self._decoder.get_inputs() if i.name.startswith("past_key_values")
        ]
        self._outputs = [o.name for o in self._decoder.get_outputs()]
        self.pieces = read_tokenizer(folder / "tokenizer.bin")
        self._silent = np.array(
            [
                index != END and (piece.startswith(b"<<") or piece in (b"<unk>", b"<s>"))
                for index, piece in enumerate(self.pieces)
            ]
        )

    def encode(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        """16 kHz samples (views, n) -> (views, about n / 384, 288)."""
        feed = {"input_values": views, "attention_mask": np.ones(views.shape, np.int64)}
        states: NDArray[np.float32] = self._encoder.run(None, feed)[0]
        return states

    def decode(
        self, views: NDArray[np.float32], beam: int, alpha: float, longest: int | None = None
    ) -> list[Hypothesis]:
        """What is said in 16 kHz samples (views, n): hypotheses, best first.

        The views are the same speech, shifted: at each step the mean of their log-probabilities
        decides, which is an ensemble of one model.
        """
        count, samples = views.shape
        states = self.encode(views)
        if longest is None:
            longest = max(4, int(samples / 16000 * TOKENS_PER_SECOND))
        past: dict[str, NDArray[np.float32]] = {}
        for name in self._past:
            frames = 0 if ".decoder." in name else states.shape[1]
            past[name] = np.zeros((count, _HEADS, frames, _HEAD_DIM), np.float32)
        # The decoder thins this mask to the encoder's rate by itself: it wants one per sample.
        feed: dict[str, NDArray[Any]] = {
            "encoder_attention_mask": np.ones((count, samples), np.int64),
            "encoder_hidden_states": states,
        }

        def run(tokens: list[int], cached: bool) -> Scores:
            rows = len(tokens) * count  # view by view, the tokens of the beam within
            if feed["encoder_hidden_states"].shape[0] != rows:
                feed["encoder_hidden_states"] = np.repeat(states, len(tokens), axis=0)
                feed["encoder_attention_mask"] = np.ones((rows, samples), np.int64)
            inputs = {"input_ids": np.tile(np.array(tokens, np.int64), count)[:, None]}
            flag = {"use_cache_branch": np.array([cached])}
            outputs = self._decoder.run(None, {**feed, **past, **inputs, **flag})
            named = dict(zip(self._outputs, outputs, strict=True))
            for name in self._past:
                if not cached or ".decoder." in name:  # cross-attention keys come once
                    past[name] = named[name.replace("past_key_values", "present")]
            logits = named["logits"][:, -1].astype(np.float32)
            logits[:, self._silent] = -1e9
            scores = log_softmax(logits).reshape(count, len(tokens), -1)
            return scores[0] if count == 1 else log_softmax(scores.mean(axis=0))

        def step(tokens: Sequence[int], parents: Sequence[int]) -> Scores:
            width = next(v.shape[0] for v in past.values()) // count
            rows = [view * width + parent for view in range(count) for parent in parents]
            for name, value in past.items():
                if ".decoder." in name:
                    past[name] = value[rows]
                elif value.shape[0] != len(rows):
                    past[name] = value[rows]
            return run(list(tokens), cached=True)

        return beam_search(run([START], False)[0], step, END, beam, longest, alpha)

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

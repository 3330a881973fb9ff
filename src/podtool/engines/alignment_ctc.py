"""Forced alignment with wav2vec2 and MMS models that were trained with CTC: many languages.

Baevski et al. 2020 (arXiv 2006.11477), Pratap et al. 2023 (arXiv 2305.13516), through transformers.
The model is a folder (config.json, vocab.json, model.safetensors) or the name of a hub repository
that is already in the hub's cache: nothing is fetched from here, and pickled weights are not read.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Word
from podtool.audio import Audio
from podtool.engines.ctc_lattice import ANY, best_path
from podtool.engines.hugging_face import classes
from podtool.engines.local_models import model_folder
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.engines.readings import filled
from podtool.errors import EngineFailure, ModelError
from podtool.text import spoken_words

DEFAULT_MODEL = "facebook/wav2vec2-base-960h"  # Apache-2.0, English
NEEDED = ("config.json", "vocab.json", "*.safetensors")
RATE = 16000
SHORTEST_S = 0.05
# ISO 639-3 codes, by which MMS names its adapters, of what podcasts are mostly in.
ADAPTERS = {
    "ar": "ara", "bg": "bul", "bn": "ben", "ca": "cat", "cs": "ces", "da": "dan", "de": "deu",
    "el": "ell", "en": "eng", "es": "spa", "et": "est", "fa": "fas", "fi": "fin", "fr": "fra",
    "he": "heb", "hi": "hin", "hr": "hrv", "hu": "hun", "id": "ind", "it": "ita", "ja": "jpn",
    "ko": "kor", "lt": "lit", "lv": "lav", "nl": "nld", "no": "nob", "pl": "pol", "pt": "por",
    "ro": "ron", "ru": "rus", "sk": "slk", "sl": "slv", "sr": "srp", "sv": "swe", "ta": "tam",
    "th": "tha", "tr": "tur", "uk": "ukr", "ur": "urd", "vi": "vie", "zh": "cmn",
}  # fmt: skip


class CtcAligner:
    """The likeliest path of the written letters; the score of a word is their mean probability."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="ctc",
        stage="alignment",
        version="1",
        licence="Apache-2.0",
        tier="best",
        sample_rate=RATE,
        window_s=60.0,
        runtimes=("cuda", "mps", "cpu"),
        packages=("torch", "transformers", "safetensors"),
        install="pip install 'podtool[ctc]'",
        options=("model", "language"),
    )

    def __init__(
        self, network: Any, letters: Mapping[str, int], blank: int, normalise: bool, language: str
    ) -> None:
        self._network = network
        self._letters = letters
        self._blank = blank
        self._normalise = normalise
        self._english = language == "en"
        self._gap = letters.get("|", letters.get(" "))
        if language:
            self.info = replace(type(self).info, languages=(language,))  # type: ignore[misc]

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Options: `model` (folder or hub repository), `language` (a BCP 47 tag).

        The default model is English. Of another model the language says which of its adapters is
        used (MMS) and, if English, that digits may be spelled out. Raises ModelError where the
        model is not on this machine or is none, EngineUnavailableError without the packages.
        """
        folder = cls.locate(context)
        options = context.options or {}
        language = options.get("language", "").split("-")[0].lower()
        if folder.name.endswith("wav2vec2-base-960h") or "model" not in options:
            language = "en"
        vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
        adapter = None
        if any(isinstance(v, dict) for v in vocabulary.values()):
            adapter = ADAPTERS.get(language, language)
            if adapter not in vocabulary:
                raise ModelError(
                    f"{folder} has no adapter for the language {language or '(none is given)'}",
                    "Give --language; MMS knows " + ", ".join(sorted(vocabulary)[:8]) + ", ...",
                )
            vocabulary = vocabulary[adapter]
        network = _network(folder, adapter, context)
        blank = network.config.pad_token_id
        if not isinstance(blank, int) or network.config.vocab_size != len(vocabulary):
            raise ModelError(f"{folder}: vocab.json is not that of the weights")
        return cls(network, vocabulary, blank, _normalises(folder), language)

    @staticmethod
    def locate(context: EngineContext) -> Path:
        """Where the model is; nothing is imported. Raises ModelError where it is not here."""
        return model_folder(context, DEFAULT_MODEL, NEEDED, "a wav2vec2 model with letters")

    def align(self, audio: Audio, words: list[str]) -> list[Word]:
        """Mono audio at 16 kHz and the written words in it -> as many words, with times.

        A word of which the model writes no letter (digits in a language that is not English, a
        foreign script) is placed as any sound and marked `interpolated`, without a score; so are
        words without a sound, and all where the audio is shorter than the text.
        Raises EngineFailure where torch fails.
        """
        if not words:
            return []
        spelled = [self._spelled(w) for w in words]
        tokens: list[int] = []
        places: list[tuple[int, int]] = []
        for letters in spelled:
            if letters and tokens and self._gap is not None:
                tokens.append(self._gap)
            places.append((len(tokens), len(tokens) + len(letters)))
            tokens += letters
        samples = audio.samples.mean(axis=0, dtype=np.float32)
        if not tokens or audio.duration < SHORTEST_S or not samples.any():
            return filled(words, [None] * len(words), audio.duration)
        log_probs = self._log_probs(samples)
        placed = best_path(log_probs, tokens, self._blank)
        if placed is None:
            return filled(words, [None] * len(words), audio.duration)
        frame_s = audio.duration / len(log_probs)
        found: list[Word | None] = []
        for word, letters, (first, stop) in zip(words, spelled, places, strict=True):
            own = placed[first:stop]
            if not own:
                found.append(None)
                continue
            start, end = own[0].first * frame_s, min(own[-1].end * frame_s, audio.duration)
            if ANY in letters:
                found.append(Word(word, start, end, None, True))
            else:
                mean = sum(p.log_prob for p in own) / len(own)
                found.append(Word(word, start, end, round(math.exp(mean), 4)))
        return filled(words, found, audio.duration)

    def _spelled(self, word: str) -> list[int]:
        """The model's letters of a word; `ANY` for one that it cannot write, none without sound."""
        if not any(c.isalnum() for c in word):
            return []
        if any(c.isdigit() for c in word):
            if not self._english:
                return [ANY]
            word = "".join(spoken_words(word))
        letters: list[int] = []
        for character in word.replace("\u2019", "'"):
            for form in (character, character.lower(), character.upper(), _plain(character)):
                if form in self._letters and form not in "| ":
                    letters.append(self._letters[form])
                    break
        return letters or [ANY]

    def _log_probs(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        if self._normalise:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        try:
            with torch.inference_mode():
                heard = torch.from_numpy(samples)[None].to(self._network.device)
                logits = self._network(heard).logits[0].float()
                found = torch.log_softmax(logits, dim=-1).cpu().numpy()
        except RuntimeError as error:
            raise EngineFailure(
                f"the ctc aligner failed on {len(samples) / RATE:.1f} s of audio: {error}"
            ) from error
        return np.asarray(found, np.float32)


def _plain(character: str) -> str:
    """The letter without its marks: e for an e with an accent."""
    return unicodedata.normalize("NFKD", character)[0].lower()


def _normalises(folder: Path) -> bool:
    path = folder / "preprocessor_config.json"
    told = json.loads(path.read_text("utf-8")).get("do_normalize") if path.is_file() else None
    return told is not False


def _network(folder: Path, adapter: str | None, context: EngineContext) -> Any:
    [ctc] = classes("the ctc aligner", CtcAligner.info.install, "Wav2Vec2ForCTC")
    more: dict[str, Any] = {}
    if adapter is not None:
        more = {"target_lang": adapter, "ignore_mismatched_sizes": True}
    try:
        network = ctc.from_pretrained(folder, local_files_only=True, use_safetensors=True, **more)
    except Exception as error:
        raise ModelError(f"{folder} is not a wav2vec2 model with letters: {error}") from None
    device = context.torch_device
    return network.to(device).eval()

"""Utterances spoken anew into their slots, in a speaking engine's voice turned into the one wanted.

The speaking engine says the text and fits it into the slot; the conversion engine then gives it the
voice of the profile, as it does with turns. The map from the engine's own voice to the profile is
fitted on a fixed passage, so that a take depends on its own text alone.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from podtool import provenance
from podtool.artifacts import Recording, Row, Take, Turn, Utterance, Voice
from podtool.audio import Audio, AudioSource, blocks, sha256_of
from podtool.engines import engine_class, load
from podtool.engines.local_models import content_of_model
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ConfigError, EngineFailure, EngineUnavailableError, ModelError
from podtool.keys import Components, content_of, key_of, row_seed
from podtool.pipeline import engine_info, take_id
from podtool.progress import OnProgress, Progress, Timings, ignore
from podtool.rowio import of_kind
from podtool.rundir.takepool import TakePool
from podtool.segments import Span
from podtool.stages.convert import analyse_speaker, convert
from podtool.stages.retakes import Ear, careful
from podtool.stages.speak import SpeakParams, SpokenTake, drafts, fit, slots

log = logging.getLogger(__name__)

# The North Wind and the Sun (Aesop), the phoneticians' passage: every sound of English is in it.
PASSAGE = (
    "The North Wind and the Sun were disputing which was the stronger, when a traveller came along "
    "wrapped in a warm cloak.",
    "They agreed that the one who first succeeded in making the traveller take his cloak off "
    "should be considered stronger than the other.",
    "Then the North Wind blew as hard as he could, but the more he blew the more closely did the "
    "traveller fold his cloak around him, and at last the North Wind gave up the attempt.",
    "Then the Sun shone out warmly, and immediately the traveller took off his cloak.",
    "And so the North Wind was obliged to confess that the Sun was the stronger of the two.",
)


def speak_key(
    recording: Recording,
    rows: Sequence[Row],
    voices: Mapping[str, Voice],
    context: EngineContext,
    params: SpeakParams,
    seed: int = 0,
) -> Components:
    """What spoken takes depend on; `voices`: speaker label -> voice."""
    speaking = engine_info("speaking", params.engine, _with_options(context, params))
    infos = {
        "speaking": speaking,
        **_ears(speaking, context, params),
        "conversion": engine_info("conversion", "auto", context),
        "embedding": engine_info("embedding", "campplus", context),
    }
    inputs = {
        "recording": recording.sha256,
        "turns": content_of(of_kind(rows, Turn)),
        "utterances": content_of(of_kind(rows, Utterance)),
    }
    inputs |= {f"voice of {label}": v.sha256 for label, v in sorted(voices.items())}
    settings = {**dataclasses.asdict(params), "method": "speak"}
    if params.model is not None:
        settings["model"] = content_of_model(context, params.model)
    if params.voice is not None and Path(params.voice).expanduser().is_file():
        settings["voice"] = sha256_of(Path(params.voice).expanduser())
    return provenance.components("synthesize", context, infos, settings, inputs, seed)


def refused(rows: Sequence[Row], speakers: Sequence[str], params: SpeakParams) -> list[Utterance]:
    """The utterances of those speakers that are too doubtful to be spoken."""
    own = [u for u in of_kind(rows, Utterance) if u.speaker in speakers]
    return drafts(own, params)


def speak_takes(
    audio: AudioSource,
    recording: Recording,
    rows: Sequence[Row],
    voices: Mapping[str, Voice],
    context: EngineContext,
    params: SpeakParams,
    out_dir: Path,
    pool: TakePool,
    timings: Timings | None = None,
    on_progress: OnProgress = ignore,
    seed: int = 0,
    on_take: Callable[[str, str], None] | None = None,
) -> list[Row]:
    """Every utterance of the speakers in `voices` (label -> voice) as a take in that voice.

    A take covers its slot and what it borrowed, padded with silence, so that the original speech is
    replaced whole. Takes that `pool` has are not made again. Utterances in `refused` are left out.
    Rows: provenance, takes in order of time; the WAVs lie in `out_dir`.
    """
    timings = timings if timings is not None else Timings()
    made_by = speak_key(recording, rows, voices, context, params, seed)
    with timings.part("load"):
        speaking = speaking_engine(context, params)
    turns = of_kind(rows, Turn)
    length_s = audio.frames / audio.sample_rate
    wanted = [u for u in of_kind(rows, Utterance) if u.speaker in voices and u.text.strip()]
    takes: list[Take] = []
    for label, voice in voices.items():
        own = [u for u in wanted if u.speaker == label]
        left_out = {u.id for u in drafts(own, params)}
        disguise: _Disguise | None = None
        for utterance, slot in zip(own, slots(own, turns, length_s, params), strict=True):
            if utterance.id in left_out:
                continue
            key = key_of(
                {
                    "engines": made_by["engines"],
                    "models": made_by["models"],
                    "params": made_by["params"],
                    "rate": audio.sample_rate,
                    "text": utterance.text,
                    "slot": [round(x, 6) for x in dataclasses.astuple(slot)],
                    "voice": voice.sha256,
                    "seed": row_seed(seed, utterance.id),
                }
            )
            finished = pool.get(key)
            if finished is None:
                if disguise is None:
                    with timings.part("analysis"):
                        disguise = _Disguise(speaking, voice, context, seed)
                with timings.part("speaking"):
                    said = fit(
                        utterance, slot, speaking, params, audio.sample_rate,
                        row_seed(seed, utterance.id),
                    )  # fmt: skip
                with timings.part("conversion"):
                    covered, sound, checks = disguise.take(said, utterance, audio)
                facts: dict[str, Any] = {
                    "checks": checks,
                    "start": covered.start,
                    "end": covered.end,
                    "tempo": said.tempo,
                    "fits": said.fits,
                }
                finished = pool.put(key, (b for _, b in blocks(sound)), facts)
                if on_take is not None:
                    on_take(take_id(utterance.id), key)
            path = out_dir / f"{take_id(utterance.id)}.wav"
            pool.copy_to(finished, path)
            facts = finished.facts
            start, end = float(facts["start"]), float(facts["end"])
            takes.append(
                Take(
                    id=take_id(utterance.id),
                    recording=recording.id,
                    speaker=label,
                    voice=voice.id,
                    method="speak",
                    path=str(path.absolute()),
                    sha256=finished.sha256,
                    sample_rate=audio.sample_rate,
                    channels=1,
                    frames=round(end * audio.sample_rate) - round(start * audio.sample_rate),
                    start=start,
                    end=end,
                    seed=row_seed(seed, utterance.id),
                    turn=utterance.turn,
                    utterance=utterance.id,
                    text=utterance.text,
                    tempo=float(facts["tempo"]),
                    fits=bool(facts["fits"]),
                    checks=dict(facts["checks"]),
                )
            )
            on_progress(Progress("speak", len(takes), len(wanted), "utterances"))
    takes.sort(key=lambda t: (t.start, t.end, t.id))
    return [provenance.provenance(made_by, context.incidents), *takes]


class _Disguise:
    """Turns what the speaking engine says into a voice, and scores the result."""

    def __init__(self, speaking: Any, voice: Voice, context: EngineContext, seed: int) -> None:
        from podtool.engines.world_profile import SpeechProfile

        said = [b for text in PASSAGE for b in speaking.speak(text, 1.0, seed)]
        if not said:
            raise EngineFailure(f"the speaking engine {speaking.info.name} says nothing")
        passage = Audio(np.concatenate([b.samples for b in said], axis=1), said[0].sample_rate)
        self.engine = load("conversion", voice.engine, context)
        self.embedder = load("embedding", "campplus", context)
        own = analyse_speaker(passage, [Span(0.0, passage.duration)], self.engine)
        self.map = self.engine.voice_map(own, SpeechProfile.load(Path(voice.path)))
        self.target = None
        if voice.embedding is not None and voice.embedding.model == self.embedder.info.name:
            self.target = np.asarray(voice.embedding.vector, np.float32)

    def take(
        self, said: SpokenTake, utterance: Utterance, audio: AudioSource
    ) -> tuple[Span, AudioSource, dict[str, float]]:
        """(what it covers of the recording, mono audio of just that length, checks)."""
        rate = audio.sample_rate
        first = round(min(said.start, utterance.start) * rate)
        stop = round(max(said.start + said.audio.duration, utterance.end) * rate)
        stop = min(stop, max(audio.frames, first + 1))
        samples = np.zeros((1, stop - first), np.float32)
        at = round(said.start * rate) - first
        piece = said.audio.samples[:1, : stop - first - at]
        samples[:, at : at + piece.shape[1]] = piece
        plain = Audio(samples, rate)
        whole = Turn("t0001", utterance.recording, 0.0, plain.frames / rate, "S1")
        done = next(
            convert(plain, [whole], self.engine, self.map, None, self.embedder, self.target)
        )
        checks = {k: v for k, v in done.checks.items() if "drift" not in k}
        checks |= {
            "first_word_drift_ms": said.first_word_drift_ms,
            "last_word_drift_ms": said.last_word_drift_ms,
            "stretch": said.stretch,
            "borrowed_s": said.borrowed_s,
        }
        if said.word_error is not None:
            checks["word_error"] = round(said.word_error, 4)
        return Span(first / rate, stop / rate), done.audio, checks


def say(
    text: str,
    voice: Voice | None,
    context: EngineContext,
    seed: int = 0,
    params: SpeakParams | None = None,
) -> Audio:
    """Text -> mono audio at the speaking engine's rate and pace, in a voice where one is given."""
    speaking = speaking_engine(context, params or SpeakParams())
    said = list(speaking.speak(text, 1.0, seed))
    if not said:
        raise EngineFailure(f"the speaking engine {speaking.info.name} says nothing")
    plain = Audio(np.concatenate([b.samples for b in said], axis=1), said[0].sample_rate)
    if voice is None:
        return plain
    disguise = _Disguise(speaking, voice, context, seed)
    converted: Audio = disguise.engine.convert(plain, disguise.map)
    return converted


def speaking_engine(context: EngineContext, params: SpeakParams) -> Any:
    """The speaking engine, with somebody who listens where it says things differently each time.

    Raises ConfigError for a setting that the engine does not know, and as `load` does.
    """
    engine = load("speaking", params.engine, _with_options(context, params))
    heard_by = _ears(engine.info, context, params)
    ear = None
    if "transcription" in heard_by:
        loaded = {stage: load(stage, info.name, context) for stage, info in heard_by.items()}
        ear = Ear(loaded["transcription"], loaded.get("alignment"))
    return careful(engine, ear, params.attempts, params.good_word_error)


def _with_options(context: EngineContext, params: SpeakParams) -> EngineContext:
    """The context with what the settings say to the speaking engine."""
    wanted = {"model": params.model, "voice": params.voice}
    if params.language != "en":
        wanted["language"] = params.language
    given = {k: v for k, v in wanted.items() if v}
    if params.engine != "auto":
        info = engine_class("speaking", params.engine).info
        for option in given:
            if option not in info.options:
                raise ConfigError(
                    f"the speaking engine {params.engine} takes no {option}",
                    f"It takes: {', '.join(info.options) or 'none'}",
                )
    return replace(context, options={**(context.options or {}), **given})


def _ears(
    speaking: EngineInfo, context: EngineContext, params: SpeakParams
) -> dict[str, EngineInfo]:
    """Stage -> the engines that listen to what the speaking engine says; none where another seed
    would change nothing, or where none here knows the language."""
    found: dict[str, EngineInfo] = {}
    if not speaking.seeded or params.listener == "none":
        return found
    for stage, name in (("transcription", params.listener), ("alignment", "auto")):
        try:
            info = engine_info(stage, name, context)
        except (EngineUnavailableError, ModelError) as error:
            log.warning("%s: takes are not checked (%s)", stage, error.message)
            break
        if info.languages and params.language not in info.languages:
            log.warning("%s: %s does not know %r", stage, info.name, params.language)
            break
        found[stage] = info
    return found

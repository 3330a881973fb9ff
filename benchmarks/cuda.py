#!/usr/bin/env python3
"""Speed and memory of the networks behind podtool's engines on an NVIDIA GPU.

usage: cuda.py [--device cuda|cpu] [--tiny] [--seconds S] [--only NAME]...

The real architectures at their real sizes, with random weights where none come with podtool:
weights change neither speed nor memory, and nothing has to be fetched. Each case is loaded alone,
as `replace` loads engines one at a time, warmed up, then timed; it prints its real-time factor (the
median of the rounds) and the most memory that torch held meanwhile, loading included: `allocated`
is what the network needed, `reserved` what its allocator took from the card. The CUDA context, some
hundred MB, comes on top of it. A case that does not run here prints `skipped`, and why.

What differs from a user's run: demucs, ctc, qwen3, nemotron and knn-vc are podtool's engines, each
around such a network. CSM is asked as its engine asks, by numbers in place of a text, and codes
that its codec does not have are replaced. Whisper is that of transformers in half precision, where
podtool has CTranslate2's. podtool's own separators are the torch form, on the GPU in training only:
the engines run their ONNX form on the CPU.

--tiny shrinks all networks, to try the script itself; its figures mean nothing. Once --seconds are
over, or nearly so for the cases that take long, what has not begun is skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from harness import ROOT, say

BEGAN = time.perf_counter()  # torch and transformers are loaded later, and count
RATE = 16000
LIMIT_MB = 20_000.0  # what all of `replace` is to stay under
ENOUGH_S = 1.0  # of rounds of one case
ROUNDS = 5
NEEDS_S = {"whisper-turbo": 12.0, "csm": 7.0}  # that are to be left; the first leaves the last some
CSM_S = 5.0  # of saying something
CSM_TAKE_S, CSM_FRAMES_S = 10.0, 12.5
LETTERS = "abcdefghijklmnopqrstuvwxyz'"


@dataclass(frozen=True, slots=True)
class Place:
    """Where networks are built, and how large."""

    device: str
    tiny: bool
    deadline: float

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def length(self, seconds: float) -> float:
        return min(seconds, 2.0) if self.tiny else seconds

    def left(self) -> float:
        return self.deadline - time.perf_counter()

    def sync(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()

    @contextlib.contextmanager
    def building(self, precision: Any = None) -> Iterator[None]:
        """New tensors lie on the device in this precision; the CPU has the full one."""
        import torch

        before = torch.get_default_dtype()
        torch.set_default_dtype(precision if precision is not None and self.on_gpu else before)
        try:
            with torch.device(self.device):
                yield
        finally:
            torch.set_default_dtype(before)


@dataclass(frozen=True, slots=True)
class Ready:
    """A network that is loaded: what is timed, and for how much audio."""

    run: Callable[[], object]
    seconds: float
    about: str
    warm: bool = False
    rounds: int = ROUNDS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--only", action="append", choices=[*CASES])
    given = parser.parse_args()
    import torch

    torch.manual_seed(0)
    if given.device == "cuda":
        if not torch.cuda.is_available():
            sys.exit("torch finds no NVIDIA GPU here")
        card = torch.cuda.get_device_properties(0)
        about = f"{card.name}, torch {torch.__version__}, transformers {version('transformers')}"
        say("gpu_memory", card.total_memory / 1e6, "MB", about)
    place = Place(given.device, given.tiny, BEGAN + given.seconds)
    peaks: dict[str, tuple[float, float]] = {}
    for name in given.only or CASES:
        if place.left() <= (0 if given.tiny else NEEDS_S.get(name, 0)):
            skipped(name, f"too little was left of {given.seconds:g} s")
            continue
        try:
            peaks[name] = measure(name, place)
        except Exception as error:
            skipped(name, f"{type(error).__name__}: {(str(error) or '-').splitlines()[0][:300]}")
    release(place)
    if peaks and place.on_gpu:
        for k, what in enumerate(("allocated", "reserved")):
            worst = max(peaks, key=lambda name: peaks[name][k])
            say("peak_memory_worst", peaks[worst][k], "MB", f"{what}: {worst}", n=len(peaks))
            share = peaks[worst][k] / LIMIT_MB
            say("peak_memory_share", share, "share", f"{what}: of {LIMIT_MB / 1000:g} GB")
        together = sum(reserved for _, reserved in peaks.values())
        say(
            "peak_memory_together", together, "MB", "reserved, were all there at once", n=len(peaks)
        )
    say("benchmark_time", time.perf_counter() - BEGAN, "s")


def measure(name: str, place: Place) -> tuple[float, float]:
    """Print the figures of one case; the MB allocated and reserved for it, none on a CPU."""
    import torch

    release(place)
    began = time.perf_counter()
    with torch.no_grad():
        ready = CASES[name](place)
    place.sync()
    loaded = time.perf_counter()
    with torch.inference_mode():
        if not ready.warm:
            ready.run()
            place.sync()
        took: list[float] = []
        while len(took) < ready.rounds and sum(took) < ENOUGH_S:
            start = time.perf_counter()
            ready.run()
            place.sync()
            took.append(time.perf_counter() - start)
    subject = f"{name}: {ready.about}"
    say("rtf", statistics.median(took) / ready.seconds, "x real time", subject, n=len(took))
    say("load_random", loaded - began, "s", name)
    if not place.on_gpu:
        return 0.0, 0.0
    allocated = torch.cuda.max_memory_allocated() / 1e6
    reserved = torch.cuda.max_memory_reserved() / 1e6
    say("peak_memory", allocated, "MB", f"{name}: allocated")
    say("peak_memory", reserved, "MB", f"{name}: reserved")
    return allocated, reserved


def release(place: Place) -> None:
    gc.collect()
    if place.on_gpu:
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def skipped(name: str, reason: str) -> None:
    say("skipped", 1, "cases", f"{name}: {reason}")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def noise(seconds: float, rate: int = RATE, channels: int = 1) -> Any:
    """Audio in which something is heard at all times."""
    from podtool.audio import Audio

    shape = (channels, round(seconds * rate))
    samples = np.random.default_rng(0).normal(0, 0.05, shape)
    return Audio(samples.astype(np.float32), rate)


def transformers(*names: str) -> list[Any]:
    from podtool.engines.hugging_face import classes

    return classes("this network", "pip install transformers", *names)


# ---------------------------------------------------------------- podtool's own separators


def separator(place: Place, name: str) -> Any:
    """With its own weights, which are small: also where all is to be tiny."""
    from podtool.engines.separation_podtool_model import load

    weights = ROOT / "src" / "podtool" / "store" / "weights" / f"{name}.safetensors"
    return load(weights).to(place.device)


def windowed(place: Place, name: str, count: int, window_s: float, overlap_s: float) -> Ready:
    """A minute in the windows of the stage, one after the other."""
    import torch

    from podtool.dsp import window_starts
    from podtool.engines.separation_podtool_model import separate

    network = separator(place, name)
    seconds = place.length(60.0)
    samples = torch.from_numpy(noise(seconds).samples)
    frames = samples.shape[1]
    window = min(frames, round(window_s * RATE))
    shared = min(round(overlap_s * RATE), window // 2)
    starts = [*window_starts(frames, window, window - shared)]
    counts = torch.tensor([count], device=place.device)

    def run() -> None:
        for start in starts:
            piece = samples[:, start : start + window].to(place.device)
            separate(network, piece, counts).cpu()

    return Ready(run, seconds, f"{seconds:g} s in windows of {window / RATE:g} s")


def background(place: Place) -> Ready:
    return windowed(place, "background", 1, 24.0, 2.0)


def talkers(place: Place) -> Ready:
    return windowed(place, "talkers", 2, 12.0, 0.5)


def talkers_streaming(place: Place) -> Ready:
    """Block by block with its memory, as a live session has it."""
    import torch

    from podtool.engines.separation_podtool_model import apply_masks, to_samples, to_spectrum

    network = separator(place, "talkers-streaming")
    p = network.params
    seconds, block = place.length(60.0), 6
    samples = torch.from_numpy(noise(seconds).samples)
    samples = samples[:, : samples.shape[1] // p.hop * p.hop].to(place.device)
    spectrum = to_spectrum(samples, p)
    counts = torch.tensor([2], device=place.device)

    def run(blocks: int | None = None) -> None:
        state = None
        for at in range(0, spectrum.shape[1] if blocks is None else blocks * block, block):
            piece = spectrum[:, at : at + block]
            masks, state = network(piece, counts, state)
            to_samples(apply_masks(masks, piece), p).cpu()

    run(4)
    about = f"{seconds:g} s in blocks of {block * p.hop / RATE * 1000:.0f} ms"
    return Ready(run, seconds, about, warm=True, rounds=1)


# ---------------------------------------------------------------- Whisper


def whisper(place: Place, decoder_layers: int, beams: int) -> Ready:
    """As many windows at once as podtool reads on CUDA."""
    import torch

    config, network_of = transformers("WhisperConfig", "WhisperForConditionalGeneration")
    sizes: dict[str, Any] = {
        "d_model": 1280, "encoder_layers": 32, "decoder_layers": decoder_layers,
        "encoder_attention_heads": 20, "decoder_attention_heads": 20,
        "encoder_ffn_dim": 5120, "decoder_ffn_dim": 5120,
    }  # fmt: skip
    windows, tokens = 16, 100
    if place.tiny:
        sizes = {
            "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        }  # fmt: skip
        windows, tokens = 2, 5
    with place.building(torch.float16):
        made = config(**sizes, num_mel_bins=128, vocab_size=51866)
        network = network_of(made).to(place.device).eval()
        mel = torch.randn(windows, 128, 3000) * 0.5

    def run(count: int = tokens) -> None:
        # Random weights would stop anywhere.
        found = network.generate(
            input_features=mel,
            min_new_tokens=count,
            max_new_tokens=count,
            num_beams=beams,
            do_sample=False,
        )
        assert isinstance(found, torch.Tensor) and found.shape[1] >= count, "too few tokens"
        found.cpu()

    run(4)
    about = f"{windows} windows of 30 s, {tokens} tokens each, beams {beams}"
    return Ready(run, 30.0 * windows, about, warm=True, rounds=2)


def whisper_large_v3(place: Place) -> Ready:
    return whisper(place, 32, 1)


def whisper_turbo(place: Place) -> Ready:
    return whisper(place, 4, 5)


# ---------------------------------------------------------------- alignment


def ctc(place: Place, **sizes: Any) -> Ready:
    from podtool.engines.alignment_ctc import CtcAligner

    config, network_of = transformers("Wav2Vec2Config", "Wav2Vec2ForCTC")
    if place.tiny:
        sizes |= {
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "conv_dim": (16,) * 7,
        }  # fmt: skip
    letters = {c: n for n, c in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS])}
    with place.building():
        made = config(**sizes, vocab_size=len(letters), pad_token_id=0)
        network = network_of(made).to(place.device).eval()
    engine = CtcAligner(network, letters, 0, True, "en")
    seconds = place.length(engine.info.window_s or 60.0)
    audio, words = noise(seconds), ["episode"] * round(2.5 * seconds)

    def run() -> None:
        assert len(engine.align(audio, words)) == len(words)

    about = f"{seconds:g} s at once, {len(words)} words, with the lattice on the CPU"
    return Ready(run, seconds, about)


STABLE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096,
}  # fmt: skip


def ctc_base(place: Place) -> Ready:
    return ctc(place)


def ctc_large(place: Place) -> Ready:
    return ctc(place, **LARGE, **STABLE)


def ctc_mms_1b(place: Place) -> Ready:
    sizes = {"num_hidden_layers": 48, "num_attention_heads": 16, "intermediate_size": 5120}
    return ctc(place, hidden_size=1280, adapter_attn_dim=16, **sizes, **STABLE)


QWEN_SPECIAL = {
    "audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}  # fmt: skip
QWEN_TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}<timestamp><timestamp>"
    "{% else %}<|audio_start|><|audio_pad|><|audio_end|>{% endif %}{% endfor %}{% endfor %}"
)


def qwen3_aligner(place: Place) -> Ready:
    """Its tokens are letters here, so words of two stand for those of one or two tokens."""
    import torch

    from podtool.engines.alignment_qwen3 import Qwen3Aligner

    config, network_of, extractor_of, processor_of, tokenizer_of = transformers(
        "Qwen3ASRConfig",
        "Qwen3ASRForTokenClassification",
        "Qwen3ASRFeatureExtractor",
        "Qwen3ASRProcessor",
        "PreTrainedTokenizerFast",
    )
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    raw = Tokenizer(
        BPE(vocab={c: n for n, c in enumerate(sorted(ByteLevel.alphabet()))}, merges=[])
    )
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.decoder = Decoder()
    special = [*QWEN_SPECIAL.values(), "<timestamp>", "<|endoftext|>"]
    raw.add_special_tokens([AddedToken(t, special=True) for t in special])
    tokenizer = tokenizer_of(
        tokenizer_object=raw,
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        extra_special_tokens=QWEN_SPECIAL,
    )
    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in special}
    hears: dict[str, Any] = {"output_dim": 1024}  # beside that as it is by default
    speaks: dict[str, Any] = {
        "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    }  # fmt: skip
    if place.tiny:
        hears = {
            "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
            "d_model": 16, "output_dim": 32, "downsample_hidden_size": 8,
        }  # fmt: skip
        speaks = {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        }  # fmt: skip
    with place.building(torch.bfloat16):
        made = config(
            audio_config={"model_type": "qwen3_asr_encoder", **hears},
            text_config={
                "model_type": "qwen3", **speaks, "vocab_size": 152064,
                "max_position_embeddings": 65536, "tie_word_embeddings": True,
            },
            audio_token_id=ids["<|audio_pad|>"],
            timestamp_token_id=ids["<timestamp>"],
            pad_token_id=ids["<|endoftext|>"],
            eos_token_id=ids["<|endoftext|>"],
            num_labels=5000,
        )  # fmt: skip
        network = network_of(made).to(place.device).eval()
    processor = processor_of(extractor_of(feature_size=128), tokenizer, chat_template=QWEN_TEMPLATE)
    engine = Qwen3Aligner(network, processor)
    seconds = place.length(engine.info.window_s or 180.0)
    audio, words = noise(seconds), ["so"] * round(2.5 * seconds)

    def run() -> None:
        assert len(engine.align(audio, words)) == len(words)

    return Ready(run, seconds, f"{seconds:g} s at once, {len(words)} words")


# ---------------------------------------------------------------- who speaks when


def nemotron(place: Place) -> Ready:
    from podtool.engines.diarization_nemotron import Nemotron

    config, network_of, processor_of = transformers(
        "Nemotron3DiarizationConfig",
        "Nemotron3DiarizationForAudioFrameClassification",
        "Nemotron3DiarizationProcessor",
    )
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING

    sizes: dict[str, Any] = {}
    if place.tiny:
        small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        sizes = {
            "audio_config": {**small, "num_attention_heads": 2},
            "head_config": {"hidden_size": 8, "audio_hidden_size": 16},
        }
    with place.building():
        network = network_of(config(**sizes)).to(place.device).eval()
    extractor = FEATURE_EXTRACTOR_MAPPING[config]
    engine = Nemotron(network, processor_of(extractor(feature_size=128)))
    seconds = place.length(600.0)
    audio = noise(seconds)
    return Ready(lambda: engine.diarize(audio, 1, 8), seconds, f"{seconds:g} s at once", rounds=2)


# ---------------------------------------------------------------- voices


def knn_vc(place: Place) -> Ready:
    """Turns of 20 s, in a voice of which five minutes are known."""
    import torch

    from podtool.engines.voice_knn import LAYER, Knn, KnnMap
    from podtool.engines.world_frames import BANDS

    config, network_of = transformers("WavLMConfig", "WavLMModel")
    sizes: dict[str, Any] = {**LARGE, "num_hidden_layers": LAYER}
    channels = 512
    if place.tiny:
        sizes |= {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
        sizes["conv_dim"] = (16,) * 7
        channels = 32
    seconds = place.length(60.0)
    with place.building():
        made = config(
            **sizes, feat_extract_norm="layer", do_stable_layer_norm=True, num_buckets=320
        )
        encoder = network_of(made).to(place.device).eval()
        vocoder = hifi_gan_weights(made.hidden_size, channels)
        sounds = torch.randn(round(place.length(300.0) * 50), made.hidden_size)
    engine = Knn(encoder, vocoder, place.device, "")
    voice = KnnMap(
        bands=BANDS,
        voiced=[],
        unvoiced=[],
        source_level=0.0,
        log_f0=(5.0, 5.0, 1.0),
        strength=1.0,
        high_band_db=0.0,
        sounds=sounds,
    )
    turn = noise(seconds / 3)

    def run() -> None:
        for _ in range(3):
            engine.convert_and_tell(turn, voice)

    return Ready(run, seconds, f"{seconds:g} s in turns of {seconds / 3:.0f} s")


def hifi_gan_weights(width: int, channels: int) -> dict[str, Any]:
    """Of the generator that kNN-VC has: 320 samples for each frame."""
    import torch

    found: dict[str, Any] = {}

    def add(name: str, *shape: int, outputs: int) -> None:
        found[f"{name}.weight"] = torch.randn(*shape) * 0.02
        found[f"{name}.bias"] = torch.zeros(outputs)

    add("lin_pre", channels, width, outputs=channels)
    add("conv_pre", channels, channels, 7, outputs=channels)
    block = 0
    for k, stride in enumerate((10, 8, 2, 2)):
        before, channels = channels, channels // 2
        add(f"ups.{k}", before, channels, 2 * stride, outputs=channels)
        for kernel in (3, 7, 11):
            for part in ("convs1", "convs2"):
                for j in range(3):
                    name = f"resblocks.{block}.{part}.{j}"
                    add(name, channels, channels, kernel, outputs=channels)
            block += 1
    add("conv_post", 1, channels, 7, outputs=1)
    return found


CSM_TINY: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512,
}  # fmt: skip


def csm_config(config: Any, tiny: bool) -> Any:
    if not tiny:
        return config()
    return config(
        **CSM_TINY, num_codebooks=8, vocab_size=35, text_vocab_size=64, bos_token_id=62,
        pad_token_id=63, eos_token_id=None, audio_token_id=60, audio_eos_token_id=61,
        codebook_pad_token_id=34, codebook_eos_token_id=0,
        depth_decoder_config={
            **CSM_TINY, "num_codebooks": 8, "backbone_hidden_size": 16, "vocab_size": 35,
        },
        codec_config={
            "model_type": "mimi", "hidden_size": 16, "num_filters": 2, "codebook_size": 32,
            "codebook_dim": 8, "vector_quantization_hidden_dimension": 8, "num_quantizers": 8,
            "num_semantic_quantizers": 1, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 16,
            "upsample_groups": 16, "upsampling_ratios": [8, 6, 5, 4],
        },
    )  # fmt: skip


def csm(place: Place) -> Ready:
    """A sentence that goes on from the longest reference that podtool gives it.

    Its speed hardly depends on the length, so that less is said where ten seconds take too long;
    the codec sounds all ten of them in any case, for the memory.
    """
    import torch

    from podtool.engines.voice_csm import PROMPT_S

    config_of, network_of = transformers("CsmConfig", "CsmForConditionalGeneration")
    config = csm_config(config_of, place.tiny)
    with place.building(torch.bfloat16):
        network = network_of(config).to(place.device).eval()
    for name, codebook in network.codec_model.named_buffers():
        if name.endswith("embed_sum"):  # untrained ones are empty
            codebook.normal_()
    codec = network.codec_model.config
    prompt_s = place.length(PROMPT_S)
    heard = torch.from_numpy(noise(prompt_s, 24000).samples)[None]
    text = torch.randint(1, 50, (60,)).tolist()
    audio = [config.audio_token_id] * round(prompt_s * CSM_FRAMES_S) + [config.audio_eos_token_id]
    ids = [config.bos_token_id, *text, *audio, config.bos_token_id, *text]
    inputs = {
        "input_ids": torch.tensor([ids], device=place.device),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long, device=place.device),
        "input_values": heard.to(place.device, network.dtype),
        "input_values_cutoffs": torch.tensor([[heard.shape[-1]]], device=place.device),
    }
    books = config.num_codebooks

    def run(frames: int) -> float:
        start = time.perf_counter()
        codes = network.generate(
            **inputs,
            max_new_tokens=frames,
            do_sample=True,
            depth_decoder_do_sample=True,
        )
        # Special codes are as likely as any to random weights, and the codec has none.
        codes = codes[:, -frames:].transpose(1, 2).clamp(0, codec.codebook_size - 1)
        assert codes.shape == (1, books, frames), f"codes of the shape {tuple(codes.shape)}"
        network.codec_model.decode(codes).audio_values.float().cpu()
        return time.perf_counter() - start

    whole = round(CSM_TAKE_S * CSM_FRAMES_S)
    shape = (1, books, whole)
    network.codec_model.decode(torch.randint(codec.codebook_size, shape, device=place.device))
    run(2)
    begun, more = run(2), 4
    each = max(1e-6, (run(2 + more) - begun) / more)
    room = min(CSM_S, place.left() - 1.0)
    frames = 6 if place.tiny else max(6, min(whole, int(room / each)))
    said = frames / CSM_FRAMES_S
    about = f"{said:.1f} s said after {prompt_s:g} s of reference, batch 1"
    return Ready(lambda: run(frames), said, about, warm=True, rounds=1)


# ---------------------------------------------------------------- demucs


def htdemucs(place: Place) -> Ready:
    from demucs.htdemucs import HTDemucs

    from podtool.engines.separation_demucs import Demucs

    sizes: dict[str, Any] = {"channels": 48, "bottom_channels": 512, "t_layers": 5}
    if place.tiny:
        sizes = {"channels": 8, "bottom_channels": 16, "t_layers": 1, "t_heads": 2}
    network = HTDemucs(
        sources=["drums", "bass", "other", "vocals"],
        audio_channels=2,
        samplerate=44100,
        segment=Fraction(39, 5),
        **sizes,
    ).eval()
    engine = Demucs(network, place.device)
    seconds = place.length(engine.info.window_s or 31.0)
    audio = noise(seconds, 44100, 2)
    return Ready(lambda: engine.separate(audio), seconds, f"{seconds:g} s, stereo, 44.1 kHz")


# What has the most to go wrong on a GPU comes last: after a fault there nothing else works.
CASES: dict[str, Callable[[Place], Ready]] = {
    "background": background,
    "talkers": talkers,
    "talkers-streaming": talkers_streaming,
    "htdemucs": htdemucs,
    "whisper-large-v3": whisper_large_v3,
    "ctc-mms-1b": ctc_mms_1b,
    "ctc-large": ctc_large,
    "ctc-base": ctc_base,
    "knn-vc": knn_vc,
    "qwen3-aligner": qwen3_aligner,
    "nemotron": nemotron,
    "whisper-turbo": whisper_turbo,
    "csm": csm,
}


if __name__ == "__main__":
    main()

#!/bin/sh
# From an episode to subtitles and a transcript, one command per step, everything inspectable.
# usage: pipe.sh EPISODE OUT_DIR
set -eu
episode=$1
out=$2
mkdir -p "$out"
podtool separate "$episode" --out-dir "$out/stems" |
  podtool diarize - |
  podtool transcribe - >"$out/episode.jsonl"
podtool export "$out/episode.jsonl" --format srt -o "$out/episode.srt"
podtool export "$out/episode.jsonl" --format rttm -o "$out/episode.rttm"
podtool check "$out/episode.jsonl"

#!/bin/sh
# Transcripts of a folder of episodes. Done ones are skipped, failed ones are named at the end.
# usage: batch.sh IN_DIR OUT_DIR
set -u
in=$1
out=$2
mkdir -p "$out"
failed=0
for episode in "$in"/*; do
  [ -f "$episode" ] || continue
  rows=$out/$(basename "$episode").jsonl
  [ -f "$rows" ] && continue
  podtool diarize "$episode" | podtool transcribe - -o "$rows" && continue
  echo "failed: $episode" >&2
  failed=$((failed + 1))
done
[ "$failed" -eq 0 ] || exit 9

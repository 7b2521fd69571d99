#!/usr/bin/env bash
# Trains and evaluates every row of docs/results.md on the Flickr8k benchmark. After a stop, the same command resumes it.
#   bash benchmarks/flickr8k.sh && python benchmarks/flickr8k_table.py runs/flickr8k
# It needs prepared/flickr8k, regions/flickr8k-{7x7,14x14}-512 and vectors/glove.txt (docs/results.md makes them).
set -euo pipefail
lesa=${LESA:-.venv/bin/lesa}
out=runs/flickr8k

row() {  # NAME SEED CONFIG [KEY=VALUE ...]
    local run="$out/$1/seed-$2" config="configs/$3.toml" overrides=(--set "seed=$2")
    shift 3
    for override in "$@"; do overrides+=(--set "$override"); done
    [ -e "$run/evaluation.json" ] && return
    "$lesa" train "$config" -o "$run" "${overrides[@]}"
    "$lesa" evaluate "$run"
}

joined='vectors=["vectors/glove.txt", "text:all-MiniLM-L6-v2"]'
glove='vectors=["vectors/glove.txt"]'
for seed in 0 1 2; do
    for vectors in glove joined; do
        row "contrastive-$vectors-M10" "$seed" flickr8k-contrastive "${!vectors}"
        row "contrastive-$vectors-M1" "$seed" flickr8k-contrastive "${!vectors}" model.attentions=1
        row "contrastive-$vectors-mean-pool" "$seed" flickr8k-contrastive "${!vectors}" model.kind=mean-pool
    done
    row published-mean-pool "$seed" flickr8k model.kind=mean-pool model.front=false
done
row contrastive-joined-M10-14x14 0 flickr8k-contrastive "$joined" regions=regions/flickr8k-14x14-512
for seed in 0 1; do
    row published-M10 "$seed" flickr8k
    row published-M1 "$seed" flickr8k model.attentions=1
done
# Four times as many regions take four times as long: six epochs instead of forty.
row published-M10-14x14 0 flickr8k regions=regions/flickr8k-14x14-512 epochs=6
row published-M10 2 flickr8k
row published-M1 2 flickr8k model.attentions=1

#!/usr/bin/env bash
# The whole chain, from simulated scans to a report, in ./demo: what `make demo` runs. Starts over each time.
set -euo pipefail
cd "$(dirname "$0")"

if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  build="--n 40000 --size 256"
  encoder="--arch resnet50 --width 256 --batch-size 256"
  pretrain="$encoder --epochs 20"
  finetune="--labels 400 --epochs 24 --size 256 --seeds 2"
else # what a few minutes of two cores can learn from
  build="--n 8000 --size 128"
  encoder="--arch resnet18 --width 64 --batch-size 64"
  pretrain="$encoder --epochs 5"
  finetune="--labels 100 --epochs 24 --size 128 --seeds 1"
fi

say() { printf '\n== %s\n' "$*" >&2; }
run() { printf '+ %s\n' "$*" >&2; "$@"; }
last() { # the last value of a field in a run's log, in per cent
  python - "$1" "$2/log.jsonl" <<'PY'
import json, sys
records = [json.loads(line) for line in open(sys.argv[2])]
print(f'{100 * [r[sys.argv[1]] for r in records if sys.argv[1] in r][-1]:.0f} %')
PY
}

rm -rf demo/pairs demo/run demo/frozen demo/report
mkdir -p demo
SECONDS=0

say "1 of 3: image pairs from simulated scans (PhantomRay, made once and kept in the cache)"
run segloc-synth build $build --out demo/pairs

say "2 of 3: pretraining, and one epoch with frozen weights (--lr 0) to compare with"
run segloc-train --shards demo/pairs --out demo/run $pretrain
run segloc-train --shards demo/pairs --out demo/frozen $pretrain --epochs 1 --lr 0
echo "held-out pairs whose own key ranks first among 64: $(last held_out_accuracy demo/run) pretrained, $(last held_out_accuracy demo/frozen) with frozen weights"
echo "held-out objects whose class their nearest neighbours tell: $(last knn_accuracy demo/run) pretrained, $(last knn_accuracy demo/frozen) with frozen weights"

say "3 of 3: fine-tuning a detector from the pretrained and from random weights, on few labels"
run segloc-eval --ckpt demo/run --ckpt random --out demo/report $finetune

say "done in $((SECONDS / 60)) min; look at demo/pairs/preview.png and open demo/report/report.html"

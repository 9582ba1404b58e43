#!/usr/bin/env bash
# The whole chain, from simulated scans to a report, in ./demo: what `make demo` runs. Starts over each time.
set -euo pipefail
cd "$(dirname "$0")"

if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  build="--n 40000 --size 256"
  encoder="--arch resnet50 --width 256"
  pretrain="$encoder --batch-size 256 --epochs 20"
  detector="--detector mask-rcnn --size 256"
  composites="$encoder --samples 40000"
  finetune="--samples 8000 --seeds 2"
else # what a few minutes of two cores can learn from
  build="--n 8000 --size 128"
  encoder="--arch resnet18 --width 64"
  pretrain="$encoder --batch-size 64 --epochs 4"
  detector="--detector mask-rcnn --size 128"
  composites="$encoder --samples 8000"
  finetune="--samples 2400 --seeds 1"
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

rm -rf demo
mkdir demo
SECONDS=0

say "1 of 4: simulated scans (PhantomRay), 200 of them labelled, and image pairs made with their objects"
run segloc-synth phantom --out demo/scans
run segloc-eval labels demo/scans/pidray --labels 200 --out demo/lists
run segloc-synth build $build --out demo/pairs --objects demo/scans/pidray --images demo/lists/labels-200.txt \
  --backgrounds demo/scans/sixray

say "2 of 4: pretraining a backbone, and one epoch with frozen weights (--lr 0) to compare with"
run segloc-train --shards demo/pairs --out demo/segloc $pretrain
run segloc-train --shards demo/pairs --out demo/frozen $pretrain --epochs 1 --lr 0
echo "held-out pairs whose own key ranks before all of other classes, among 64 pairs: $(last held_out_accuracy demo/segloc) pretrained, $(last held_out_accuracy demo/frozen) with frozen weights"
echo "held-out objects whose class their nearest neighbours tell: $(last knn_accuracy demo/segloc) pretrained, $(last knn_accuracy demo/frozen) with frozen weights"

say "3 of 4: instead, a detector that learns on the image pairs themselves"
run segloc-eval pretrain demo/pairs --out demo/composites $detector $composites

say "4 of 4: fine-tuning on the 200 labelled scans, from both and from random weights"
run segloc-eval --ckpt demo/segloc --ckpt demo/composites --ckpt random --data demo/scans/pidray --labels 200 \
  --out demo/report $detector $finetune

say "done in $((SECONDS / 60)) min; look at demo/pairs/preview.png and open demo/report/report.html"

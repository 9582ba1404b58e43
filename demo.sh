#!/usr/bin/env bash
# The whole chain, from simulated scans to a report, in ./demo: what `make demo` runs. Starts over each time.
# SEED=1 make demo draws all of it anew, in ./demo-1.
set -euo pipefail
cd "$(dirname "$0")"
demo=demo${SEED:+-$SEED}
seed="--seed ${SEED:-0}"

encoder="--arch tf_efficientnet_lite0 --width 64"
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  scans="--images 1500 --backgrounds 1000"
  build="--n 20000 --size 256"
  pretrain="--batch-size 256 --epochs 20"
  detector="--detector mask-rcnn --size 256"
  composites="--samples 40000 --lr 2e-3"
  finetune="--samples 8000 --seeds 2"
else # what two older cores can learn from in half an hour
  scans="--images 1200 --backgrounds 700"
  build="--n 4000 --size 128"
  pretrain="--batch-size 64 --epochs 2"
  detector="--detector mask-rcnn --size 128"
  composites="--samples 8000 --lr 2e-3"
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

rm -rf "$demo"
mkdir "$demo"
SECONDS=0

say "1 of 4: simulated scans (PhantomRay), 200 of them labelled, and image pairs made with their objects"
run segloc-synth phantom $scans --out $demo/scans $seed
run segloc-eval labels $demo/scans/pidray --labels 200 --out $demo/lists $seed
run segloc-synth build $build --items 2 4 --out $demo/pairs $seed --objects $demo/scans/pidray \
  --images $demo/lists/labels-200.txt --backgrounds $demo/scans/sixray

say "2 of 4: pretraining a backbone by contrast, from ImageNet's weights"
run segloc-train --shards $demo/pairs --out $demo/segloc --init imagenet $encoder $pretrain $seed
echo "held-out objects whose class their nearest neighbours tell: $(last knn_accuracy $demo/segloc)"

say "3 of 4: instead, a detector that learns to find the pasted objects, from ImageNet's weights too"
run segloc-eval pretrain $demo/pairs --ckpt imagenet --out $demo/composites $encoder $detector $composites $seed

say "4 of 4: fine-tuning on the 200 labelled scans, from both and from ImageNet's weights"
run segloc-eval --ckpt imagenet --ckpt $demo/segloc --ckpt $demo/composites --data $demo/scans/pidray --labels 200 \
  --out $demo/report $detector $finetune $seed

say "done in $((SECONDS / 60)) min; look at $demo/pairs/preview.png and open $demo/report/report.html"

#!/usr/bin/env bash
# The whole chain, from simulated scans to a report, in ./demo: what `make demo` runs. Goes on where it was stopped.
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
  composites="--size 256 --samples 40000 --lr 2e-3"
  finetune="--size 256 --samples 8000 --seeds 2"
else # what two older cores can learn in about 25 minutes, each at a task of its own
  export OMP_NUM_THREADS=$((($(nproc) + 1) / 2))
  scans="--images 1200 --backgrounds 700"
  build="--n 4000 --size 128"
  pretrain="--batch-size 64 --epochs 2"
  composites="--size 128 --samples 8000 --lr 2e-3"
  finetune="--size 128 --samples 2400 --seeds 1"
fi
detector="--detector mask-rcnn"
data="--data $demo/scans/pidray --labels 200"

say() { printf '\n== %s\n' "$*" >&2; }
run() { printf '+ %s\n' "$*" >&2; "$@"; }
last() { # the last value of a field in a run's log, in per cent
  python - "$1" "$2/log.jsonl" <<'PY'
import json, sys
records = [json.loads(line) for line in open(sys.argv[2])]
print(f'{100 * [r[sys.argv[1]] for r in records if sys.argv[1] in r][-1]:.0f} %')
PY
}
contrast() { # a backbone pretrained by contrast, and a detector from it and from ImageNet alone
  if [ -e $demo/segloc/last.pt ]; then
    run segloc-train --resume $demo/segloc
  else
    rm -rf $demo/segloc
    run segloc-train --shards $demo/pairs --out $demo/segloc --init imagenet $encoder $pretrain $seed
  fi
  run segloc-eval --ckpt imagenet --ckpt $demo/segloc $data --out $demo/contrast $detector $finetune $seed
}
composites() { # instead, a detector that learnt to find the pasted objects
  run segloc-eval pretrain $demo/pairs --ckpt imagenet --out $demo/composites $encoder $detector $composites $seed
  run segloc-eval --ckpt $demo/composites $data --out $demo/detection $detector $finetune $seed
}

mkdir -p $demo
SECONDS=0

say "1 of 3: simulated scans (PhantomRay), 200 of them labelled, and image pairs made with their objects"
[ -e $demo/scans ] || run segloc-synth phantom $scans --out $demo/scans $seed
run segloc-eval labels $demo/scans/pidray --labels 200 --out $demo/lists $seed
run segloc-synth build $build --items 2 4 --out $demo/pairs $seed --objects $demo/scans/pidray \
  --images $demo/lists/labels-200.txt --backgrounds $demo/scans/sixray

say "2 of 3: from ImageNet's weights, a detector that learns to find the pasted objects, then the 200 labelled scans;
   beside it a backbone pretrained by contrast, then the same scans, and these alone (see $demo/contrast.log)"
set -m # a process group of its own, which can be stopped whole
contrast >$demo/contrast.log 2>&1 &
beside=$!
set +m
# Whatever ends this ends it too, once it has saved where it is.
trap 'kill -TERM -$beside 2>/dev/null || true; while kill -0 -- -$beside 2>/dev/null; do sleep 0.2; done' EXIT
composites
wait $beside || { tail -n 3 $demo/contrast.log >&2; echo "the other task failed; see $demo/contrast.log" >&2; exit 1; }
echo "held-out objects whose class their nearest neighbours tell after contrast: $(last knn_accuracy $demo/segloc)"

say "3 of 3: one report of all three"
rm -rf $demo/report
run segloc-eval report $demo/contrast $demo/detection --out $demo/report

say "done in $((SECONDS / 60)) min; look at $demo/pairs/preview.png and open $demo/report/report.html"

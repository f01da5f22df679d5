#!/usr/bin/env bash
# Fine-tune on fold 1 and hold the result against the published result.
#
#   bash scripts/verify_finetune.sh                          IEMOCAP at $IEMOCAP_ROOT or data/IEMOCAP_full_release
#   bash scripts/verify_finetune.sh data.root=/data/IEMOCAP  any setting of configs/finetune.yaml can follow
#
# CONFIG=... takes another configuration. The first visible GPU is used; CUDA_VISIBLE_DEVICES chooses it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CONFIG=${CONFIG:-configs/finetune.yaml}
RUN=${RUN:-runs/ema_iemocap_finetune_verify_$(date +%Y%m%d-%H%M%S)_fold1}

echo "== machine"
uv run serfit doctor
echo
echo "== fold 1 with $CONFIG; log: $RUN/train.log"
if [ -t 0 ] && [ -t 1 ]; then
    read -r -p "Press Enter to start, Ctrl-C to leave it. "
fi
uv run python src/train.py --config "$CONFIG" --fold 1 --run-dir "$RUN" "$@"
echo
echo "== best result"
cat "$RUN/best_result.txt"
echo
uv run serfit verdict "$RUN"

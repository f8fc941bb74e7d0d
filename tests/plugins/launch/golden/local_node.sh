#!/bin/bash
# One run of alignkit on this machine. Started again, it resumes what it has begun.
set -u
cd /lab || exit 1
export OMP_WAIT_POLICY=passive

if [ -e '/lab/runs/it'"'"'s mine/recipe.toml' ]; then
  command=(resume '/lab/runs/it'"'"'s mine')
else
  command=(run '/lab/a recipe.toml' --out '/lab/runs/it'"'"'s mine' -s 'name = "$HOME"')
fi
# The run saves its state at this signal, 120 seconds before the limit.
exec timeout --preserve-status --signal=USR1 3480 \
  /env/bin/python -m torch.distributed.run --standalone --nproc-per-node=4 \
  --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --shutdown-timeout=120 \
  -m alignkit "${command[@]}"

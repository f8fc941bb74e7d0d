#!/bin/bash
# One run of alignkit as a job of PBS. At its time limit it submits the job that resumes it.
#PBS -N it_s_mine
#PBS -l select=1:ncpus=1
#PBS -l walltime=1:00:00
#PBS -r y
#PBS -j oe
#PBS -o "/lab/runs/it's mine.pbs.log"
set -u
trap : TERM INT HUP # the run gets them too: wait until it has saved its state
cd /lab || exit 1
script='/lab/runs/it'"'"'s mine.pbs.sh'
export OMP_WAIT_POLICY=passive
export WANDB_MODE="${WANDB_MODE:-offline}" # upload later: wandb sync

begun=no
[ -e '/lab/runs/it'"'"'s mine/recipe.toml' ] && begun=yes
if [ "$begun" = yes ]; then
  command=(resume '/lab/runs/it'"'"'s mine')
else
  command=(run '/lab/a recipe.toml' --out '/lab/runs/it'"'"'s mine' -s 'name = "$HOME"')
fi
# The run saves its state at this signal, 120 seconds before the limit.
limit=(timeout --preserve-status --signal=USR1 3480)

"${limit[@]}" /env/bin/python -m alignkit "${command[@]}"
status=$?
if [ "$status" -eq 75 ]; then # stopped, to be resumed
  qsub "$script"
fi
exit "$status"

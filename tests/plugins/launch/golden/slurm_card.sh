#!/bin/bash
# One run of alignkit as a job of SLURM. It resumes itself after a time limit or a pre-emption.
#SBATCH --job-name=it_s_mine
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --gpus-per-node=1
#SBATCH --mem=64gb
#SBATCH --time=1:00:00
# The run saves its state at this signal, then ends with status 75.
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output="/lab/runs/it's mine.slurm.log"
#SBATCH --partition=gpu
#SBATCH --account=lab
set -u
trap : TERM INT HUP # the run gets them too: wait until it has saved its state
cd /lab || exit 1
export OMP_WAIT_POLICY=passive
export WANDB_MODE="${WANDB_MODE:-offline}" # upload later: wandb sync

if [ -e '/lab/runs/it'"'"'s mine/recipe.toml' ]; then
  command=(resume '/lab/runs/it'"'"'s mine')
else
  command=(run '/lab/a recipe.toml' --out '/lab/runs/it'"'"'s mine' -s 'name = "$HOME"')
fi

srun --cpus-per-task=1 /env/bin/python -m alignkit "${command[@]}"
status=$?
if [ "$status" -eq 75 ]; then # stopped, to be resumed
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

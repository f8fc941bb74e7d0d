#!/bin/bash
# One run of alignkit as a job of SLURM. It resumes itself after a time limit or a pre-emption.
#SBATCH --job-name=it_s_mine
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --gpus-per-node=8
#SBATCH --time=48:00:00
# The run saves its state at this signal, then ends with status 75.
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output="/lab/runs/it's mine.slurm.log"
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

# Each task is a rank. torch.distributed reads these variables, the same as torchrun sets.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT LOCAL_WORLD_SIZE=8
# shellcheck disable=SC2016 # each task fills these in for itself
srun --cpus-per-task=1 bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
  exec "$@"' rank /env/bin/python -m alignkit "${command[@]}"
status=$?
if [ "$status" -eq 75 ]; then # stopped, to be resumed
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

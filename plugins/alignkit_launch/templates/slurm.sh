#!/bin/bash
# One run of alignkit as a job of SLURM. It resumes itself after a time limit or a pre-emption.
#SBATCH --job-name={{ job.name }}
#SBATCH --nodes={{ job.nodes }}
#SBATCH --ntasks-per-node={{ job.processes }}
#SBATCH --cpus-per-task={{ job.cpus }}
{% if job.gpus %}
#SBATCH --gpus-per-node={{ job.gpus }}
{% endif %}
{% if job.memory %}
#SBATCH --mem={{ job.memory }}
{% endif %}
#SBATCH --time={{ job.seconds | clock }}
# The run saves its state at this signal, then ends with status 75.
#SBATCH --signal=USR1@{{ job.grace }}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output="{{ job.script.with_suffix('.log') | string | replace('%', '%%') | replace('"', '\\"') }}"
{% if job.queue %}
#SBATCH --partition={{ job.queue }}
{% endif %}
{% if job.account %}
#SBATCH --account={{ job.account }}
{% endif %}
{% for directive in job.directives %}
#SBATCH {{ directive }}
{% endfor %}
set -u
trap : TERM INT HUP # the run gets them too: wait until it has saved its state
cd {{ job.folder | q }} || exit 1
export OMP_WAIT_POLICY=passive
export WANDB_MODE="${WANDB_MODE:-offline}" # upload later: wandb sync

if [ -e {{ (job.out / "recipe.toml") | q }} ]; then
  command=({{ job.go_on | q }})
else
  command=({{ job.begin | q }})
fi

{% if job.ranks > 1 %}
# Each task is a rank. torch.distributed reads these variables, the same as torchrun sets.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT LOCAL_WORLD_SIZE={{ job.processes }}
# shellcheck disable=SC2016 # each task fills these in for itself
srun --cpus-per-task={{ job.cpus }} bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
  exec "$@"' rank {{ job.python | q }} -m alignkit "${command[@]}"
{% else %}
srun --cpus-per-task={{ job.cpus }} {{ job.python | q }} -m alignkit "${command[@]}"
{% endif %}
status=$?
if [ "$status" -eq 75 ]; then # stopped, to be resumed
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

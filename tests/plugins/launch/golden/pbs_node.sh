#!/bin/bash
# One run of alignkit as a job of PBS. At its time limit it submits the job that resumes it.
#PBS -N it_s_mine
#PBS -l select=1:ncpus=32:ngpus=4
#PBS -l walltime=1:00:00
#PBS -r y
#PBS -j oe
#PBS -o "/lab/runs/it's mine.pbs.log"
#PBS --exclusive
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

# The ranks of one node: number of the node, address and port of the first.
ranks() {
  "${limit[@]}" /env/bin/python -m torch.distributed.run \
    --nnodes=1 --nproc-per-node=4 \
    --node-rank="$1" --master-addr="$2" --master-port="$3" \
    --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --shutdown-timeout=120 \
    -m alignkit "${command[@]}"
}
manifest='/lab/runs/it'"'"'s mine/manifest.json'
started="$script.started"
: >"$started"
port=$((20000 + ${PBS_JOBID%%.*} % 20000))
ranks 0 localhost "$port"
status=$?
# torchrun's status is 1 whatever that of its ranks is; the run's manifest says how it ended.
if [ "$status" -ne 0 ] && [ "$manifest" -nt "$started" ] &&
  grep -q '"status": "stopped"' "$manifest"; then
  status=75
fi
rm -f "$started"
if [ "$status" -eq 75 ]; then # stopped, to be resumed
  qsub "$script"
fi
exit "$status"

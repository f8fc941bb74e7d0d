#!/bin/bash
# One run of alignkit as a job of PBS. At its time limit it submits the job that resumes it.
#PBS -N it_s_mine
#PBS -l select=2:ncpus=8:ngpus=8
#PBS -l place=scatter
#PBS -l walltime=48:00:00
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
[ "$#" -eq 4 ] && begun=$4 # called on a node, below: use what the first node found at the start
if [ "$begun" = yes ]; then
  command=(resume '/lab/runs/it'"'"'s mine')
else
  command=(run '/lab/a recipe.toml' --out '/lab/runs/it'"'"'s mine' -s 'name = "$HOME"')
fi
# The run saves its state at this signal, 300 seconds before the limit.
limit=(timeout --preserve-status --signal=USR1 172500)

# The ranks of one node: number of the node, address and port of the first.
ranks() {
  "${limit[@]}" /env/bin/python -m torch.distributed.run \
    --nnodes=2 --nproc-per-node=8 \
    --node-rank="$1" --master-addr="$2" --master-port="$3" \
    --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --shutdown-timeout=300 \
    -m alignkit "${command[@]}"
}
if [ "$#" -eq 4 ]; then # this script, called below on one of several nodes
  ranks "$1" "$2" "$3"
  exit
fi
manifest='/lab/runs/it'"'"'s mine/manifest.json'
started="$script.started"
: >"$started"
port=$((20000 + ${PBS_JOBID%%.*} % 20000))
mapfile -t hosts < <(sort -u "$PBS_NODEFILE")
for node in "${!hosts[@]}"; do
  pbs_tmrsh "${hosts[node]}" /bin/bash "$script" "$node" "${hosts[0]}" "$port" "$begun" &
done
status=0
for process in $(jobs -p); do
  wait "$process" || status=$?
done
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

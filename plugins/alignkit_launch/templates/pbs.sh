#!/bin/bash
# One run of alignkit as a job of PBS. At its time limit it submits the job that resumes it.
#PBS -N {{ job.name }}
#PBS -l select={{ job.nodes }}:ncpus={{ job.cpus * job.processes }}
{%- if job.gpus %}:ngpus={{ job.gpus }}{% endif %}
{%- if job.memory %}:mem={{ job.memory }}{% endif %}

{% if job.nodes > 1 %}
#PBS -l place=scatter
{% endif %}
#PBS -l walltime={{ job.seconds | clock }}
#PBS -r y
#PBS -j oe
#PBS -o {{ job.script.with_suffix('.log') | directive }}
{% if job.queue %}
#PBS -q {{ job.queue }}
{% endif %}
{% if job.account %}
#PBS -A {{ job.account }}
{% endif %}
{% for directive in job.directives %}
#PBS {{ directive }}
{% endfor %}
set -u
trap : TERM INT HUP # the run gets them too: wait until it has saved its state
cd {{ job.folder | q }} || exit 1
script={{ job.script | q }}
export OMP_WAIT_POLICY=passive
export WANDB_MODE="${WANDB_MODE:-offline}" # upload later: wandb sync

begun=no
[ -e {{ (job.out / "recipe.toml") | q }} ] && begun=yes
{% if job.nodes > 1 %}
[ "$#" -eq 4 ] && begun=$4 # called on a node, below: use what the first node found at the start
{% endif %}
if [ "$begun" = yes ]; then
  command=({{ job.go_on | q }})
else
  command=({{ job.begin | q }})
fi
# The run saves its state at this signal, {{ job.grace }} seconds before the limit.
limit=(timeout --preserve-status --signal=USR1 {{ job.seconds - job.grace }})

{% if job.ranks > 1 %}
# The ranks of one node: number of the node, address and port of the first.
ranks() {
  "${limit[@]}" {{ job.python | q }} -m torch.distributed.run \
    --nnodes={{ job.nodes }} --nproc-per-node={{ job.processes }} \
    --node-rank="$1" --master-addr="$2" --master-port="$3" \
    --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --shutdown-timeout={{ job.grace }} \
    -m alignkit "${command[@]}"
}
{% if job.nodes > 1 %}
if [ "$#" -eq 4 ]; then # this script, called below on one of several nodes
  ranks "$1" "$2" "$3"
  exit
fi
{% endif %}
manifest={{ (job.out / "manifest.json") | q }}
started="$script.started"
: >"$started"
port=$((20000 + ${PBS_JOBID%%.*} % 20000))
{% if job.nodes > 1 %}
mapfile -t hosts < <(sort -u "$PBS_NODEFILE")
for node in "${!hosts[@]}"; do
  pbs_tmrsh "${hosts[node]}" /bin/bash "$script" "$node" "${hosts[0]}" "$port" "$begun" &
done
status=0
for process in $(jobs -p); do
  wait "$process" || status=$?
done
{% else %}
ranks 0 localhost "$port"
status=$?
{% endif %}
# torchrun's status is 1 whatever that of its ranks is; the run's manifest says how it ended.
if [ "$status" -ne 0 ] && [ "$manifest" -nt "$started" ] &&
  grep -q '"status": "stopped"' "$manifest"; then
  status=75
fi
rm -f "$started"
{% else %}
"${limit[@]}" {{ job.python | q }} -m alignkit "${command[@]}"
status=$?
{% endif %}
if [ "$status" -eq 75 ]; then # stopped, to be resumed
  qsub "$script"
fi
exit "$status"

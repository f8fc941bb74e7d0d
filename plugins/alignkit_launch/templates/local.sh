#!/bin/bash
# One run of alignkit on this machine. Started again, it resumes what it has begun.
set -u
cd {{ job.folder | q }} || exit 1
export OMP_WAIT_POLICY=passive

if [ -e {{ (job.out / "recipe.toml") | q }} ]; then
  command=({{ job.go_on | q }})
else
  command=({{ job.begin | q }})
fi
# The run saves its state at this signal, {{ job.grace }} seconds before the limit.
exec timeout --preserve-status --signal=USR1 {{ job.seconds - job.grace }} \
{% if job.ranks > 1 %}
  {{ job.python | q }} -m torch.distributed.run --standalone --nproc-per-node={{ job.processes }} \
  --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --shutdown-timeout={{ job.grace }} \
  -m alignkit "${command[@]}"
{% else %}
  {{ job.python | q }} -m alignkit "${command[@]}"
{% endif %}

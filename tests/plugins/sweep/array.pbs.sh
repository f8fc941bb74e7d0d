#!/bin/bash
#PBS -N sweep
#PBS -r y
#PBS -j oe
#PBS -o /lab/sweep/.pbs/1
#PBS -J 0-1%4
#PBS -l walltime=1:00:00
#PBS -A lab
#PBS -l select=1:ncpus=4:ngpus=1
set -u
trap : TERM INT HUP # the run gets them too: wait until it has saved its state
cd / || exit 1
folder=/lab/sweep/.pbs/1
case "${PBS_ARRAY_INDEX:-0}" in
0) element=0 log='/logs/a 0.log' command=(python run 'it'"'"'s 0') ;;
1) element=1 log='/logs/a 1.log' command=(python run 'it'"'"'s 1') ;;
esac
: >"$folder/$element.began"
timeout --preserve-status --signal=USR1 3480 "${command[@]}" >>"$log" 2>&1
echo $? >"$folder/$element.partial"
mv "$folder/$element.partial" "$folder/$element.status"

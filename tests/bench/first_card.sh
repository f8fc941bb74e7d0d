#!/usr/bin/env bash
# The first run on a card: does it work, how fast, in how much memory? One file of results to send.
#
#   tests/bench/first_card.sh            # installs into .venv-card, then measures: an hour or less
#   tests/bench/first_card.sh --dry      # on a CPU, in minutes: tiny sizes, every part that can run
#
# PYTHON=/path/to/python uses an environment that is there and installs nothing. OUT=FILE says where
# the results go (default: first_card_results.txt), TMPDIR where 40 GB are free (default: /tmp).
# Nothing is downloaded but packages: weights are random, problems are the embedded ones. A part that
# fails, or takes longer than LIMIT (default: 30m), does not keep the others from running; what was
# measured by then stays in the file, also if you stop it.
# Status 0: every part ran and passed, or was skipped with its reason; 1: some failed; 2: no card.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
here=tests/bench/first_card

dry=""
case "${1:-}" in
  "") ;;
  --dry) dry=1 ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
out=$(realpath -m "${OUT:-first_card_results.txt}")
work=$(mktemp -d "${TMPDIR:-/tmp}/first-card.XXXXXX")
limit=${LIMIT:-30m}
export HF_HUB_OFFLINE=1
summary=""
failed=0
: >"$out" || exit 2

# shellcheck disable=SC2317 # a trap calls it
finish() { # whatever ends the script: the file says what became of each part
  printf '\n## Summary\n%s' "$summary" >>"$out"
  echo "results: $out"
  rm -rf "$work"
}
trap finish EXIT
running=""
trap 'note "stopped by a signal"; [ -z "$running" ] || kill "$running" 2>/dev/null; exit 1' INT TERM HUP

note() { echo "$1"; summary+="$1"$'\n'; }

skip() { # NAME REASON
  printf '\n## %s\nskipped: %s\n' "$1" "$2" >>"$out"
  note "skipped  $1: $2"
}

part() { # NAME COMMAND...: run it, keep what it prints, go on whatever becomes of it
  local name=$1 start status
  shift
  printf '\n## %s\n$ %s\n' "$name" "$*" >>"$out"
  start=$SECONDS
  # In the background, so that a signal to this script is answered at once.
  timeout --kill-after=30 "$limit" "$@" </dev/null >"$work/said" 2>&1 &
  running=$!
  wait "$running"
  status=$?
  [ "$status" != 124 ] || printf 'stopped after %s\n' "$limit" >>"$work/said"
  tail -n 400 "$work/said" >>"$out"
  printf 'status %s after %s s\n' "$status" "$((SECONDS - start))" >>"$out"
  if [ "$status" = 0 ]; then
    note "passed   $name ($((SECONDS - start)) s)"
  else
    failed=1
    note "FAILED   $name (status $status, $((SECONDS - start)) s)"
  fi
  return "$status"
}

has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)"; }

printf '# alignkit, first run on a card\ncommit %s\ndate %s\n' \
  "$(git rev-parse HEAD 2>/dev/null || echo unknown)" "$(date -u +%FT%TZ)" >>"$out"

# ---------------------------------------------------------------- the environment
python=${PYTHON:-}
if [ -n "$python" ]; then
  skip install "PYTHON is set"
elif [ -n "$dry" ]; then
  python=$(command -v python3)
  skip install "--dry uses $python"
else
  python=$PWD/.venv-card/bin/python
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    note "FAILED   install: alignkit needs Python 3.11 or newer; this is $(python3 --version 2>&1)"
    exit 1
  fi
  part install bash -c 'python3 -m venv .venv-card &&
    .venv-card/bin/pip install --quiet -e ".[vllm,8bit,test]"' || exit 1
fi
card=$("$python" -c 'import torch; print(int(torch.cuda.is_available()))' 2>>"$out") ||
  { echo "torch does not import in $python: see $out"; exit 2; }
if [ "$card" = 0 ] && [ -z "$dry" ]; then
  "$python" -m alignkit doctor 2>&1 | tee -a "$out"
  echo "torch sees no card; --dry runs on a CPU"
  exit 2
fi
no_card="no CUDA device"

# ---------------------------------------------------------------- what the machine is
if command -v nvidia-smi >/dev/null; then
  part "nvidia-smi" nvidia-smi
else
  skip "nvidia-smi" "not installed"
fi
part "packages" "$python" -m pip freeze
part "alignkit doctor" "$python" -m alignkit doctor
part "alignkit doctor --json" "$python" -m alignkit doctor --json
cp "$work/said" "$work/doctor.json"

# ---------------------------------------------------------------- tests and benchmarks
if [ "$card" = 1 ]; then
  part "tests on the card" "$python" -m pytest -q -m gpu tests/gpu -rs --durations=10
  part "benchmark" "$python" tests/bench/bench_gpu.py
  part "learner, compiled" "$python" tests/bench/bench_gpu.py --part learner --part batch --compile
  part "learner, compiled, masters" "$python" tests/bench/bench_gpu.py --part learner --part batch \
    --compile --masters
else
  skip "tests on the card" "$no_card"
  part "benchmark" "$python" tests/bench/bench_gpu.py --device cpu --small --rounds 1
fi

# ---------------------------------------------------------------- twenty steps of GRPO
tiny=()
[ -z "$dry" ] || tiny=(--tiny)
part "random weights" "$python" "$here/random_policy.py" "$work/policy" "${tiny[@]}"
if has vllm; then
  part "weights to vLLM, GB/s" "$python" tests/bench/bench_weights.py "$work/policy"
else
  skip "weights to vLLM, GB/s" "vLLM is not installed"
fi
run=(recipes/grpo.toml --with "$here/grpo.toml")
set_keys=(-s "policy.path=$work/policy")
if [ -n "$dry" ]; then
  set_keys+=(-s rollout.use=hf -s rollout.max_tokens=16 -s n_steps=2 -s rollout_batch_size=16
    -s train_batch_size=16 -s eval.n=8)
elif has vllm; then
  # The overlay for one card that makes the most of this one.
  overlay=$("$python" -c 'import json, sys
fits = [f for f in json.load(open(sys.argv[1]))["fits"] if f["fits"] and f["cards"] == 1]
print(max(fits, key=lambda f: f["needs"])["recipe"] if fits else "")' "$work/doctor.json")
  [ -z "$overlay" ] || run+=(--with "recipes/scale/$overlay.toml")
else
  set_keys+=(-s rollout.use=hf -s rollout.max_tokens=512 -s optimizer.implementation=offload)
fi
part "GRPO, reckoned" "$python" -m alignkit explain "${run[@]}" "${set_keys[@]}"
part "GRPO" "$python" -m alignkit run "${run[@]}" "${set_keys[@]}" --out "$work/run"
if [ -e "$work/run/metrics.jsonl" ]; then
  part "GRPO, metrics" cat "$work/run/metrics.jsonl" "$work/run/manifest.json"
else
  skip "GRPO, metrics" "the run wrote none"
fi

exit "$failed"

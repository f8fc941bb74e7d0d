#!/bin/sh
# Make a virtual environment with the verifiers package and OpenEnv, and run the tests marked so in it:
#
#   tests/verifiers_env.sh FOLDER [PYTHON] && FOLDER/bin/python -m pytest tests -m "verifiers or openenv"
#
# It lies over the environment of PYTHON, which alignkit and its tests are installed in (`python3` if
# left out): only what they add is installed, and nothing there changes. About a minute.
set -eu
folder=${1:?"usage: $0 FOLDER [PYTHON]"}
python=${2:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
below=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
torch=$("$python" -c 'import torch; print(torch.__version__)')
"$python" -m venv "$folder"
for site in "$folder"/lib/python*/site-packages; do
    echo "import site; site.addsitedir('$below')" >"$site/below.pth"
done
pip="$folder/bin/python -m pip --disable-pip-version-check --quiet"
# Beside it, a real environment: `verifiers` ships one for the puzzles of reasoning-gym. OpenEnv writes one.
$pip install "verifiers>=0.3.1,<0.4" "reasoning-gym>=0.1.25,<0.2" "openenv>=0.10,<0.11" \
    "torch==$torch" "transformers<5.20"
$pip install --no-build-isolation --no-deps --force-reinstall \
    "$root/tests/fixtures/alignkit-verifiers" "$root/tests/fixtures/alignkit-openenv"

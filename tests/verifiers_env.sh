#!/bin/sh
# Make a virtual environment with the verifiers package, and run the tests marked `verifiers` in it:
#
#   tests/verifiers_env.sh FOLDER [PYTHON] && FOLDER/bin/python -m pytest tests -m verifiers
#
# It lies over the environment of PYTHON, which alignkit and its tests are installed in (`python3` if
# left out): only what verifiers adds is installed, and nothing there changes. About a minute.
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
# Beside it, a real environment: `verifiers` ships one for the puzzles of reasoning-gym.
$pip install "verifiers>=0.3.1,<0.4" "reasoning-gym>=0.1.25,<0.2" "torch==$torch" "transformers<5.20"
$pip install --no-build-isolation --no-deps --force-reinstall "$root/tests/fixtures/alignkit-verifiers"

"""How costs grow: `python tests/bench/growth.py [NAME…]` prints a table for RESULTS.md.

Each cell is a command in a process of its own: its processor seconds, the imports included, and the
most memory it held. Sizes rise by the same factor, so a row shows at a glance what grows faster.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ALIGNKIT = (sys.executable, "-m", "alignkit")
RECIPES = Path(__file__).parents[2] / "recipes"
METRICS = 11
"""Numbers in a row of metrics, besides step and time."""


def measured(words, env=None):
    """Return processor seconds and MiB at the peak of a command that must succeed."""
    given = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | (env or {})
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([str(w) for w in words], stdout=said, stderr=said, env=given)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        if child.returncode:
            raise SystemExit(f"{words}: status {child.returncode}\n{said.read().decode()[-2000:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def run_dir(folder, rows, seed=0):
    """Write what a finished run of so many steps leaves for `show` and `report`."""
    folder.mkdir(parents=True)
    draw = random.Random(seed)
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(rows):
            numbers = {f"train/m{i}": draw.random() for i in range(METRICS)}
            file.write(json.dumps({"step": step, "time": step / 2, **numbers}) + "\n")
    manifest = {"status": "done", "seconds": rows / 2, "seed": seed}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "recipe.toml").write_text(f'use = "sft"\nseed = {seed}\n')
    return folder


def data_rows(place):
    for rows in (10_000, 100_000, 1_000_000):
        data, recipe = place / f"{rows}.jsonl", place / f"{rows}.toml"
        with data.open("w") as file:
            for i in range(rows):
                file.write(json.dumps({"question": f"What is {i} + {i}?", "answer": str(2 * i)}))
                file.write("\n")
        recipe.write_text(f'extends = "{RECIPES}/grpo.toml"\n[data]\npath = "{data}"\n')
        yield f"{rows:,}", (*ALIGNKIT, "run", recipe, "--dry-run")


def responses(place):
    for count in (128, 1_024, 4_096):
        sizes = (f"rollout_batch_size={count}", f"train_batch_size={count}", "n_steps=1")
        yield f"{count:,}", trained(place / str(count), *sizes)


def steps(place):
    small = ("rollout_batch_size=16", "train_batch_size=16", "rollout.max_tokens=8", "eval.n=8")
    for count in (30, 300, 3_000):
        yield f"{count:,}", trained(place / str(count), *small, f"n_steps={count}")


def trained(out, *overrides):
    words = [word for setting in overrides for word in ("-s", setting)]
    return (*ALIGNKIT, "run", RECIPES / "grpo.toml", "--out", out, "-s", "eval.every=10000", *words)


def metrics_shown(place):
    for rows in (2_000, 20_000, 200_000):
        yield f"{rows:,}", (*ALIGNKIT, "show", run_dir(place / f"{rows}", rows))


def metrics_reported(place):
    for rows in (2_000, 20_000, 200_000):
        folder = run_dir(place / f"{rows}", rows)
        yield f"{rows:,}", (*ALIGNKIT, "report", folder, "--out", place / f"{rows}.html")


def runs_reported(place):
    for count in (2, 20, 200):
        for i in range(count):
            run_dir(place / f"{count}" / f"v{i:03}" / "seed_0", 1_000, i)
        yield (
            f"{count:,}",
            (*ALIGNKIT, "report", place / f"{count}", "--out", place / f"{count}.html"),
        )


def plugins(place):
    """Plugins of one component each, as distributions on the path."""
    for count in (1, 10, 100):
        folder = place / str(count)
        for i in range(count):
            info = folder / f"made{i}-1.0.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made{i}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[alignkit]\nmade{i} = made{i}\n")
            (folder / f"made{i}.py").write_text(PLUGIN.format(i=i))
        yield f"{count:,}", (*ALIGNKIT, "list-plugins"), {"PYTHONPATH": str(folder)}


PLUGIN = """from alignkit import Component, Params, hookimpl
from alignkit.protocols import Normalizer


class Made(Params[Normalizer]):
    \"\"\"Made up.\"\"\"

    def build(self):
        return None


@hookimpl
def normalizer():
    yield Component("made{i}", Made)
"""


def sweep_jobs(place):
    settings = ("n_steps=1", "rollout_batch_size=8", "train_batch_size=8", "group_size=4")
    for jobs in (1, 2, 4):
        sweep = place / f"{jobs}.toml"
        sweep.write_text(
            f'recipe = "{RECIPES}/grpo.toml"\nseeds = [0, 1, 2, 3]\n[grid]\noptimizer.lr = [1e-4]\n'
        )
        words = [w for s in (*settings, "eval.n=4", "rollout.max_tokens=4") for w in ("-s", s)]
        out = place / f"out{jobs}"
        yield (
            f"--jobs {jobs}",
            (*ALIGNKIT, "sweep", sweep, *words, "--out", out, "--jobs", str(jobs)),
        )


TABLES = {
    "rows of data, `--dry-run`": data_rows,
    "rows of metrics, `show`": metrics_shown,
    "rows of metrics, `report`": metrics_reported,
    "runs of 1,000 steps in a `report`": runs_reported,
    "installed plugins, `list-plugins`": plugins,
    "responses in a batch, one step": responses,
    "steps of 16 short responses": steps,
    "a sweep of four runs": sweep_jobs,
}


def main(wanted):
    for name, sizes in TABLES.items():
        if wanted and sizes.__name__ not in wanted:
            continue
        cells = []
        with tempfile.TemporaryDirectory() as place:
            for size, *command in sizes(Path(place)):
                seconds, mib = measured(*command)
                pages = sum(p.stat().st_size for p in Path(place).glob("*.html")) / 2**20
                page = f", all pages {pages:.1f} MiB" if pages else ""
                cells.append(f"{size}: {seconds:.1f} s, {mib:,.0f} MiB{page}")
        print(f"| {name} | {'; '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

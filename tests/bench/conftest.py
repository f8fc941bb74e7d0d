"""Scripts beside tests: some run in an environment of their own, with TRL."""

collect_ignore_glob = [
    "bench_*.py",
    "work*.py",
    "cases.py",
    "growth.py",
    "turns.py",
    "first_card/*",
]

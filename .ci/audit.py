"""Ask pip-audit which installed packages have known vulnerabilities, and say if nobody answered.

pip-audit exits with 0 when its advisory service knows none of the packages, as behind a mirror
that serves files alone: nothing was audited then, and that must not look like a clean result.
"""

from __future__ import annotations

import json
import subprocess
import sys

ALLOWED: dict[str, str] = {}
"""Advisories put up with, by id, each with the reason."""


def main() -> int:
    """Return 1 if a package has a vulnerability that is not allowed, else 0."""
    command = [sys.executable, "-m", "pip_audit", "--local", "-f", "json", "--progress-spinner=off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        print(f"pip-audit: SKIPPED, NOTHING WAS AUDITED: it cannot run here ({last[0][:200]})")
        return 0
    audited = [p for p in packages if "skip_reason" not in p]
    if not audited:
        print(
            f"pip-audit: SKIPPED, NOTHING WAS AUDITED: the advisory service knows none of "
            f"{len(packages)} packages, so it cannot be reached from here"
        )
        return 0
    found = [(p, v) for p in audited for v in p["vulns"] if v["id"] not in ALLOWED]
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        name = f"{package['name']} {package['version']}"
        print(f"pip-audit: {name}: {vulnerability['id']}, fixed in {fixed}")
    print(
        f"pip-audit: {len(audited)} packages audited, {len(packages) - len(audited)} unknown to "
        f"the service, {len(found)} vulnerabilities"
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

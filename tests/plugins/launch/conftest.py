"""Made-up batch systems."""

import pytest


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that puts a program on PATH which keeps its words in ``NAME.asked``."""

    def install(name, prints="", status=0, complains=""):
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/{name}.asked\n'
            f"echo {prints!r}\necho {complains!r} >&2\nexit {status}\n"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
        return tmp_path / f"{name}.asked"

    return install

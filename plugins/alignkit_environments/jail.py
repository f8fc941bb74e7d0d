"""The program inside the sandbox; it imports only the standard library.

It is started as ``python jail.py LIMITS`` and reads the code to run from its standard input. Before
that runs, it gives up for good all that it does not need:

- files but for the standard library and what that loads, read only, by Landlock (Linux 5.13,
  https://docs.kernel.org/userspace-api/landlock.html);
- all system calls but some that compute, read and write, by a seccomp filter
  (https://docs.kernel.org/userspace-api/seccomp_filter.html): there are no sockets, no further
  processes or threads, no signals to others, no changes to files;
- memory, CPU time and new files, by resource limits.

A call that is refused raises PermissionError in the code.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import random
import resource
import struct
import sys
import sysconfig
import traceback
from typing import Any

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of Landlock's system calls, the same on every architecture."""
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights to files that a version of Landlock knows; 4 knows those of 3."""
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
PATH_BENEATH = 1
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
"""Instructions of a seccomp filter: classic BPF, 32 bits."""
KILL, ALLOW, REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | 1  # EPERM
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""How the kernel names an architecture to a filter."""
CALLS = {
    "x86_64": (
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 23, 24, 25, 28,
        32, 33, 35, 39, 60, 63, 72, 79, 89, 96, 98, 99, 100, 102, 104, 107, 108, 110, 131, 186, 201,
        202, 204, 217, 219, 228, 229, 230, 231, 257, 262, 267, 269, 270, 271, 273, 318, 324, 332,
        334, 439,
    ),
    "aarch64": (
        17, 23, 24, 25, 29, 48, 56, 57, 61, 62, 63, 64, 65, 66, 67, 72, 73, 78, 79, 80, 93, 94, 98,
        99, 101, 113, 114, 115, 123, 124, 128, 132, 134, 135, 139, 153, 160, 165, 169, 172, 173,
        174, 175, 176, 177, 178, 179, 214, 215, 216, 222, 226, 233, 278, 283, 291, 293, 439,
    ),
}  # fmt: skip
"""System calls that stay: read, write, open, stat, poll, seek, memory, signal handlers of its own,
clocks and sleep, futex, getrandom, exit, what asks for ids and limits. By their numbers in the
kernel's tables (``arch/x86/entry/syscalls/syscall_64.tbl``, ``include/uapi/asm-generic/unistd.h``).
"""
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def main() -> None:
    """Run the code on standard input within the limits; exit with 1 where it raises.

    Code that ends the process by itself does not say the word that tells of its end.
    """
    limits: dict[str, Any] = json.loads(sys.argv[1])
    parts: list[str] = json.loads(sys.stdin.readline())
    word = sys.stdin.readline().strip()
    sys.stdin = io.StringIO()
    os.close(0)
    random.seed(limits["seed"])
    limit(limits)
    libc = ctypes.CDLL(None, use_errno=True)
    _done(libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))
    lock_files(libc)
    filter_calls(libc)
    space: dict[str, Any] = {"__name__": "__main__"}
    for part in parts:
        if not _ran(part, space):
            sys.stdout.flush()
            os._exit(1)
    sys.stdout.flush()
    print(word, flush=True)  # it says that all of it ran
    os._exit(0)


def limit(limits: dict[str, Any]) -> None:
    """Bound what the process may take."""
    memory, seconds = limits["memory"], limits["seconds"]
    bounds = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: int(seconds) + 1,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for what, most in bounds.items():
        resource.setrlimit(what, (most, most))


def lock_files(libc: Any) -> None:
    """Give up all files but for the standard library; OSError where the kernel has no Landlock."""
    version = _done(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    known = FILE_RIGHTS[max(v for v in FILE_RIGHTS if v <= version)]
    rules = _Ruleset(known)
    fd = _done(libc.syscall(CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(8), 0))
    for path in _readable():
        _allow(libc, fd, path)
    _done(libc.syscall(RESTRICT_SELF, fd, 0))
    os.close(fd)


def filter_calls(libc: Any) -> None:
    """Give up all system calls but those that stay; KeyError on an unknown architecture."""
    machine = os.uname().machine
    steps = [(LOAD, 0, 0, 4), (JUMP_IF_EQUAL, 1, 0, MACHINES[machine]), (RETURN, 0, 0, KILL)]
    steps.append((LOAD, 0, 0, 0))
    for number in CALLS[machine]:
        steps += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    steps.append((RETURN, 0, 0, REFUSE))
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(steps), ctypes.addressof(kept))
    _done(libc.prctl(SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0))


def _readable() -> list[str]:
    names = ("stdlib", "platstdlib")
    own = [sysconfig.get_paths()[name] for name in names]
    own.append(str(sysconfig.get_config_var("LIBDIR") or ""))
    return [path for path in dict.fromkeys([*own, *LIBRARIES]) if path and os.path.exists(path)]


def _allow(libc: Any, ruleset: int, path: str) -> None:
    rights = READ_FILE | EXECUTE | (READ_DIR if os.path.isdir(path) else 0)
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = _Beneath(rights, fd)
    _done(libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0))
    os.close(fd)


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the sandbox: {os.strerror(number)}")
    return result


def _ran(code: str, space: dict[str, Any]) -> bool:
    """Execute code; say in one line what it raised and where, if it did."""
    try:
        exec(compile(code, "<code>", "exec"), space)  # nosec B102
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt as well
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if "<code>" in f[0]]
        where = f"line {lines[-1]}: " if lines else ""
        said = traceback.format_exception_only(type(error), error)[-1].strip()
        print(f"error: {where}{said}", flush=True)
        return False
    return True


if __name__ == "__main__":
    main()

"""Give up, for good, everything that reading a document does not need.

Called in the child process after its imports and before it looks at the file. What is left: the
processor, memory, and the descriptors already open. Each layer is independent, because each is
missing somewhere: namespaces in most containers, Landlock on old kernels, another user for
everyone but root. What could not be put on is returned, and the parent logs it.
Sources: unshare(2), seccomp(2), landlock(7), capabilities(7), kernel uapi headers.
"""

import ctypes
import os
import resource
import struct
import sys

NOBODY = 65534

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 38, 22
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x8000000, 0x10000000, 0x40000000
SIGKILL = 9

# Landlock: 13 rights on files at ABI 1, one more at 2, 3 and 5; TCP from 4, signals and abstract
# sockets from 6. Handling a right without granting it anywhere refuses it everywhere.
LANDLOCK_CREATE, LANDLOCK_RESTRICT = 444, 446
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
FILE_RIGHTS_NOW = 16

# Calls that reach beyond the process: sockets, running programs, signals and memory of others,
# limits of others, mounts, namespaces, kernel keys, and io_uring, which would go around all of it.
DENIED = {
    "x86_64": (0xC000003E, (41, 42, 53, 59, 62, 101, 129, 155, 165, 166, 200, 234, 248, 249, 250,
                            272, 297, 298, 302, 308, 310, 311, 319, 321, 322, 323, 424, 425, 434)),
    "aarch64": (0xC00000B7, (39, 40, 41, 97, 117, 129, 130, 131, 138, 198, 199, 203, 217, 218, 219,
                             221, 240, 241, 261, 268, 270, 271, 279, 280, 281, 282, 424, 425, 434)),
}  # fmt: skip
X32_CALLS = 0x40000000  # the second numbering of x86_64

_libc = ctypes.CDLL(None, use_errno=True)


def limit(cpu_s: int, memory_bytes: int) -> None:
    """Bound processor time (seconds), address space, open files; no core dumps."""
    _lower(resource.RLIMIT_CPU, cpu_s)
    _lower(resource.RLIMIT_AS, memory_bytes)
    _lower(resource.RLIMIT_NOFILE, 64)
    _lower(resource.RLIMIT_CORE, 0)


def lock(empty_root_parent: str) -> list[str]:
    """Close every door; names the layers that this machine does not have."""
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NPROC, 0)
    if sys.platform != "linux":
        return ["namespaces", "landlock", "seccomp"]
    layers = {
        "namespaces": _namespaces(empty_root_parent),
        "user": _leave_root(),
        "landlock": _prctl(PR_SET_NO_NEW_PRIVS, 1) and _landlock(),
        "seccomp": _seccomp(),
    }
    return [name for name, is_on in layers.items() if not is_on]


def die_with_parent(parent: int) -> None:
    """Have the kernel kill us when process `parent` ends; a change of user clears it."""
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _lower(which: int, value: int) -> None:
    """Set a limit for good; a lower one that is already there stays."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    try:
        resource.setrlimit(which, (value, value))
    except (ValueError, OSError):  # macOS refuses RLIMIT_AS
        if sys.platform == "linux":
            raise


def _namespaces(parent_folder: str) -> bool:
    """Enter a network without interfaces and a root folder without files."""
    flags = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS
    own = _libc.unshare(flags) == 0 if os.geteuid() == 0 else False
    if not own and _libc.unshare(flags | CLONE_NEWUSER) != 0:
        return False
    return _enter_empty_root(parent_folder)


def _enter_empty_root(parent_folder: str) -> bool:
    """Make a folder that is already deleted our root: nothing is in it, nothing can be put there."""
    folder = os.path.join(parent_folder, f"tacit-empty-{os.getpid()}")
    try:
        os.mkdir(folder, 0o700)
        os.chdir(folder)
        os.rmdir(folder)
        os.chroot(".")
    except OSError:
        return False
    return True


def _leave_root() -> bool:
    """Become nobody; true as well for someone who never was root."""
    if os.geteuid() != 0:
        return True
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:  # root of a user namespace that knows no other user
        return False
    return True


def _landlock() -> bool:
    """Refuse to open, make, change or remove any file, TCP, and signals to other processes."""
    abi = _libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return False
    files = (1 << FILE_RIGHTS.get(abi, FILE_RIGHTS_NOW)) - 1
    network, scopes = (0b11 if abi >= 4 else 0), (0b11 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = struct.pack("=QQQ", files, network, scopes)
    ruleset = _libc.syscall(LANDLOCK_CREATE, attributes, size, 0)
    return ruleset >= 0 and _libc.syscall(LANDLOCK_RESTRICT, ruleset, 0) == 0


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _seccomp() -> bool:
    """Answer "not permitted" to the calls in DENIED."""
    if os.uname().machine not in DENIED:
        return False
    architecture, calls = DENIED[os.uname().machine]
    code = _filter(architecture, calls)
    program = _Program(len(code) // 8, code)
    return _libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0) == 0


def _filter(architecture: int, calls: tuple[int, ...]) -> bytes:
    """Assemble the classic BPF program: (code, jump if true, jump if false, operand) each."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allow, refuse = 0x7FFF0000, 0x00050001  # the low half is EPERM
    steps = [(load, 0, 0, 4), (equal, 0, len(calls) + 3, architecture), (load, 0, 0, 0)]
    steps.append((at_least, len(calls) + 1, 0, X32_CALLS))
    for position, call in enumerate(calls):
        steps.append((equal, len(calls) - position, 0, call))
    steps += [(answer, 0, 0, allow), (answer, 0, 0, refuse)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _prctl(option: int, value: int) -> bool:
    return bool(_libc.prctl(option, value, 0, 0, 0) == 0)

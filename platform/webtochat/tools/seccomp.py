"""A seccomp filter (seccomp(2), BPF) that refuses a sandboxed program new processes and threads, memory that no limit
counts, sockets, and the parts of the kernel that have most often let programs out. All else is allowed: what there is
to reach, the namespaces decide.
"""

from __future__ import annotations

import errno
import platform
import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_… of linux/audit.h."""
REFUSED = {
    # (x86-64, arm64); arm64 has neither fork nor vfork
    "fork": (57, None), "vfork": (58, None), "clone": (56, 220), "clone3": (435, 435),
    "socket": (41, 198), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "chroot": (161, 51),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "personality": (135, 92),
    "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273),
}  # fmt: skip
NUMBER, ARCHITECTURE = 0, 4
"""Offsets in struct seccomp_data."""
LOAD, JUMP_EQUAL, JUMP_ABOVE, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
X32 = 0x40000000
"""From here on are x86-64's calls by other numbers."""


def program() -> bytes:
    """The filter for this machine. Raises KeyError on an architecture whose numbers stand not above."""
    machine = platform.machine()
    column = list(ARCHITECTURES).index(machine) if machine in ARCHITECTURES else -1
    architecture = ARCHITECTURES[machine]
    numbers = [both[column] for both in REFUSED.values() if both[column] is not None]
    steps = [(LOAD, 0, 0, ARCHITECTURE), (JUMP_EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    steps.append((JUMP_ABOVE, len(numbers) + 1, 0, X32))
    steps += [(JUMP_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]  # type: ignore[misc]
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)

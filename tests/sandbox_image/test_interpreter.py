"""An allowed interpreter is as much freedom as anything on the list could have. It stays in its domain all the same."""

from __future__ import annotations

import pytest

from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.engine

BYPASS = """
import ctypes, errno, mmap, os, shutil, socket, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
places = ('/lib64/ld-linux-x86-64.so.2', '/lib/ld-linux-aarch64.so.1')
loader = os.path.realpath(next(place for place in places if os.path.exists(place)))
libc_file = os.path.join(os.path.dirname(loader), 'libc.so.6')
def name(action):
    try:
        action()
    except OSError as failure:
        return errno.errorcode[failure.errno]
    return 'worked'
def started(path, *argv):
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(path, [path, *argv])
        except OSError as failure:
            os._exit(200 if failure.errno == errno.EACCES else 201)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

# From inside an allowed interpreter, which is as much freedom as anything on the list could ever have.
TRICKS = {
    "direct": ("print(started('/usr/bin/id'))", "200"),
    "shell": ("print(started('/bin/sh', '-c', 'id'))", "200"),
    "loader": ("print(started(loader, '/usr/bin/id'))", "127"),
    "loader with a helper of git": ("print(started(loader, '/usr/lib/git-core/git', 'version'))", "127"),
    "library as program": ("print(started(libc_file))", "200"),
    "script in the workspace": (
        "open('s', 'w').write('#!/usr/bin/python3\\nprint(1)\\n'); os.chmod('s', 0o755); print(started('./s'))",
        "200",
    ),
    "copy in the workspace": (
        "shutil.copyfile('/usr/bin/python3', 's2'); os.chmod('s2', 0o755); print(started('./s2', '-c', '1'))",
        "200",
    ),
    "copy through the loader": (
        "shutil.copyfile('/usr/bin/python3', '/tmp/s3'); print(started(loader, '/tmp/s3', '-c', '1'))",
        "127",
    ),
    "copy in shared memory": (
        "s = '/dev/shm/s'; shutil.copyfile('/usr/bin/python3', s); os.chmod(s, 0o755); print(started(s))",
        "200",
    ),
    "memory file": ("print(name(lambda: os.memfd_create('x')))", "EPERM"),
    "descriptor path": (
        "fd = os.open('/usr/bin/id', os.O_PATH); print(name(lambda: os.execve(fd, ['id'], {})))",
        "EPERM|EACCES|ENOSYS|ENOENT",
    ),
    "mapping workspace code": (
        "open('m', 'wb').write(b'x' * 4096); f = open('m', 'r+b')\n"
        "code = mmap.PROT_READ | mmap.PROT_EXEC\n"
        "print(name(lambda: mmap.mmap(f.fileno(), 4096, flags=mmap.MAP_PRIVATE, prot=code)))",
        "EPERM",
    ),
    "library from the workspace": (
        "shutil.copyfile(libc_file, 'l.so')\n"
        "try:\n    ctypes.CDLL('/workspace/l.so'); print('worked')\nexcept OSError: print('refused')",
        "refused",
    ),
    "new user namespace": ("libc.unshare(0x10000000); print(errno.errorcode[ctypes.get_errno()])", "EPERM"),
    "tracing": ("libc.ptrace(0, 0, 0, 0); print(errno.errorcode[ctypes.get_errno()])", "EPERM"),
    "memory of another": ("print(name(lambda: open(f'/proc/{os.getppid()}/mem', 'rb')))", "EACCES"),
    "a device": ("print(name(lambda: os.mknod('d', 0o600 | stat.S_IFCHR, os.makedev(1, 1))))", "EACCES|EPERM"),
    "a socket in the workspace": (
        "s = socket.socket(socket.AF_UNIX); print(name(lambda: s.bind('/workspace/sock')))",
        "EACCES",
    ),
    "listening on a port": ("s = socket.socket(); print(name(lambda: s.bind(('127.0.0.1', 8000))))", "EACCES"),
    "connecting to a port": ("s = socket.socket(); print(name(lambda: s.connect(('127.0.0.1', 9))))", "EACCES"),
    "raw packets": ("print(name(lambda: socket.socket(17, 3, 0)))", "EPERM"),
    "virtual machine sockets": ("print(name(lambda: socket.socket(40, 1, 0)))", "EPERM"),
    "the supervisor's socket": ("print(name(lambda: os.unlink('/run/sandboxd/sandboxd.sock')))", "EACCES"),
    "a new name for the supervisor": ("print(name(lambda: open('/run/sandboxd/new', 'w')))", "EACCES"),
    "the root": ("print(name(lambda: open('/etc/x', 'w')))", "EACCES|EROFS"),
    "more rights": ("print(name(lambda: os.setuid(0)))", "EPERM"),
    "becoming root by a file": ("print(started('/usr/bin/su'))", "200|201"),
}


@pytest.mark.parametrize("trick", list(TRICKS))
def test_even_an_interpreter_cannot_leave_its_domain(sandbox: Sandbox, trick: str) -> None:
    script, allowed = TRICKS[trick]
    sandbox.list("/usr/bin/python3", digest="python")
    ran = sandbox.python(BYPASS + script)
    assert ran.stdout.decode().strip() in allowed.split("|"), ran.text
    assert "uid=" not in ran.text


def test_a_link_swapped_between_check_and_use_opens_nothing(sandbox: Sandbox) -> None:
    """However the race ends, what is opened lies inside the grants."""
    sandbox.list("/usr/bin/python3", digest="python")
    script = """
import os, threading
open('real', 'w').write('mine')
stop = False
def swap():
    while not stop:
        for target in ('real', '/etc/hostname'):
            os.symlink(target, 'next'); os.rename('next', 'name')
swapper = threading.Thread(target=swap); swapper.start()
read = set()
for _ in range(3000):
    try:
        read.add(open('name').read())
    except OSError as failure:
        read.add(failure.errno)
stop = True; swapper.join()
print(sorted(map(str, read - {2, 13, 'mine'})))
"""
    assert sandbox.python(script).stdout == b"[]\n"

"""The listed programs: which file each really is, and which paths its domain will hold."""

from __future__ import annotations

import json
import os
import stat

# Directories full of programs: reading one is as good as executing in it, because the loader runs what it can read.
_PROGRAM_DIRECTORIES = (
    "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/libexec", "/usr/local/bin", "/usr/local/sbin", "/usr/games",
    "/usr/lib/git-core", "/usr/lib/apt", "/usr/lib/dpkg", "/usr/lib/klibc", "/opt/sandboxd",
)  # fmt: skip
# Pseudo files: other names for files that were not granted, and other processes' secrets.
_PSEUDO_DIRECTORIES = ("/proc", "/sys", "/dev", "/run/sandboxd")

Grant = tuple[str, str]
Rule = tuple[str, str, bool]


class Refused(Exception):
    """The request cannot be accepted as it is; the message says why."""


def is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


class Needs:
    """What a program of this image reads, writes and starts beside the tenant's files."""

    __slots__ = ("rules", "starts")

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.starts: list[str] = []


class Image:
    """The image as its own description (`image.json`) and its file system tell."""

    def __init__(self, description: dict[str, object]) -> None:
        places = (f"/{directory}/{name}" for directory in ("lib", "lib64") for name in _names(f"/{directory}"))
        loaders = [os.path.realpath(place) for place in places if os.path.basename(place).startswith("ld-linux")]
        self.loaders = sorted(set(loaders))
        self.libraries = sorted({os.path.dirname(loader) for loader in self.loaders} - {"/usr/lib", "/lib"})
        self.base: list[Rule] = [(path, "execute", True) for path in self.loaders]
        self.base += [(path, "read", True) for path in self.libraries]
        base = _mapping(description.get("base"))
        self.base += [(path, "read", True) for path in _texts(base.get("read"))]
        self.base += [(path, "device", True) for path in _texts(base.get("device"))]
        self._needs: dict[str, Needs] = {}
        programs = _mapping(description.get("programs"))
        for path, raw in programs.items():
            entry = _mapping(raw)
            needs = Needs()
            for source in (_mapping(programs.get(str(entry.get("like", "")))), entry):
                needs.rules += [(name, "read", True) for name in _texts(source.get("read"))]
                needs.rules += [(name, "write", True) for name in _texts(source.get("write"))]
                needs.starts += _texts(source.get("starts"))
            self._needs[os.path.realpath(path)] = needs

    @classmethod
    def load(cls, path: str) -> Image:
        """Read the description; an image without one (a company's own) has the defaults of the base alone."""
        try:
            with open(path, encoding="utf-8") as file:
                return cls(_mapping(json.load(file)))
        except FileNotFoundError:
            return cls({"base": {"read": ["/etc/ld.so.cache"], "device": ["/dev/null", "/dev/urandom"]}})

    def needs(self, realpath: str) -> Needs:
        return self._needs.get(realpath) or Needs()


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def check_grant(path: str, access: str, roots: tuple[str, ...]) -> None:
    """Raise Refused when granting this would open more than files: programs, devices, other names for files."""
    if access not in ("list", "read", "write"):
        raise Refused(f"{access!r} is no access")
    if not path.startswith("/") or "\0" in path or os.path.normpath(path) != path or len(path) > 4096:
        raise Refused(f"{path[:200]!r} is not a plain absolute path")
    if any(is_below(path, root) for root in roots):
        return
    if access == "write":
        raise Refused(f"{path[:200]!r} cannot be made writable: only {', '.join(roots)} can")
    for directory in _PROGRAM_DIRECTORIES:
        if is_below(path, directory) or is_below(directory, path):
            raise Refused(f"{path[:200]!r} holds programs, and what can be read can be executed")
    for directory in _PSEUDO_DIRECTORIES:
        if is_below(path, directory) or is_below(directory, path):
            raise Refused(f"{path[:200]!r} holds pseudo files")


class Listed:
    """One program that may start."""

    __slots__ = ("path", "realpath", "rules", "starts", "tenant_rules")

    def __init__(self, path: str, realpath: str) -> None:
        self.path = path
        self.realpath = realpath
        self.rules: list[Rule] = []
        self.tenant_rules: list[Rule] = []
        self.starts: list[str] = []

    def domain_rules(self, extra: list[Grant], *, replace: bool, roots: tuple[str, ...]) -> list[Rule]:
        """Everything this program's domain holds, with a command's own grants on top of (or instead of) its own."""
        return self.rules + ([] if replace else self.tenant_rules) + tenant_rules(extra, roots)


def tenant_rules(grants: list[Grant], roots: tuple[str, ...]) -> list[Rule]:
    """Links are followed only where no tenant can have made them."""
    return [(path, access, not any(is_below(path, root) for root in roots)) for path, access in grants]


def real_program(path: str, image: Image, roots: tuple[str, ...]) -> str:
    """The file behind a program's path. Raises Refused when it is not safe to list."""
    if not path.startswith("/") or "\0" in path or os.path.normpath(path) != path:
        raise Refused("not a plain absolute path")
    realpath = os.path.realpath(path)
    if any(is_below(realpath, root) for root in roots):
        raise Refused("lies where the tenant can write")
    if realpath in image.loaders or os.path.basename(realpath).startswith(("ld-linux", "ld.so", "libc.so")):
        raise Refused("is the loader, which runs any program")
    try:
        status = os.stat(realpath)
    except OSError as failure:
        raise Refused(failure.strerror or "cannot be found") from None
    if not stat.S_ISREG(status.st_mode) or not os.access(realpath, os.X_OK):
        raise Refused("is not an executable file")
    if status.st_uid == os.getuid() or status.st_mode & 0o022 or os.access(realpath, os.W_OK):
        raise Refused("can be changed by the tenant")
    return realpath


class Policy:
    """What is listed now. An empty one, before the first push, lists nothing."""

    def __init__(self, digest: str | None = None) -> None:
        self.digest = digest
        self.programs: dict[str, Listed] = {}
        self.refused: dict[str, str] = {}

    def add(self, path: str, grants: list[Grant], starts: list[str], image: Image, roots: tuple[str, ...]) -> None:
        try:
            listed = Listed(path, real_program(path, image, roots))
            needs = image.needs(listed.realpath)
            listed.tenant_rules = tenant_rules(grants, roots)
            listed.rules = image.base + needs.rules + [(listed.realpath, "execute", True)]
            for other in [*filter(os.path.exists, needs.starts), *starts]:
                started = real_program(other, image, roots)
                listed.starts.append(started)
                listed.rules = [*listed.rules, (started, "execute", True), *image.needs(started).rules]
            if _is_script(listed.realpath) and not listed.starts:
                raise Refused("is a script: name its interpreter among what it starts")
        except Refused as refusal:
            self.refused[path] = str(refusal)
            return
        self.programs[path] = listed

    def find(self, path: str) -> Listed | None:
        return self.programs.get(path)


def _is_script(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def programs_in_libraries(image: Image) -> list[str]:
    """Files in the directories every program may read that the loader could run as a program.

    Checked when the image is built. Some libraries carry an interpreter only to print their version.
    """
    found = []
    trees = [
        *image.libraries,
        *(path for path, access, _ in image.base if access == "read" and path.startswith("/usr")),
    ]
    for tree in sorted(set(trees)):
        for directory, _, names in os.walk(tree):
            for name in names:
                path = os.path.join(directory, name)
                harmless = name.startswith("ld-linux") or (name.startswith("lib") and ".so" in name)
                if not harmless and not os.path.islink(path) and _is_program(path):
                    found.append(path)
    return sorted(set(found))


def _is_program(path: str) -> bool:
    """A 64-bit ELF file that names an interpreter or is statically placed."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if head[:5] != b"\x7fELF\x02":
                return False
            kind = int.from_bytes(head[16:18], "little")
            offset = int.from_bytes(head[32:40], "little")
            size, count = int.from_bytes(head[54:56], "little"), int.from_bytes(head[56:58], "little")
            file.seek(offset)
            table = file.read(size * count)
    except OSError:
        return False
    interpreted = any(table[at : at + 4] == b"\x03\0\0\0" for at in range(0, len(table), size or 1))
    return kind == 2 or interpreted

"""Programs known to start others, run code, or write files through a flag. Data for the linter; never complete,
which is why free arguments are refused for every program that is not known to be harmless."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# No shell is ever started, whatever a rule accepts. The loader and multi-call programs are many programs in one file.
NEVER = _words(
    "ash bash busybox coreutils csh dash fish ksh mksh rbash sh tcsh toybox zsh docker kubectl machinectl "
    "nsenter podman runc su sudo doas pkexec systemd-run unshare chroot"
)
LOADER = re.compile(r"ld(?:-linux.*|-musl.*)?\.so(?:\.[0-9.]+)?|libc\.so(?:\.6)?")

# They start the program named in their arguments.
WRAPPERS = _words(
    "chrt dbus-launch env expect faketime flock gdb ionice ltrace nice nohup parallel perf prlimit rlwrap "
    "run-parts script setarch setpriv setsid ssh start-stop-daemon stdbuf strace taskset time timeout "
    "torify valgrind watch xargs"
)

# They run code from their arguments or from files.
INTERPRETERS = _words(
    "R Rscript ant awk bc bundle bun cargo cmake composer cpan deno ed elixir emacs erl ex ftp gawk gem "
    "ghc go gradle groovy irb java jq jrunscript jshell julia less lua luajit make man mawk more mutt mvn "
    "mysql nano nawk ninja node npm npx ocaml perl pg php pico pip pip3 pipx pnpm poetry psql pytest "
    "python python2 python3 rake rpm ruby rustc scala scp sed sqlite3 swift tclsh telnet uv uvx vi view "
    "vim vimdiff wish yarn"
)
VERSIONED = re.compile(r"(python|perl|ruby|lua|php|node|tclsh|pip)[0-9.]+")

# Harmless whatever they are given: they neither start programs, nor write, nor read files.
INERT = _words("echo false pwd true uname whoami")

# Flags that start programs, write where they like or read what another file names.
STARTING_FLAGS: dict[str, frozenset[str]] = {
    "find": _words("-exec -execdir -ok -okdir -files0-from"),
    "git": _words(
        "-c -C --config-env --exec-path --git-dir --work-tree --namespace -p --paginate --upload-pack "
        "--receive-pack -u --exec -x --ext-diff --textconv -O --open-files-in-pager --no-index --template "
        "--edit -e --gpg-sign -S"
    ),
    "grep": _words("-P --perl-regexp -f --file"),
    "rg": _words("--pre --hostname-bin -z --search-zip"),
    "sort": _words("--compress-program --files0-from -T --temporary-directory"),
    "split": _words("--filter"),
    "tar": _words(
        "-I --use-compress-program --to-command --checkpoint-action -F --info-script --new-volume-script "
        "--rsh-command --rmt-command -P --absolute-names"
    ),
    "zip": _words("-T -TT --unzip-command"),
    "rsync": _words("-e --rsh --rsync-path"),
    "wc": _words("--files0-from"),
    "du": _words("--files0-from"),
    "date": _words("-f --file -s --set"),
    "diff": _words("--to-file --from-file"),
    "jq": _words("-f --from-file -L --library-path --rawfile --slurpfile --argfile"),
}
WRITING_FLAGS: dict[str, frozenset[str]] = {
    "base64": _words("-o --output"),
    "find": _words("-delete -fprint -fprint0 -fprintf -fls"),
    "git": _words("--output -o"),
    "sed": _words("-i --in-place"),
    "sort": _words("-o --output"),
    "curl": _words("-o --output -O --remote-name"),
    "wget": _words("-O --output-document"),
}
# The second positional of these is a file they write.
WRITING_SECOND_POSITIONAL = _words("uniq")

# Variables that make a program load or start something.
LOADING_VARIABLES = re.compile(
    r"LD_.*|GCONV_PATH|BASH_ENV|ENV|IFS|PYTHON(?:PATH|STARTUP|HOME|INSPECT|BREAKPOINT)|NODE_OPTIONS|PERL5?(?:LIB|OPT|DB)|RUBY(?:OPT|LIB)|"
    r"GIT_(?:EXTERNAL_DIFF|SSH|SSH_COMMAND|ASKPASS|EDITOR|SEQUENCE_EDITOR|PROXY_COMMAND|EXEC_PATH|TEMPLATE_DIR)|"
    r"TAR_OPTIONS|RIPGREP_CONFIG_PATH|LESSOPEN|LESSCLOSE|PSQLRC|PGOPTIONS|PGSERVICEFILE|EDITOR|VISUAL|BROWSER|SHELL"
)
# What git must be told so that a repository's own configuration starts nothing.
GIT_PINS = ("core.fsmonitor", "core.hookspath", "core.pager")
GIT_SHOWING = _words("blame diff format-patch grep log range-diff show stash whatchanged")
GIT_SHOWING_INSERTS = ("--no-ext-diff", "--no-textconv")


def is_never(name: str) -> bool:
    return name in NEVER or LOADER.fullmatch(name) is not None


def runs_code(name: str) -> bool:
    return name in INTERPRETERS or VERSIONED.fullmatch(name) is not None

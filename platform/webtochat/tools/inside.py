"""What Python runs inside bubblewrap: reads a program from stdin, limits itself, runs it as a notebook would. Its text
is handed over by `-c`, so nothing of webtochat is there to import.

    python3 -I -S -c TEXT CPU_SECONDS MEMORY_BYTES
"""

import ast
import linecache
import resource
import sys
import traceback
import types

NAME = "<python>"


def limit(cpu_seconds: int, memory: int) -> None:
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, memory),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 1),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(what, (most, most))


def main() -> int:
    complaints = sys.stderr
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    sys.stderr = sys.stdout  # in one stream with what is printed, in its order; stderr itself tells what went wrong
    code = sys.stdin.buffer.read().decode()
    linecache.cache[NAME] = (len(code), None, code.splitlines(keepends=True), NAME)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        tree = ast.parse(code, NAME)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, NAME, "exec"), module.__dict__)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), NAME, "eval"), module.__dict__)
            if value is not None:
                print(repr(value))
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            print(f"SystemExit: {leaving.code}", file=complaints)
            return 1
    except BaseException as error:  # noqa: BLE001  # whatever the program raises is told, as Python would
        frame = error.__traceback__
        while frame is not None and frame.tb_frame.f_code.co_filename != NAME:  # ours, and the parser's
            frame = frame.tb_next
        told = traceback.format_exception(type(error), error, frame, limit=-12)
        print("".join(told), file=complaints)
        return 1
    return 0


if __name__ == "__main__":
    limit(int(sys.argv[1]), int(sys.argv[2]))
    sys.exit(main())

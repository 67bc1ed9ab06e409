"""Programs that try to get out, to learn something, or to take the machine down. `@SECRET@` is a readable file of the
host, `@MARKER@` a path that they try to write, `@PORT@` a listening port, `@VICTIM@` the id of a process. A program
that prints the secret, or the word ESCAPED, got out.
"""

PROGRAMS = {
    # files
    "read": "print(open('@SECRET@').read())",
    "read_bytes": "print(open('@SECRET@', 'rb').read())",
    "read_pathlib": "import pathlib\nprint(pathlib.Path('@SECRET@').read_text())",
    "read_os": "import os\nprint(os.read(os.open('@SECRET@', os.O_RDONLY), 1000))",
    "read_io": "import io\nprint(io.FileIO('@SECRET@').readall())",
    "read_relative": "print(open('../../../../../../../..@SECRET@').read())",
    "read_passwd": "print('ESCAPED' if 'root:' in open('/etc/passwd').read() else '')",
    "read_shadow": "print('ESCAPED', open('/etc/shadow').read())",
    "list_home": "import os\nprint('ESCAPED', os.listdir(os.path.expanduser('~root')))",
    "list_etc": "import os\nprint('ESCAPED', os.listdir('/etc'))",
    "walk": "import os\nfor top, _, names in os.walk('/'):\n    if 'canary.txt' in names: print('ESCAPED', top)",
    "glob": "import glob\nprint(['ESCAPED' for path in glob.glob('/**/canary.txt', recursive=True)])",
    "write": "open('@MARKER@', 'w').write('x')\nprint('wrote')",
    "write_root": "open('/marker', 'w').write('x')\nprint('ESCAPED')",
    "write_usr": "open('/usr/local/marker', 'w').write('x')\nprint('ESCAPED')",
    "write_library": "import os\nopen(os.__file__, 'a').write('#')\nprint('ESCAPED')",
    "overwrite": "open('@SECRET@', 'w').write('gone')",
    "delete": "import os\nos.remove('@SECRET@')",
    "delete_all": "import shutil\nshutil.rmtree('/', ignore_errors=True)",
    "chmod": "import os\nos.chmod('@SECRET@', 0o777)",
    "symlink": "import os\nos.symlink('@SECRET@', '/tmp/link')\nprint(open('/tmp/link').read())",
    "hard_link": "import os\nos.link('@SECRET@', '/tmp/link')\nprint(open('/tmp/link').read())",
    "symlink_out": "import os\nos.symlink('@MARKER@', '/tmp/out')\nopen('/tmp/out', 'w').write('x')",
    "device": "import os\nos.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))\nprint('ESCAPED')",
    "disk": "print('ESCAPED', open('/dev/sda', 'rb').read(10))",
    "memory_device": "print('ESCAPED', open('/dev/mem', 'rb').read(10))",
    "shared_memory": "open('/dev/shm/x', 'wb').write(b'x' * (1 << 20))\nprint('ESCAPED')",
    "inherited_descriptors": (
        "import os\nfor number in range(3, 4096):\n    try:\n        text = os.read(number, 100)\n"
        "        if b'canary' in text: print('ESCAPED', text)\n    except OSError: pass"
    ),
    "write_descriptors": "import os\nfor number in range(3, 4096):\n    try:\n        os.write(number, b'x')\n"
    "        print('ESCAPED')\n    except OSError: pass",
    # what the machine tells
    "environment": "import os\nprint(dict(os.environ))",
    "getenv": "import os\nprint(os.getenv('WEBTOCHAT_CANARY'))",
    "proc_environment": "print(open('/proc/self/environ').read())",
    "proc_parent": "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())",
    "proc_list": "import os\nprint('ESCAPED', os.listdir('/proc'))",
    "proc_root": "import os\nprint('ESCAPED', os.listdir('/proc/1/root'))",
    "proc_memory": "open('/proc/self/mem', 'r+b').read(1)\nprint('ESCAPED')",
    "kernel": "print('ESCAPED', open('/proc/version').read(), open('/proc/kallsyms').read(100))",
    "sys": "import os\nprint('ESCAPED', os.listdir('/sys'))",
    "cgroup": "open('/sys/fs/cgroup/cgroup.procs').read()\nprint('ESCAPED')",
    "hostname": "import socket\nprint('ESCAPED' if socket.gethostname() == '@HOSTNAME@' else '')",
    "uname": "import os\nprint('ESCAPED' if os.uname().nodename == '@HOSTNAME@' else '')",
    "arguments": "import sys\nprint('ESCAPED' if '@SECRET@' in str(sys.argv) or '/work' in str(sys.path) else '')",
    "webtochat": "import webtochat\nprint('ESCAPED')",
    "packages": "import numpy\nprint('ESCAPED')",
    "packages_by_path": "import sys\nsys.path.insert(0, '@PACKAGES@')\nimport yaml\nprint('ESCAPED')",
    # network
    "connect": "import socket\nsocket.create_connection(('127.0.0.1', @PORT@), timeout=1).send(b'hello')",
    "connect_v6": "import socket\nsocket.create_connection(('::1', @PORT@), timeout=1).send(b'hello')",
    "connect_public": "import socket\nsocket.create_connection(('1.1.1.1', 80), timeout=1)\nprint('ESCAPED')",
    "resolve": "import socket\nprint('ESCAPED', socket.getaddrinfo('example.com', 80))",
    "http": "import urllib.request\nprint(urllib.request.urlopen('http://127.0.0.1:@PORT@/', timeout=1).read())",
    "abstract_socket": (
        "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0webtochat-canary-@PORT@')\nprint('ESCAPED')"
    ),
    "listen": "import socket\nsocket.create_server(('0.0.0.0', 0))\nprint('ESCAPED')",
    "raw_socket": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nprint('ESCAPED')",
    "netlink": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\nprint('ESCAPED')",
    "asyncio_connect": (
        "import asyncio\nasync def go():\n    await asyncio.open_connection('127.0.0.1', @PORT@)\n"
        "    print('ESCAPED')\nasyncio.run(go())"
    ),
    # processes
    "system": "import os\nprint('ESCAPED' if os.system('true') == 0 else '')",
    "shell": "import subprocess\nprint('ESCAPED', subprocess.check_output('id', shell=True))",
    "exec": "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo ESCAPED'])",
    "spawn": "import os\nprint('ESCAPED' if os.posix_spawn('/bin/true', ['true'], {}) else '')",
    "fork": "import os\nos.fork()\nprint('ESCAPED')",
    "fork_bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError: pass",
    "threads": "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(60,)).start()",
    "multiprocessing": "import multiprocessing\nwith multiprocessing.Pool(2) as pool: print('ESCAPED')",
    "daemon": "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while True: pass",
    "kill_victim": "import os\nos.kill(@VICTIM@, 9)\nprint('ESCAPED')",
    "kill_all": "import os\nos.kill(-1, 9)",
    "kill_parent": "import os\nos.kill(os.getppid(), 9)",
    "kill_group": "import os\nos.killpg(0, 9)",
    "signals": "import signal\nfor number in range(1, 65):\n    try: signal.signal(number, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nwhile True: pass",
    "alarm": "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True: pass",
    "priority": "import os\nos.setpriority(os.PRIO_PROCESS, 0, -20)\nprint('ESCAPED')",
    "exit": "import os\nos._exit(0)",
    "abort": "import os\nos.abort()",
    "segfault": "import ctypes\nctypes.string_at(0)",
    "stop": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    # the kernel
    "root": "import os\nos.setuid(0)\nprint('ESCAPED')",
    "chroot": "import os\nos.chroot('/tmp')\nprint('ESCAPED')",
    "raise_limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "print('ESCAPED')"
    ),
    "limit_of_victim": "import resource\nresource.prlimit(@VICTIM@, resource.RLIMIT_CPU, (0, 0))\nprint('ESCAPED')",
    "unshare": "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).unshare(0x10000000) == 0 else '')",
    "ptrace": "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else '')",
    "mount": (
        "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0 else '')"
    ),
    "remount": (
        "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).mount(b'x', b'/', b'x', 0x1020 & ~1, None) == 0 else '')"
    ),
    "setns": "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).setns(0, 0) == 0 else '')",
    "clone": "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0 else '')",
    "x32": "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).syscall(0x40000000 + 57) >= 0 else '')",
    "bpf": "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).syscall(321, 0, 0, 0) >= 0 else '')",
    "io_uring": "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).syscall(425, 1, 0) >= 0 else '')",
    "keyring": "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).syscall(250, 0, -3, 0) >= 0 else '')",
    "memfd": "import os\nos.memfd_create('x')\nprint('ESCAPED')",
    "shared_segment": "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600) >= 0 else '')",
    "terminal": "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSTI, b'x')\nprint('ESCAPED')",
    # the interpreter
    "subclasses": (
        "for each in ().__class__.__base__.__subclasses__():\n    if each.__name__ == 'FileLoader':\n"
        "        print(each('', '@SECRET@').get_data('@SECRET@'))"
    ),
    "globals_of_function": (
        "import os\nfound = [each for each in object.__subclasses__() if each.__name__ == '_wrap_close']\n"
        "print('ESCAPED' if found and found[0].__init__.__globals__['system']('true') == 0 else '')"
    ),
    "import_dunder": "print(__import__('os').popen('cat @SECRET@').read())",
    "import_builtins": "import builtins\nprint(builtins.__dict__['open']('@SECRET@').read())",
    "import_eval": "print(eval(\"__import__('pathlib').Path('@SECRET@').read_text()\"))",
    "import_code": "exec(compile(\"print(open('@SECRET@').read())\", 'x', 'exec'))",
    "import_pickle": "import pickle\nprint(pickle.loads(b\"cos\\nsystem\\n(S'cat @SECRET@'\\ntR.\"))",
    "import_written": "open('/tmp/evil.py', 'w').write('x = 1')\nimport sys\nsys.path.insert(0, '/tmp')\nimport evil",
    "frames": "import sys\nframe = sys._getframe()\nwhile frame:\n    print(frame.f_globals)\n    frame = frame.f_back",
    "objects": (
        "import gc\nprint([each for each in gc.get_objects() if type(each) is dict and 'WEBTOCHAT_CANARY' in each])"
    ),
    "code_object": "(lambda: 0).__code__.replace(co_code=b'\\xff' * 100)\nf = lambda: 0\n"
    "f.__code__ = f.__code__.replace(co_code=b'\\x64\\xff' * 50)\nf()",
    "ctypes_memory": "import ctypes\nctypes.memset(id(None), 0, 64)\nprint(None)",
    # time
    "loop": "while True: pass",
    "sleep": "import time\ntime.sleep(3600)",
    "sum": "sum(range(10 ** 12))",
    "power": "x = 7 ** (7 ** 12)",
    "digits": "import sys\nsys.set_int_max_str_digits(0)\nprint(len(str(3 ** 20000000)))",
    "regex": "import re\nre.match(r'(a|aa)+$', 'a' * 64 + 'b')\nre.match(r'(?:a?){64}a{64}$', 'a' * 64)",
    "catch_timeout": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "catch_interrupt": "def go():\n    try:\n        while True: pass\n    except KeyboardInterrupt: go()\ngo()",
    "finally": "def go():\n    try:\n        while True: pass\n    finally:\n        go()\ngo()",
    "slow_repr": "x = [0] * 10\nfor _ in range(9): x = [x] * 10\nx",
    "close_streams": "import os\nos.close(1)\nos.close(2)\nwhile True: pass",
    "at_exit": "import atexit\ndef go():\n    while True: pass\natexit.register(go)",
    "input": "while True: input()",
    # memory and output
    "memory": "x = []\nwhile True: x.append('x' * 1000000)",
    "one_string": "x = 'x' * (1 << 40)",
    "doubling": "x = 'ab'\nwhile True: x += x",
    "dictionary": "x = {}\nwhile True: x[len(x)] = len(x)",
    "shared_list": "['a' * 1000] * 1000000",
    "zip_bomb": "import zlib\nx = zlib.decompress(zlib.compress(b'0' * 10000000) * 1)\nwhile True: x += x",
    "print_forever": "while True: print('x' * 1000)",
    "print_without_newlines": "while True: print('x', end='')",
    "print_huge": "print('x' * 50_000_000)",
    "error_huge": "raise ValueError('x' * 50_000_000)",
    "stderr_forever": "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
    "descriptor_forever": "import os\nwhile True: os.write(2, b'x' * 10000)",
    "files_forever": "number = 0\nwhile True:\n    open(f'/tmp/{number}', 'w').write('x' * 100000)\n    number += 1",
    "descriptors": "import os\nx = []\nwhile True: x.append(os.open('/dev/null', 0))",
    "pipes": "import os\nx = []\nwhile True: x.append(os.pipe())",
    "recursion": "def go(): go()\ngo()",
    "recursion_limit": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef go(): go()\ngo()",
    "nested_list": "x = []\nfor _ in range(10 ** 6): x = [x]\nprint(x)",
    "nested_code": "eval('(' * 5000 + ')' * 5000)",
    "nested_unary": "eval('-' * 100000 + '1')",
    "nested_source": "(" * 9000 + ")" * 9000,
    "brackets_source": "x = " + "{[(" * 60,
    "null": "x = 1\0",
    "not_utf8": "print('\\ud800', b'\\xff'.decode('latin-1'))",
}

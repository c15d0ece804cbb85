"""Host programs in Python. The programs in PLAIN need no torch; those in TORCH run models."""

PLAIN: dict[str, str] = {
    "prints": "print('hello', 1 + 1)",
    "exit_code": "import sys; sys.exit(9)",
    "exit_message": "import sys; sys.exit('why')",
    "error": "raise ValueError('a message')",
    "error_in_nested_calls": "def f(n):\n    return 1 / n if n == 0 else f(n - 1)\nf(3)",
    "recursion_limit": "import sys\ndef f(n):\n    return f(n + 1)\ntry:\n    f(0)\nexcept RecursionError as e:\n    print(str(e)[:20])",
    "os_exit": "import os, sys; sys.stdout.write('lost'); os._exit(7)",
    "abort": "import os; os.abort()",
    "atexit": "import atexit\nfor i in range(3): atexit.register(print, i)\nprint('end')",
    "atexit_error": "import atexit\n@atexit.register\ndef f():\n    raise KeyError('x')",
    "keyboard_interrupt": "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT)",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "handler": "import os, signal; signal.signal(signal.SIGUSR1, lambda *a: print(a[0])); os.kill(os.getpid(), signal.SIGUSR1)",
    "alarm": "import signal, time\ndef f(*a):\n    raise TimeoutError('late')\nsignal.signal(signal.SIGALRM, f); signal.setitimer(signal.ITIMER_REAL, 0.05)\ntime.sleep(10)",
    "binary_stdin": "import sys, hashlib; print(hashlib.md5(sys.stdin.buffer.read()).hexdigest())",
    "closed_stdout": "import sys; sys.stdout.close()",
    "arguments": "import sys; print(sys.argv[1:], sys.flags.utf8_mode)",
    "encodings": "import sys; print(sys.stdout.encoding, sys.getfilesystemencoding(), 'zoë')",
    "hash_is_the_same": "import os, sys; print(os.environ.get('PYTHONHASHSEED'), sys.flags.hash_randomization)",
    "modules_at_start": "import sys; print(sorted(m for m in sys.modules if 'graph' in m or 'torch' in m))",
    "search_path": "import sys; print([p for p in sys.path if 'graphpatch' in p], len(sys.path_hooks))",
    "sitecustomize": "try:\n    import sitecustomize; print('there')\nexcept ImportError as e:\n    print(e)",
    "threads": "import threading\nout = []\nts = [threading.Thread(target=out.append, args=(i,)) for i in range(20)]\n[t.start() for t in ts]; [t.join() for t in ts]\nprint(sorted(out))",
    "daemon_thread": "import threading, time\nthreading.Thread(target=lambda: time.sleep(100), daemon=True).start()\nprint('end')",
    "thread_error": "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='t'); t.start(); t.join()",
    "subprocess": "import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'print(5); exit(3)'], capture_output=True))",
    "subprocess_close_fds": "import subprocess; print(subprocess.run('ls /proc/self/fd | wc -l', shell=True, capture_output=True, text=True).stdout)",
    "subprocess_killed": "import subprocess; p = subprocess.Popen(['sleep', '100']); p.kill(); print(p.wait())",
    "subprocess_preexec": "import os, subprocess; print(subprocess.run(['sh', '-c', 'umask'], preexec_fn=lambda: os.umask(0o27), capture_output=True).stdout)",
    "fork": "import os\npid = os.fork()\nif pid == 0:\n    os._exit(4)\nprint(os.waitpid(pid, 0)[1] >> 8)",
    "fork_and_exit": "import os, sys\npid = os.fork()\nif pid == 0:\n    sys.exit(5)\nprint(os.waitpid(pid, 0)[1] >> 8)",
    "exec": "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'print(\"second\")'])",
    "spawn": "import os, sys; print(os.spawnv(os.P_WAIT, '/bin/sh', ['sh', '-c', 'exit 6']))",
    "pool_fork": "import multiprocessing as m\nif __name__ == '__main__':\n    with m.get_context('fork').Pool(2) as p: print(p.map(abs, range(-5, 0)))",
    "pool_spawn": "import multiprocessing as m\nif __name__ == '__main__':\n    with m.get_context('spawn').Pool(2) as p: print(p.map(abs, range(-5, 0)))",
    "pool_forkserver": "import multiprocessing as m\nif __name__ == '__main__':\n    with m.get_context('forkserver').Pool(2) as p: print(p.map(abs, range(-5, 0)))",
    "queue": "import multiprocessing as m\ndef f(q): q.put(5)\nif __name__ == '__main__':\n    q = m.Queue(); p = m.Process(target=f, args=(q,)); p.start(); print(q.get()); p.join(); print(p.exitcode)",
    "shared_memory": "from multiprocessing import shared_memory as s\nm = s.SharedMemory(create=True, size=10); m.buf[0] = 5; print(m.buf[0]); m.close(); m.unlink()",
    "executor_threads": "from concurrent.futures import ThreadPoolExecutor as T\nwith T(4) as t: print(list(t.map(abs, range(-9, 0))))",
    "executor_processes": "from concurrent.futures import ProcessPoolExecutor as P\nif __name__ == '__main__':\n    with P(2) as p: print(list(p.map(abs, range(-4, 0))))",
    "asyncio": "import asyncio\nasync def f(n):\n    await asyncio.sleep(0)\n    return n\nasync def main(): print(await asyncio.gather(*map(f, range(5))))\nasyncio.run(main())",
    "asyncio_subprocess": "import asyncio\nasync def f():\n    p = await asyncio.create_subprocess_exec('sh', '-c', 'echo x; exit 2', stdout=-1)\n    print(await p.communicate(), p.returncode)\nasyncio.run(f())",
    "ctypes": "import ctypes; c = ctypes.CDLL(None); print(c.abs(-5), c.getpid() > 0)",
    "ctypes_library": "import ctypes; m = ctypes.CDLL('libm.so.6'); m.cos.restype = ctypes.c_double; print(m.cos(ctypes.c_double(0)))",
    "ctypes_crash": "import ctypes; ctypes.string_at(8)",
    "faulthandler": "import faulthandler, sys, os\nfaulthandler.enable(open('/dev/null', 'w'))\nos.kill(os.getpid(), 11)",
    "weakrefs_and_collection": "import gc, weakref\nclass A: pass\na = A(); a.a = a; r = weakref.ref(a, lambda _: print('gone')); del a; gc.collect(); print(r())",
    "trace": "import sys\nn = 0\ndef t(*a):\n    global n\n    n += 1\n    return t\nsys.settrace(t)\ndef f(): return 1\nf()\nsys.settrace(None)\nprint(n)",
    "limits": "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_STACK))",
    "temporary_files": "import os, tempfile\nwith tempfile.TemporaryDirectory() as d: open(d + '/x', 'w').close(); print(os.listdir(d))",
    "warnings": "import warnings; warnings.warn('a warning')",
    "development_mode": "import subprocess, sys; print(subprocess.run([sys.executable, '-X', 'dev', '-c', 'f = open(\"/dev/null\")'], capture_output=True, text=True))",
    "isolated": "import subprocess, sys; print(subprocess.run([sys.executable, '-I', '-S', '-c', 'print(1)'], capture_output=True, text=True))",
    "optimized": "import subprocess, sys; print(subprocess.run([sys.executable, '-OO', '-c', 'assert 0; print(__doc__)'], capture_output=True, text=True))",
    "zip_archive": "import runpy, zipfile\nwith zipfile.ZipFile('a.zip', 'w') as z: z.writestr(zipfile.ZipInfo('__main__.py'), 'print(7)')\nrunpy.run_path('a.zip')",
    "pickles": "import pickle; print(pickle.loads(pickle.dumps({'a': [1, (2,)]})))",
    "sqlite": "import sqlite3; c = sqlite3.connect('d.sqlite'); print(c.execute('select 1 + 1').fetchone()); c.close()",
}

_NET = """
import torch
torch.manual_seed(0)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(4, 8)
        self.b = torch.nn.Linear(8, 3)
    def forward(self, x):
        return self.b(torch.relu(self.a(x)))
net = Net()
x = torch.arange(8.0).reshape(2, 4)
def show(value):
    print([v.hex() for v in value.detach().flatten().tolist()])
"""

_TORCH: dict[str, str] = {
    "forward": "show(net(x))",
    "training": "o = torch.optim.SGD(net.parameters(), 0.1)\nfor _ in range(3):\n    o.zero_grad(); net(x).sum().backward(); o.step()\nshow(net(x))",
    "no_grad_and_inference": "with torch.no_grad(): show(net(x))\nwith torch.inference_mode(): show(net(x))",
    "forward_raises": "try:\n    net(torch.ones(2, 5))\nexcept RuntimeError as e:\n    print(e)\nshow(net(x))",
    "hooks": "net.a.register_forward_hook(lambda m, i, o: o * 2); show(net(x))",
    "threads": "import threading\nts = [threading.Thread(target=net, args=(x,)) for _ in range(4)]\n[t.start() for t in ts]; [t.join() for t in ts]; show(net(x))",
    "fork": "import os\nshow(net(x))\nimport sys; sys.stdout.flush()\npid = os.fork()\nif pid == 0:\n    show(net(x)); sys.stdout.flush(); os._exit(3)\nprint(os.waitpid(pid, 0)[1] >> 8)",
    "data_loader": "from torch.utils.data import DataLoader, TensorDataset\nif __name__ == '__main__':\n    for b, in DataLoader(TensorDataset(x), batch_size=1, num_workers=2): show(net(b))",
    "torch_multiprocessing": "import torch.multiprocessing as m\ndef f(i): show(net(x))\nif __name__ == '__main__':\n    m.start_processes(f, nprocs=1, start_method='fork'); show(net(x))",
    "spawned": "import torch.multiprocessing as m\ndef f(i): show(net(x))\nif __name__ == '__main__':\n    m.spawn(f, nprocs=1)",
    "model_is_collected": "import gc, weakref\nr = weakref.ref(net); show(net(x)); del net; gc.collect(); print(r())",
    "values_are_collected": "import gc, weakref\ny = net(x); r = weakref.ref(y); del y; gc.collect(); print(r())",
    "many_models": "for i in range(50):\n    n = Net(); y = n(x)\nprint(y.shape)",
    "pickled": "import pickle; show(pickle.loads(pickle.dumps(net))(x))",
    "copied": "import copy; show(net(x)); show(copy.deepcopy(net)(x))",
    "saved": "net(x); torch.save(net.state_dict(), 'w.pt'); n = Net(); n.load_state_dict(torch.load('w.pt')); show(n(x))",
    "scripted": "s = torch.jit.script(net); show(s(x)); show(s(x)); show(s(x))",
    "traced": "s = torch.jit.trace(net, x); show(s(x)); show(s(x))",
    "exported": "p = torch.export.export(net, (x,)); show(p.module()(x))",
    "compiled": "c = torch.compile(net, backend='eager'); show(c(x)); show(c(x))",
    "module_call_annotations": "import typing, torch.nn as n\nnet(x)\nc = n.Module.__call__\nprint(typing.get_type_hints(c), c.__defaults__, c.__kwdefaults__, sorted(vars(n.Module))[:60])",
    "traceback": "class Bad(torch.nn.Module):\n    def forward(self, x): raise KeyError('inside')\nimport sys, traceback\ntry:\n    torch.nn.Sequential(Bad())(x)\nexcept KeyError:\n    print([f.name for f in traceback.extract_tb(sys.exc_info()[2]) if f.name != '_wrapped_call_impl'])",
    "seeds": "torch.manual_seed(3); net(x); show(torch.rand(3)); show(torch.nn.functional.dropout(x))",
    "autocast": "with torch.autocast('cpu', dtype=torch.bfloat16): y = net(x)\nprint(y.dtype); show(y.float())",
    "vmap": "show(torch.vmap(net)(x)); show(torch.func.jacrev(net)(x[0]))",
    "profiler": "import os; os.dup2(os.open('/dev/null', 1), 2)\nfrom torch.profiler import profile\nwith profile() as p: net(x)\nprint(sorted({e.key for e in p.key_averages() if e.key.startswith('aten')}))",
    "subclass": "class T(torch.Tensor): pass\nprint(type(net(x.as_subclass(T))).__name__)",
    "dispatch_mode": "from torch.utils._python_dispatch import TorchDispatchMode\nn = []\nclass M(TorchDispatchMode):\n    def __torch_dispatch__(self, f, t, a=(), k=None):\n        n.append(str(f)); return f(*a, **(k or {}))\nwith M(): net(x)\nprint(n)",
    "generator_forward": "class G(torch.nn.Module):\n    def forward(self, x):\n        for i in range(3): yield x + i\nfor v in G()(x): show(v)",
    "model_at_exit": "import atexit; atexit.register(lambda: show(net(x))); show(net(x))",
    "model_in_a_finalizer": "import weakref\nclass A: pass\na = A(); weakref.finalize(a, lambda: show(net(x))); del a\nb = A(); weakref.finalize(b, lambda: show(net(x)))",
    "model_in_daemon_thread": "import threading\ne = threading.Event()\ndef f():\n    while True: net(x); e.set()\nthreading.Thread(target=f, daemon=True).start(); e.wait(); print('end')",
    "model_in_a_signal_handler": "import signal, os\nsignal.signal(signal.SIGUSR1, lambda *a: show(net(x)))\nos.kill(os.getpid(), signal.SIGUSR1); show(net(x))",
    "model_in_a_hook_of_another": "other = Net()\nnet.a.register_forward_hook(lambda m, i, o: (show(other(x)), o)[1]); show(net(x))",
    "interrupted_forward": "import signal\nclass Slow(torch.nn.Module):\n    def forward(self, x):\n        while True: x = x + 1\ndef f(*a): raise TimeoutError\nsignal.signal(signal.SIGALRM, f); signal.setitimer(signal.ITIMER_REAL, 0.05)\ntry:\n    Slow()(x)\nexcept TimeoutError:\n    print('late')\nshow(net(x))",
    "os_exit_in_forward": "import os\nclass E(torch.nn.Module):\n    def forward(self, x): os._exit(11)\nE()(x)",
    "system_exit_in_forward": "import sys\nclass E(torch.nn.Module):\n    def forward(self, x): sys.exit(12)\nE()(x)",
    "lambda_module": "class L(torch.nn.Module):\n    def __init__(self):\n        super().__init__(); self.forward = lambda x: x * 2\nshow(L()(x))",
    "parameter_names_with_dots": "m = torch.nn.Module(); n = torch.nn.Sequential(torch.nn.Linear(4, 4)); n._modules['a.b\\nc'] = torch.nn.Linear(4, 4); show(n(x))",
    "deep": "m = torch.nn.Linear(4, 4)\nfor _ in range(60): m = torch.nn.Sequential(m)\nshow(m(x))",
    "wide": "m = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(300)]); show(m(x))",
    "streams_replaced": "import sys, io\nsys.stderr = io.StringIO(); net(x); sys.stderr = sys.__stderr__; print('end')",
    "stderr_is_a_file": "import os\nf = os.open('own.txt', os.O_CREAT | os.O_RDWR); os.dup2(f, 2); show(net(x)); os.write(2, b'mine')",
    "limit_on_files": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); y = net(x); print(y.shape)",
    "descriptors_closed": "import os; y = net(x); os.closerange(3, 256); print(net(x).shape)",
    "folder_removed": "import os; os.mkdir('d'); os.chdir('d'); os.rmdir('../d'); show(net(x))",
}

TORCH = {name: _NET + text for name, text in _TORCH.items()}

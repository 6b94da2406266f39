"Processes of a run, as torchrun would start them"
import os, socket, subprocess, sys

def start(folder, script, processes, *args):
    "Start `script` in so many processes that know of each other"
    (folder/'run.py').write_text(script)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = {**os.environ, 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port), 'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'agg'}
    if processes > 1: env['WORLD_SIZE'] = str(processes)
    return [subprocess.Popen([sys.executable, folder/'run.py', *map(str, args)], env=env | ({'RANK': str(r), 'LOCAL_RANK': str(r)} if processes > 1 else {}),
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for r in range(processes)]

def whole_run(folder, script, processes, *args):
    "Run to the end, or say what they said"
    started = start(folder, script, processes, *args)
    said = [p.communicate(timeout=600)[0] for p in started]
    assert all(p.returncode == 0 for p in started), said

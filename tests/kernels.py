"Kernels for the tests of notebooks: forked from a process that has imported PyTorch, pandas, scikit-learn and matplotlib, which takes longer than most notebooks; fastai and fastcf each imports anew"
import multiprocessing, os, sys, warnings
try: from multiprocessing import forkserver # not on Windows
except ImportError: forkserver = None
from unittest.mock import patch
from jupyter_client import AsyncKernelManager

IMPORTED = ['torch', 'torch.utils.data', 'torch.utils.data.distributed', 'torch.export', 'pandas', 'scipy.stats', 'scipy.ndimage', 'sklearn.model_selection', 'matplotlib.pyplot', 'requests', 'plum', 'PIL.Image', 'yaml', 'packaging', 'ipykernel.kernelapp', 'ipykernel.ipkernel'] # neither fastai nor fastcore: they ask at once whether they are in a notebook
CAN_FORK = forkserver is not None and 'COVERAGE_PROCESS_CONFIG' not in os.environ # a fork is killed in the end, and what it ran would not be counted

def serve(connection_file, cwd, env):
    "A kernel, in a process of its own"
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:] = ['', *(o for o in sys.path if o not in ('', os.path.dirname(__file__)))]
    import matplotlib
    matplotlib.rc_file(matplotlib.matplotlib_fname()) # the style beside the notebook
    matplotlib.rcParams['backend'] = env['MPLBACKEND'] # imported at the first figure
    for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning): warnings.filterwarnings('error', category=kind, module=r'fastcf\.|__main__')
    from ipykernel.kernelapp import IPKernelApp
    IPKernelApp.launch_instance(['-f', connection_file, '--HistoryManager.hist_file=:memory:', f'--IPKernelApp.parent_handle={os.getppid()}'])

class ForkedKernel(AsyncKernelManager):
    "Starts a kernel as a fork"
    process = None

    @property
    def has_kernel(self): return self.process is not None

    async def start_kernel(self, cwd='.', env=None, **kwargs):
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload(IMPORTED)
        with patch.dict(os.environ, env or {}): forkserver.ensure_running() # once; PyTorch reads OMP_NUM_THREADS where it is imported
        self.write_connection_file()
        self.process = context.Process(target=serve, args=(self.connection_file, cwd, env or {}), daemon=True)
        self.process.start()

    async def is_alive(self): return self.has_kernel and self.process.is_alive()
    _async_is_alive = is_alive # as clients call it
    async def interrupt_kernel(self): os.kill(self.process.pid, 2)
    async def shutdown_kernel(self, now=False, restart=False):
        self.process.kill()
        self.process.join()
        self.process = None
        self.cleanup_connection_file()

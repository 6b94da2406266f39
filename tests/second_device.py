"""A second device for tests. Its tensors compute on the CPU and say that they are elsewhere: like those of a GPU they meet no tensor of the CPU, but for
single numbers, rows to look up and copies, have no NumPy array, and take random numbers from no generator of the CPU."""
from contextlib import contextmanager
import torch
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device('lazy') # a kind that PyTorch knows, that every build can name, and that autograd goes through like the CPU
CROSSING = {'aten._to_copy', 'aten.copy_', 'aten._copy_from', 'aten._copy_from_and_resize'}
BY_ROWS = {'aten.index', 'aten.index_put', 'aten.index_put_', 'aten._index_put_impl_'} # rows may be on the CPU, as on a GPU

class Elsewhere(torch.Tensor):
    "A tensor of the second device; `held` is on the CPU"
    @staticmethod
    def __new__(cls, held):
        plain = {} if held.layout is not torch.strided else dict(strides=held.stride(), storage_offset=held.storage_offset())
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, layout=held.layout, device=DEVICE, requires_grad=False, **plain)
    def __init__(self, held): self.held = held
    def tolist(self): return self.held.tolist()
    def numpy(self, *args, **kwargs): raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")
    __array__ = numpy
    def __repr__(self): return f'Elsewhere({self.held})'
    def __reduce_ex__(self, protocol): return Elsewhere, (self.held,)
    def __deepcopy__(self, memo): # as PyTorch's, which knows no such device
        new = Elsewhere(self.held.clone())
        if self.grad_fn is None and self.requires_grad: new.requires_grad_()
        return memo.setdefault(id(self), torch.nn.Parameter(new, self.requires_grad) if isinstance(self, torch.nn.Parameter) else new)
    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None): return compute(func, args, kwargs or {})

def compute(func, args, kwargs):
    flat,name = tree_flatten((args, kwargs))[0],func.overloadpacket._qualified_op_name.replace('::', '.')
    tensors = [o for o in flat if isinstance(o, torch.Tensor)]
    ours = [o for o in tensors if isinstance(o, Elsewhere)]
    target = kwargs.get('device')
    there = bool(ours) if target is None else torch.device(target).type == DEVICE.type
    if ours and name not in CROSSING | BY_ROWS and any(not isinstance(o, Elsewhere) and o.dim() for o in tensors):
        raise RuntimeError(f'{name}: expected all tensors to be on the same device, found {DEVICE} and cpu')
    if there and isinstance(kwargs.get('generator'), torch.Generator): raise RuntimeError(f"{name}: expected a generator of {DEVICE}, found one of the CPU")
    if name in ('aten.copy_',) and not isinstance(args[0], Elsewhere): there = False
    if name in BY_ROWS and not isinstance(args[0], Elsewhere) and ours: raise RuntimeError(f'{name}: rows on {DEVICE} of a tensor on the CPU')
    wrapper = {id(o.held): o for o in ours}
    plain = {k: v for k,v in tree_map(lambda o: o.held if isinstance(o, Elsewhere) else o, kwargs).items() if k not in ('device', 'pin_memory', 'non_blocking')}
    if target is not None: plain['device'] = torch.device('cpu') if torch.device(target).type == DEVICE.type else target
    if name == 'aten._to_copy' and not there: plain.setdefault('device', torch.device('cpu'))
    out = func(*tree_map(lambda o: o.held if isinstance(o, Elsewhere) else o, args), **plain)
    if not there: return out
    return tree_map(lambda o: (wrapper[id(o)] if id(o) in wrapper else Elsewhere(o)) if isinstance(o, torch.Tensor) else o, out)

class SecondDevice(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None): return compute(func, args, kwargs or {})

@contextmanager
def second_device():
    "Where `DEVICE` can be asked for"
    before,cast,fused = torch._C._only_lift_cpu_tensors(),torch.as_subclass,optimizer._get_fused_kernels_supported_devices
    optimizer._get_fused_kernels_supported_devices = lambda: [*fused(), DEVICE.type] # as those of a GPU
    torch._C._set_only_lift_cpu_tensors(True) # `torch.tensor(…, device=…)` is made on the CPU and moved
    torch.as_subclass = lambda x, kind: x if Elsewhere in (type(x), kind) else cast(x, kind) # by which fastai casts: a tensor has one type, and here that is its device
    try:
        with torch.serialization.safe_globals([Elsewhere]),SecondDevice(): yield DEVICE
    finally:
        torch.as_subclass,optimizer._get_fused_kernels_supported_devices = cast,fused
        torch._C._set_only_lift_cpu_tensors(before)

"The tables and the scores"
import pytest, torch
from torch import nn
from hypothesis import given, settings, strategies as st
from fastcf.learn.model import EmbeddingDotBias, get_embeddings, look_up, score_all

@pytest.mark.parametrize('y_range', [None, (0.5, 5.5)])
@pytest.mark.parametrize('b', [1, 2, 17])
def test_scores_are_vectors(b, y_range):
    out = EmbeddingDotBias(6, 9, 4, y_range)(torch.zeros(b, dtype=torch.int64), torch.zeros(b, dtype=torch.int64))
    assert out.shape == (b,) and out.dtype == torch.float32

@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.sampled_from([None, (0., 1.), (-3., 7.)]))
def test_all_items_at_once_and_pair_by_pair(items, users, k, y_range):
    m = EmbeddingDotBias(items, users, k, y_range)
    with torch.no_grad():
        for p in m.parameters(): p.normal_()
        u,i = torch.cartesian_prod(torch.arange(users), torch.arange(items)).T
        assert torch.allclose(m(u, i).view(users, items), score_all(m, torch.arange(users)), atol=1e-5)

def test_scores_stay_in_their_range():
    m = EmbeddingDotBias(3, 3, 2, (0.5, 5.5))
    m.item_bias.weight.data.fill_(1e4)
    assert m(torch.tensor([0]), torch.tensor([0])).item() == pytest.approx(5.5)

@pytest.mark.parametrize('cols', [1, 5])
@pytest.mark.parametrize('kwargs', [dict(), dict(padding_idx=2), dict(sparse=True), dict(max_norm=.5), dict(scale_grad_by_freq=True), dict(dtype=torch.float64)])
def test_rows_and_gradients_are_those_of_the_table(kwargs, cols):
    "Also where a table does more than to hold rows, and rows repeat"
    g = torch.Generator().manual_seed(0)
    first = torch.randn(9, cols, generator=g)
    for rows in (torch.tensor([2, 7, 2, 2, 0]), torch.randint(9, (500,), generator=g), torch.zeros(0, dtype=torch.int64)):
        a,b = (nn.Embedding(9, cols, **kwargs) for _ in range(2))
        for t in (a, b): t.weight.data.copy_(first)
        weights = torch.randn(len(rows), cols, generator=g)
        x,y = a(rows),look_up(b, rows)
        assert torch.equal(x, y) and (cols > 1 or torch.equal(x[:, 0], look_up(b, rows, flat=True)))
        for out in (x, y): (out * weights).sum().backward()
        assert a.weight.grad.is_sparse == b.weight.grad.is_sparse
        assert torch.allclose(a.weight.grad.to_dense(), b.weight.grad.to_dense(), atol=1e-5)

def test_hooks_of_a_table_are_called():
    m,seen = EmbeddingDotBias(3, 3, 2),[]
    for t in (m.user_weight, m.item_bias): t.register_forward_hook(lambda *args: seen.append(t))
    m.user_bias.register_full_backward_hook(lambda *args: seen.append(t))
    m(torch.tensor([0]), torch.tensor([1])).sum().backward()
    assert len(seen) == 3

def test_gradients_of_the_scores():
    "Of first and second order, by differences"
    m = EmbeddingDotBias(4, 3, 2, (0.5, 5.5)).double()
    for p in m.parameters(): p.data.normal_(generator=torch.Generator().manual_seed(0))
    u,i,names = torch.tensor([0, 1, 1, 2]),torch.tensor([3, 0, 0, 3]),[n for n,_ in m.named_parameters()]
    params = list(m.parameters())
    def scores(*ps): return torch.func.functional_call(m, dict(zip(names, ps)), (u, i))
    assert torch.autograd.gradcheck(scores, params) and torch.autograd.gradgradcheck(scores, params)
    assert all(torch.allclose(a, b) for a,b in zip(torch.autograd.grad(m(u, i).sum(), params), torch.autograd.grad(scores(*[p * 1 for p in params]).sum(), params)))

def test_first_values():
    torch.manual_seed(0)
    w = get_embeddings(20_000, 10).weight
    assert w.abs().max() <= 0.02 and abs(w.mean()) < 1e-4 and abs(w.std() - 0.0088) < 1e-4 and w.requires_grad

def test_items_come_first_in_the_signature():
    m = EmbeddingDotBias(item_count=5, user_count=4, factor_count=3)
    assert [tuple(t.weight.shape) for t in (m.user_weight, m.item_weight, m.user_bias, m.item_bias)] == [(4, 3), (5, 3), (4, 1), (5, 1)]

@pytest.mark.parametrize('y_range', [(5, 1), (1, 1), (0, float('inf')), (0,), 'ab', 3])
def test_bad_ranges(y_range):
    with pytest.raises(ValueError, match='y_range'): EmbeddingDotBias(2, 2, 2, y_range)

@pytest.mark.parametrize('shape', [(0, 3), (3, 0), (-1, 2)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match='row_count, col_count'): get_embeddings(*shape)

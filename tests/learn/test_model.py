"The tables and the scores"
import pytest, torch
from hypothesis import given, settings, strategies as st
from fastcf.learn.model import EmbeddingDotBias, get_embeddings, score_all

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

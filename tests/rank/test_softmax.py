"The full softmax and batches of whole histories, against slow, plain versions"
import math
from functools import partial
import numpy as np, pandas as pd, pytest, torch
from fastai.learner import load_learner
import fastcf.all # every method of a learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner, ranks_items, unwrapped
from fastcf.learn.model import EmbeddingDotBias, score_all
from fastcf.rank.baselines import EASE, MostPopular
from fastcf.rank.blend import Blend
from fastcf.rank.losses import FullSoftmax, Negatives, Uniform, bpr_loss, gbce_loss, sampled_softmax_loss, warp_loss
from fastcf.rank.softmax import UserDL, softmax_learner, user_loaders

def ratings(seed=0): return simulate_ratings(40, 30, 500, 3, seed=seed)
@pytest.fixture(scope='module')
def dls(): return CFDataLoaders.from_df(ratings(), seed=0, device='cpu')

def quiet(learn, epochs, *args):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, *args)
    return learn

def chosen(dls): return set(zip(dls.train_ds.users.tolist(), dls.train_ds.items.tolist()))

# --- batches

@pytest.mark.parametrize('bs', [1, 7, 1000])
def test_batches_hold_whole_histories_and_every_row_once(dls, bs):
    t = dls.train_ds
    dl = UserDL(t, bs, shuffle=True, seed=3)
    batches = list(dl)
    assert len(batches) == len(dl) and all(len(b[0].unique()) <= bs for b in batches)
    who = [set(b[0].tolist()) for b in batches]
    assert sum(map(len, who)) == len(set().union(*who)) # nobody in two batches
    got = sorted(zip(*(torch.cat(o).tolist() for o in zip(*batches))))
    assert got == sorted(zip(t.users.tolist(), t.items.tolist(), t.ratings.tolist()))

def test_order_of_batches_has_a_seed_and_moves_on(dls):
    first = lambda dl: torch.cat([b[0] for b in dl]).tolist()
    a,b,c = (UserDL(dls.train_ds, 5, shuffle=True, seed=s) for s in (1, 1, 2))
    assert (one := first(a)) == first(b) != first(c) and one != first(a)
    assert first(UserDL(dls.train_ds, 5)) == sorted(first(UserDL(dls.train_ds, 5)))
    assert len(list(UserDL(dls.train_ds, 7, drop_last=True))) == len(dls.train_ds.users.unique()) // 7

def test_what_reads_rows_itself_finds_all_of_them(dls):
    idxs = UserDL(dls.train_ds, 4, shuffle=True, seed=0).get_idxs()
    assert idxs.sort().values.tolist() == list(range(len(dls.train_ds)))
    who = dls.train_ds.users[idxs]
    assert int((who.diff() != 0).sum()) + 1 == len(who.unique()) # those of a user together

def test_ratings_become_weights_and_weights_stay(dls):
    rows = user_loaders(dls, lowest=.2)
    r,w = dls.train_ds.ratings,rows.train_ds.ratings
    assert rows.is_interactions and not dls.is_interactions and rows.histories is dls.histories
    assert w.min() == pytest.approx(.2) and w.max() == 1
    assert w.numpy() == pytest.approx((.2 + .8 * (r - r.min()) / (r.max() - r.min())).numpy())
    plays = CFDataLoaders.from_df(ratings().rename(columns=dict(rating='plays')), weight_name='plays', seed=0, device='cpu')
    again = user_loaders(plays, lowest=.2)
    assert torch.equal(again.train_ds.ratings, plays.train_ds.ratings) and again.catalog.value_name == plays.catalog.value_name

# --- the loss

def slow_loss(model, seen, users, items, weights, strike):
    total = 0.
    for u,i,w in zip(users.tolist(), items.tolist(), weights.tolist()):
        s = score_all(model, torch.tensor([u]))[0].double()
        among = [j for j in range(len(s)) if j == i or not (strike and (u, j) in seen)]
        total += w * (torch.logsumexp(s[among], 0) - s[i]).item()
    return total / weights.sum().item()

@pytest.mark.parametrize('strike', [True, False])
@pytest.mark.parametrize('part', ['train', 'valid'])
def test_loss_is_that_of_a_loop(dls, strike, part):
    learn = softmax_learner(dls, 8, dropout=0., strike=strike, bs=40, metrics=[], seed=0)
    with torch.no_grad():
        for p in learn.model.parameters(): p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p))))
    dl = learn.dls[0 if part == 'train' else 1]
    b = next(iter(dl))
    want = slow_loss(learn.model, chosen(learn.dls), *b, strike)
    if part == 'valid': got = learn.validate(dl=dl)[0]
    else: # the loss before the one step of one batch
        quiet(learn, 1)
        got = learn.recorder.losses[0]
    assert float(got) == pytest.approx(want, rel=1e-4)

@pytest.mark.parametrize('strike', [True, False])
def test_scores_however_large_and_somebody_who_chose_everything_leave_finite_gradients(strike):
    df = pd.DataFrame(dict(user=[0] * 6 + [1, 2], item=[*range(6), 2, 5]))
    dls = CFDataLoaders.from_df(df, rating_name=False, valid_pct=0, seed=0, device='cpu')
    learn = softmax_learner(dls, 4, strike=strike, seed=0)
    with torch.no_grad(): learn.model.item_bias.weight[2] = 500.
    quiet(learn, 3)
    assert all(p.isfinite().all() for p in learn.model.parameters()) and math.isfinite(learn.recorder.losses[-1])

@pytest.mark.parametrize('loss', [bpr_loss, warp_loss, gbce_loss, partial(gbce_loss, sampled=.9)])
def test_other_losses_see_every_item_that_counts(dls, loss):
    learn = cf_learner(user_loaders(dls, 40), 6, loss_func=loss, cbs=FullSoftmax(), seed=0)
    tables = []
    learn.loss_func = lambda s, w: (tables.append((s.detach(), learn.xb)), loss(s, w))[1]
    quiet(learn, 1)
    (s,(users,items)),seen = tables[0],chosen(dls)
    n = len(dls.catalog.item)
    assert s.shape == (len(users), 1 + n)
    want = [[(u, j) not in seen for j in range(n)] for u in users.tolist()]
    assert torch.equal(s[:, 1:].isfinite(), torch.tensor(want)) and s[:, 0].isfinite().all()

def test_a_model_of_ones_own_has_to_score_all(dls):
    class Own(torch.nn.Module):
        def __init__(self): super().__init__(); self.w = torch.nn.Embedding(64, 4)
        def forward(self, users, items): return (self.w(users) * self.w(items)).sum(1)
    class All(Own):
        def score_all(self, users): return self.w(users) @ self.w.weight[:30].T
    learn = lambda model: softmax_learner(dls, None, model=model, metrics=[], seed=0)
    quiet(learn(All()), 1)
    with pytest.raises(TypeError, match='FullSoftmax: Own has no method score_all'): quiet(learn(Own()), 1)
    with pytest.raises(ValueError, match='dropout: expected a share'): FullSoftmax(dropout=1.)

# --- the learner

def test_what_was_chosen_wins_and_a_seed_repeats_it(dls):
    runs = [quiet(softmax_learner(dls, 8, seed=s, bs=8), 12) for s in (0, 0, 1)]
    s = [score_all(o.model, torch.arange(len(dls.catalog.user))) for o in runs]
    assert torch.equal(s[0], s[1]) and not torch.equal(s[0], s[2])
    x = torch.zeros(s[0].shape, dtype=torch.bool)
    x[dls.train_ds.users.long(), dls.train_ds.items.long()] = True
    wins = [(o[b][:, None] > o[~b]).float().mean().item() for o,b in zip(s[0], x) if b.any() and not b.all()]
    assert np.mean(wins) > .75

def own_lists(learn, k):
    s = score_all(learn.model, torch.arange(len(learn.dls.catalog.user)))
    s[:, learn.dls.counts() < 1] = -torch.inf
    for u,i in chosen(learn.dls): s[u, i] = -torch.inf
    c = learn.dls.catalog
    return {c.user[u]: [c.item[j] for j in s[u].sort(descending=True, stable=True).indices[:k].tolist()] for u in range(len(s))}

@pytest.mark.parametrize('loss', [sampled_softmax_loss, partial(gbce_loss, sampled=.2), partial(partial(warp_loss, item_count=30))], ids=['plain', 'partial', 'twice'])
def test_lists_are_in_the_order_that_was_trained_for_also_where_a_loss_has_arguments_set(dls, loss):
    learn = quiet(cf_learner(user_loaders(dls, 8), 6, loss_func=loss, cbs=Negatives(Uniform(4)), seed=0), 3, 5e-2)
    assert ranks_items(loss) and unwrapped(loss) in (sampled_softmax_loss, gbce_loss, warp_loss) and not ranks_items(torch.nn.MSELoss())
    want = own_lists(learn, 3)
    assert {u: g['item'].tolist() for u,g in learn.recommend(k=3).groupby('user')} == {u: want[u] for u in learn.recommend(k=3).user}
    with pytest.raises(TypeError, match='find_lr: .*_loss needs'): learn.find_lr()

def test_a_blend_takes_the_order_that_was_trained_for_and_else_the_choice_model(dls):
    rows = user_loaders(dls)
    learn,at = quiet(softmax_learner(dls, 8, seed=0), 3),torch.arange(5)
    assert torch.allclose(Blend([learn, EASE(rows)]).scorers[0](at), score_all(learn.model, at))
    rated = cf_learner(dls, 4, seed=0)
    assert torch.equal(Blend([rated, EASE(dls)]).scorers[0](at), rated.choice.scores(at))

def test_goes_out_and_comes_back(dls, tmp_path):
    learn = quiet(softmax_learner(dls, 8, seed=0), 3)
    learn.export(tmp_path/'learner.pkl')
    again = load_learner(tmp_path/'learner.pkl')
    users,items = dls.valid_ds.users[:20].long(),dls.valid_ds.items[:20].long()
    assert torch.equal(again.model(users, items), learn.model(users, items))

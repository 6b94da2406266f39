"What trains and what is asked, with the model on another device than the CPU: the same answers, and no tensor that was left behind"
import contextlib, io
import numpy as np, pandas as pd, pytest, torch
from fastai.callback.training import GradientAccumulation, GradientClip
import fastcf.all # methods of learners
from fastcf.bayes.engines import ALS, Gibbs
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.data.splits import LeaveLastOutSplitter
from fastcf.interview.interview import Interview
from fastcf.learn.learner import cf_learner
from fastcf.learn.neural import neural_net
from fastcf.learn.row_decay import RowDecay
from fastcf.learn.two_tower import two_towers
from fastcf.rank.evaluate import evaluate
from fastcf.rank.ials import IALS
from fastcf.rank.losses import Hard, Negatives, Popular, Uniform, bpr_loss, gbce_loss, sampled_softmax_loss
from fastcf.rank.metrics import HitRate, NDCG
from fastcf.rank.sequence import sequence_learner
from fastcf.rank.softmax import softmax_learner
from fastcf.scale.fused import FusedSGD
from fastcf.scale.rowwise import RowwiseAdagrad, RowwiseAdam, RowwiseSGD
from fastcf.serve.checkpoint import CheckpointCallback
from fastcf.serve.recommender import Recommender
from fastcf.watch.embedding_stats import EmbeddingStats
from second_device import DEVICE, second_device

RATINGS = simulate_ratings(60, 80, 1500, 4, seed=3)
TIMED = RATINGS.assign(timestamp=np.arange(len(RATINGS)) * 86_400)
USER,ITEM = RATINGS.user.iloc[0],RATINGS.item.iloc[0]
NEW = RATINGS[RATINGS.user.isin(RATINGS.user.unique()[:5])].assign(user=lambda o: o.user + 10_000)
META = pd.DataFrame(dict(item=np.sort(RATINGS.item.unique()))).assign(genre=lambda o: np.array(list('abc'))[o.index % 3], year=lambda o: 1950 + o.index)

def loaders(kind, device, folder=None):
    kw = dict(seed=0, bs=64, device=device)
    if kind == 'ratings': return CFDataLoaders.from_df(RATINGS, items=META, **kw)
    if kind == 'choices': return CFDataLoaders.from_df(RATINGS[['user', 'item']], rating_name=False, **kw)
    if kind == 'streamed': return CFDataLoaders.stream_parquet(folder/'in', folder/'out', **kw)
    return CFDataLoaders.from_df(TIMED, splitter=LeaveLastOutSplitter(time_name='timestamp'), time_name='timestamp', **kw)

def fitted(learn, epochs=2, lr=5e-3, cbs=None):
    learn.model.to(learn.dls.device) # fastai moves parameters in place, which those of the second device cannot be
    torch.manual_seed(0) # what drops out
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()): learn.fit(epochs, lr, cbs=cbs)
    assert next(learn.model.parameters()).device.type == torch.device(learn.dls.device).type
    return learn

def sampled(learn):
    learn.model.to(learn.dls.device)
    with learn.no_bar(), learn.no_logging(): assert np.isfinite(learn.sample_posterior(4, 4, seed=0).predict(RATINGS.user[:3], RATINGS.item[:3]).prediction).all()
    return learn

def ranks(loss, sampler): return lambda dls: fitted(cf_learner(dls, 8, loss_func=loss, cbs=Negatives(sampler), seed=0), lr=1e-2)
WAYS = { # of which loaders, and what is trained
    'batches': ('ratings', lambda dls: fitted(cf_learner(dls, 8, y_range=(.5, 5.5), seed=0))),
    'clipped, accumulated': ('ratings', lambda dls: fitted(cf_learner(dls, 8, seed=0), cbs=[GradientAccumulation(128), GradientClip(.1), EmbeddingStats(every=2)])),
    **{o.__name__: ('ratings', lambda dls, o=o: fitted(cf_learner(dls, 8, opt_func=o, seed=0), cbs=[GradientClip(.1), EmbeddingStats(every=2)])) for o in (RowwiseSGD, RowwiseAdagrad, RowwiseAdam)},
    'ALS': ('ratings', lambda dls: fitted(cf_learner(dls, 4, seed=0), cbs=ALS(8.))),
    'Gibbs': ('ratings', lambda dls: fitted(cf_learner(dls, 4, seed=0), cbs=Gibbs(seed=0))),
    'means of rows': ('ratings', lambda dls: fitted(cf_learner(dls, 4, seed=0, wd=.1, cbs=RowDecay()))),
    'two towers': ('ratings', lambda dls: fitted(cf_learner(dls, model=two_towers(4, 8, (.5, 5.5)), seed=0))),
    'layers': ('ratings', lambda dls: fitted(cf_learner(dls, model=neural_net((8,)), seed=0))),
    'from a folder': ('streamed', lambda dls: fitted(cf_learner(dls, 4, y_range=(.5, 5.5), seed=0))),
    'posterior': ('ratings', lambda dls: sampled(cf_learner(dls, 4, seed=0))),
    'IALS': ('choices', lambda dls: fitted(cf_learner(dls, 4, seed=0), cbs=IALS())),
    'choices': ('choices', lambda dls: fitted(cf_learner(dls, 4, seed=0, metrics=[HitRate(10), NDCG(10)]))),
    'bpr, popular': ('choices', ranks(bpr_loss, Popular(2))), 'softmax, uniform': ('choices', ranks(sampled_softmax_loss, Uniform(4))), 'gbce, hard': ('choices', ranks(gbce_loss, Hard(2))),
    'all items': ('choices', lambda dls: fitted(softmax_learner(dls, 4, seed=0), lr=1e-2)),
    'sequences': ('timed', lambda dls: fitted(sequence_learner(dls, seed=0), lr=1e-3))}

@pytest.mark.parametrize('way', WAYS)
def test_training_there_is_training_here(way, tmp_path):
    kind,train = WAYS[way]
    (tmp_path/'in').mkdir()
    RATINGS.to_parquet(tmp_path/'in/a.parquet')
    here = train(loaders(kind, 'cpu', tmp_path))
    with second_device() as device: there = train(loaders(kind, device, tmp_path))
    for p,q in zip(here.model.parameters(), there.model.parameters()): torch.testing.assert_close(p.detach(), q.held.detach(), atol=2e-3, rtol=.02)

def test_a_loop_of_the_cpu_says_so():
    with second_device() as device:
        with pytest.raises(ValueError, match='FusedSGD: its loop runs on the CPU, and the model is on'): fitted(cf_learner(loaders('ratings', device), seed=0), cbs=FusedSGD())

@pytest.fixture(scope='module')
def pair():
    "A learner here, and one of the same tables there"
    here = fitted(cf_learner(loaders('ratings', 'cpu'), 8, y_range=(.5, 5.5), seed=0), 5)
    with second_device() as device:
        there = cf_learner(loaders('ratings', device), 8, y_range=(.5, 5.5), seed=0)
        there.model.load_state_dict(here.model.state_dict())
        there.model.to(device)
    return here,there

def frame(o): return o if isinstance(o, pd.DataFrame) else pd.DataFrame(np.atleast_2d(np.asarray(o, float)))
QUESTIONS = dict(
    predict=lambda l: l.predict(USER, ITEM), interval=lambda l: l.predict(RATINGS.user[:5], RATINGS.item[:5], interval=.9), validate=lambda l: l.validate()[:2],
    **{f'recommend by {o}': lambda l, o=o: l.recommend([USER, NEW.user.iloc[0] - 10_000], rank_by=o, interval=.9) for o in ('rating', 'value', 'chance')},
    similar_items=lambda l: l.similar_items(ITEM), similar_users=lambda l: l.similar_users(USER), biases=lambda l: l.biases('item'), factors=lambda l: l.factors('user'),
    errors=lambda l: l.errors_by_count(), baselines=lambda l: l.baselines(), evaluate=lambda l: evaluate(l, seed=0),
    fold_in=lambda l: l.fold_in({ITEM: 4.}).recommend(5), many=lambda l: l.fold_in(NEW).recommend(5, rank_by='rating', interval=.9), everything=lambda l: l.fold_in(NEW).predict_all(),
    update=lambda l: l.fold_in(NEW[5:]).update(NEW[:5]).predict(NEW.user[:3], NEW.item[:3], interval=.9), explain=lambda l: l.explain(USER, ITEM),
    interview=lambda l: Interview(l).next_page(), histories=lambda l: l.dls.counts('user').cpu().numpy())

@pytest.mark.parametrize('question', QUESTIONS)
def test_answers_there_are_answers_here(pair, question):
    here = frame(QUESTIONS[question](pair[0]))
    with second_device(): there = frame(QUESTIONS[question](pair[1]))
    pd.testing.assert_frame_equal(here, there, atol=2e-3, rtol=2e-3, check_dtype=False)

def test_what_grows_and_what_is_saved(tmp_path):
    with second_device() as device:
        learn = fitted(cf_learner(loaders('ratings', device), 8, y_range=(.5, 5.5), seed=0), cbs=CheckpointCallback(tmp_path/'c'))
        learn.attach_prior(items=META)
        assert len(learn.recommend(USER)) == 10 and 1e-6 < learn.find_lr(seed=0).lr < 10
        learn.add_ratings(RATINGS[:3].assign(rating=3.))
        learn.add_users(NEW)
        assert len(learn.recommend(NEW.user.iloc[0], 3)) == 3
        learn.save_recommender(tmp_path/'r', interview=True)
        shown = learn.recommend(USER, rank_by='rating')
    pd.testing.assert_frame_equal(Recommender.load(tmp_path/'r').recommend(USER, rank_by='rating')[['item', 'rank']], shown[['item', 'rank']])

def test_the_second_device_notices():
    "What a GPU would refuse"
    with second_device() as device:
        there = torch.ones(3, 2, device=device)
        assert (there.cpu() + 1).numpy().sum() == 12 and there[torch.tensor([0, 2])].device == device and (there * torch.tensor(2.)).device == device
        for bad,error in ((lambda: there + torch.ones(2), RuntimeError), (lambda: torch.ones(2)[torch.tensor([0]).to(device)], RuntimeError), (lambda: np.asarray(there), TypeError),
                          (lambda: torch.randn(2, device=device, generator=torch.Generator()), RuntimeError), (lambda: torch.cat([there, torch.ones(1, 2)]), RuntimeError)):
            with pytest.raises(error): bad()

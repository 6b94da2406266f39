"fastai's own files: they go on working, and what they cannot give is said by name"
import warnings, zipfile
import pandas as pd, pytest, torch
from fastai.callback.tracker import SaveModelCallback
from fastai.learner import Learner, load_learner
import fastcf.all # every method of a learner
from fastcf.bayes.engines import ALS, Gibbs
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.interview.interview import Interview
from fastcf.learn.learner import cf_learner
from fastcf.watch.embedding_stats import EmbeddingStats

def learner(path, y_range=None, shift=0, attach=False):
    df = simulate_ratings(40, 60, 900, seed=3)
    df['user'] += shift
    users = pd.DataFrame(dict(user=[j + shift for j in range(45)], age=[j % 7 * 10 for j in range(45)]))
    learn = cf_learner(CFDataLoaders.from_df(df, valid_pct=.1, seed=0, users=users, device='cpu', path=path), factor_count=4, y_range=y_range, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn

@pytest.fixture(scope='module', params=[None, (.5, 5.5)])
def both(request, tmp_path_factory):
    "A learner, and what load_learner makes of its export"
    path = tmp_path_factory.mktemp('export')
    learn = learner(path, request.param)
    learn.export('e.pkl')
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); return learn,load_learner(path/'e.pkl')

WORKS = dict(predict=lambda l, u, i: l.predict(u, i), interval=lambda l, u, i: l.predict([u], [i], interval=.9), recommend=lambda l, u, i: l.recommend(u, 5), similar=lambda l, u, i: l.similar_items(i, 3),
             fold_in=lambda l, u, i: l.fold_in({i: 5}).recommend(3), fold_in_items=lambda l, u, i: l.fold_in_items({u: 5}).recommend(3), biases=lambda l, u, i: l.biases(), factors=lambda l, u, i: l.factors())

@pytest.mark.parametrize('ask', WORKS.values(), ids=WORKS)
def test_a_loaded_learner_answers_as_before(both, ask):
    a,b = both
    u,i = (v[int(a.dls.counts(j).argmax())] for j,v in zip(('user', 'item'), (a.dls.catalog.user, a.dls.catalog.item)))
    x,y = ask(a, u, i),ask(b, u, i)
    if isinstance(x, float): assert x == pytest.approx(y, abs=1e-6)
    else: pd.testing.assert_frame_equal(x, y)

REFUSED = dict(fit=lambda l: l.fit(1), fit_one_cycle=lambda l: l.fit_one_cycle(1), fit_flat_cos=lambda l: l.fit_flat_cos(1), validate=lambda l: l.validate(), get_preds=lambda l: l.get_preds(), lr_find=lambda l: l.lr_find(), find_lr=lambda l: l.find_lr(), show_results=lambda l: l.show_results(),
               attach_prior=lambda l: l.attach_prior(users=True), sample_posterior=lambda l: l.sample_posterior(2, 2), gibbs=lambda l: l.fit(2, cbs=Gibbs()), als=lambda l: l.fit(2, cbs=ALS()), stats=lambda l: l.fit(1, cbs=EmbeddingStats()),
               save_recommender=lambda l: l.save_recommender('never'), errors_by_count=lambda l: l.errors_by_count(), baselines=lambda l: l.baselines(), add_users=lambda l: l.add_users(pd.DataFrame(dict(user=[100], item=[1], rating=[5.]))))

@pytest.mark.parametrize('ask', REFUSED.values(), ids=REFUSED)
def test_what_needs_ratings_says_so(both, ask):
    with pytest.raises(ValueError, match='no training ratings, as after load_learner'): ask(both[1])

def test_pairs_with_ratings_of_their_own_go_through(both):
    learn = both[1]
    df = pd.DataFrame(dict(user=learn.dls.catalog.user[:2], item=learn.dls.catalog.item[:2], rating=[3., 4.]))
    assert len(learn.get_preds(dl=learn.dls.test_dl(df, with_labels=True))[0]) == 2 and learn.validate(dl=learn.dls.test_dl(df, with_labels=True))[0] is not None

def test_saved_numbers_are_not_loaded_for_others(tmp_path):
    learner(tmp_path).save('m1')
    with pytest.raises(ValueError, match="other users or items than these loaders"): learner(tmp_path, shift=1000).load('m1')
    assert learner(tmp_path).load('m1') and learner(tmp_path).load('m1', with_opt=False)
    a = Learner(learner(tmp_path).dls, learner(tmp_path).model) # fastai's own learner reads the file too
    Learner.load(a, 'm1', with_opt=False)

def test_files_of_fastai_without_ids_are_loaded(tmp_path):
    learn = learner(tmp_path)
    Learner.save(learn, 'old')
    assert learn.load('old')
    torch.save(learn.model.state_dict(), tmp_path/'models/older.pth', _use_new_zipfile_serialization=False)
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); assert learn.load('older', with_opt=False)

def test_the_best_model_of_a_fit_is_saved_and_loaded(tmp_path):
    learn = learner(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(3, cbs=SaveModelCallback(monitor='valid_loss', fname='best'))
    with zipfile.ZipFile(tmp_path/'models/best.pth') as z: assert z.testzip() is None and 'best/fastcf_ids' in z.namelist()

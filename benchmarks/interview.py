"""How long one waits for an interview among 100,000 items, on one core.

`python -m benchmarks.interview` prints seconds of processor time (the median of pages) for each step of a page of twenty: taking the replies and choosing
the next page, recommending, one click in the widget, saying how far one is; beside it, in the same run, the list of popular items, which
learns nothing from the replies. The aim is 0.2 s for the reply and the next page.
Then what questions about genres bring on ML-100K, protocol "cold users": the mean over three seeds. A newcomer's opinion of a genre is
the rounded mean of the ratings they can give of its films, which is kinder than life.
"""
import time
import numpy as np, pandas as pd, torch
from benchmarks.coldstart import SEEDS, cold_users, fitted as fitted_cold, spread
from fastcf.cold.proxies import ProxyQuestions
from fastcf.data.sources import load_ml100k, simulate_ratings
from fastcf.interview.interview import Interview
from fastcf.interview.simulate import simulate_interview
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
from fastcf.interview.questions import Interviewer
import fastcf.interview.widget # Interview.show

USERS, ITEMS, RATINGS, FACTORS = 20_000, 115_000, 1_000_000, 50

def fitted():
    df = simulate_ratings(USERS, ITEMS, RATINGS, seed=0)
    items = pd.DataFrame(dict(item=range(ITEMS), title=[f'Film {i}' for i in range(ITEMS)], year=2000))
    learn = cf_learner(CFDataLoaders.from_df(df, valid_pct=.01, bs=4096, seed=0, items=items, device='cpu'), FACTORS, y_range=(.5, 5.5), seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 5e-3)
    return learn

def took(f): t = time.process_time(); f(); return time.process_time() - t

def replied(page, rng): return {i: int(rng.integers(1, 6)) if rng.random() < .5 else None for i in page.iloc[:, 0].tolist()}

def pages(teach, strategy, count=6):
    rng, iv, rows = np.random.default_rng(0), Interview(teach, pages=count + 1, strategy=strategy), []
    page = iv.next_page()
    for _ in range(count):
        said, res = replied(page, rng), {}
        def turn(): nonlocal page; iv.answer(said); page = iv.next_page()
        rows.append({'reply and next page': took(turn), 'recommend(10)': took(iv.recommend), 'progress()': took(iv.progress), 'explain(item)': took(lambda: iv.explain(0))})
    return pd.DataFrame(rows).median()

def clicks(teach):
    "A click in the widget: the reply, the recommendations and why"
    iv = Interview(teach)
    iv.show()
    cards, choice = iv.watchers[-1].__self__.cards, [3, 5, 1, 6]
    def click(c, i): c.reply.index = i
    return np.median([took(lambda: click(c, choice[k % 4])) for k,c in enumerate(cards[:12])])

def genres_table(ml):
    train, answers, test = cold_users(ml)
    runs = []
    for seed in range(SEEDS):
        learn = fitted_cold(train, ml, seed, valid_pct=.02)
        teach, genres = Interviewer(learn, seed), ProxyQuestions(learn, 'genres', seed=seed)
        for name,proxies in (('adaptive', None), ('adaptive, genres too', genres)):
            df = simulate_interview(teach, answers, test, ['adaptive'], seed=seed, proxies=proxies)
            runs.append(df[df.strategy == 'adaptive'].assign(strategy=name, seed=seed))
    df = pd.concat(runs)
    print('\nGenres among the questions, cold users:\n' + pd.DataFrame({v: spread(df, ['strategy', 'questions'], v) for v in ('rmse', 'ndcg', 'answers')}).to_string())

def main():
    torch.set_num_threads(1)
    learn = fitted()
    start = time.perf_counter()
    teach = Interviewer(learn)
    print(f'{len(learn.dls.catalog.item):,} items, {FACTORS} factors; Interviewer, once for all newcomers: {time.perf_counter() - start:.1f} s')
    table = pd.DataFrame({s: pages(teach, s) for s in ('adaptive', 'popular')})
    table.loc['a click in the widget', 'adaptive'] = clicks(teach)
    table['adaptive / popular'] = table.adaptive / table.popular
    print(table.to_string(float_format='%.3f', na_rep=''), flush=True)
    genres_table(load_ml100k())

if __name__ == '__main__': main()

"""How long one waits for an interview among 100,000 items, on one core.

`python -m benchmarks.interview` prints seconds of processor time (the median of pages) for each step of a page of twenty: taking the replies and choosing
the next page, recommending, one click in the widget, saying how far one is; beside it, in the same run, the list of popular items, which
learns nothing from the replies. The aim is 0.2 s for the reply and the next page.
"""
import time
import numpy as np, pandas as pd, torch
from fastcf.data import simulate_ratings
from fastcf.interview import Interview
from fastcf.learner import cf_learner
from fastcf.loaders import CFDataLoaders
from fastcf.questions import Interviewer
import fastcf.widget # Interview.show

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

def main():
    torch.set_num_threads(1)
    learn = fitted()
    start = time.perf_counter()
    teach = Interviewer(learn)
    print(f'{len(learn.dls.catalog.item):,} items, {FACTORS} factors; Interviewer, once for all newcomers: {time.perf_counter() - start:.1f} s')
    table = pd.DataFrame({s: pages(teach, s) for s in ('adaptive', 'popular')})
    table.loc['a click in the widget', 'adaptive'] = clicks(teach)
    table['adaptive / popular'] = table.adaptive / table.popular
    print(table.to_string(float_format='%.3f', na_rep=''))

if __name__ == '__main__': main()

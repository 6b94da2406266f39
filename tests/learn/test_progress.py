"A fit in a log writes its table and nothing else, in a terminal it has bars"
import os, subprocess, sys
import pytest
from fastai.callback.progress import ProgressCallback
from fastai.learner import load_learner
from fastcf.core import is_watched, show_progress
from fastcf.data.loaders import CFDataLoaders
from fastcf.learn import lr_finder
from fastcf.learn.learner import cf_learner
from fastcf.learn.progress import LogOrBar

CODE = '''
from fastcf.all import *
dls = CFDataLoaders.from_df(simulate_ratings(60, 80, 3_000, 3, seed=0), valid_pct=0.1, seed=0)
learn = cf_learner(dls, factor_count=5, seed=0)
found = learn.find_lr()
learn.fit_one_cycle(3, found.lr)
learn.get_preds(); learn.validate(); learn.recommend(dls.catalog.user[0], k=3)
with learn.no_bar(): learn.fit(1, 1e-3)
learn.fit(1, 1e-3)
'''

@pytest.fixture
def learn(sim): return cf_learner(CFDataLoaders.from_df(sim, valid_pct=.2, seed=0), factor_count=3, seed=0)

def lines_of(out): return [l for l in out.replace('\r', '\n').split('\n') if l.strip()]

def test_a_log_has_the_table_and_nothing_else():
    out = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True, check=True).stdout
    heads = [l for l in lines_of(out) if l.startswith('epoch')]
    epochs = [l.split()[0] for l in lines_of(out) if l[0].isdigit()]
    assert len(heads) == 2 and epochs == ['0', '1', '2', '0']
    assert '\r' not in out and '█' not in out and '%' not in out
    plain = [l for l in lines_of(out) if not l.startswith('epoch') and not l[0].isdigit()]
    assert len(plain) == 1 and plain[0].startswith('[0,') # fastai prints the epoch's list itself in `no_bar`

@pytest.mark.skipif(os.name != 'posix', reason='a terminal to write to is made by pty')
def test_a_terminal_has_bars():
    import pty
    main,sub = pty.openpty()
    p = subprocess.Popen([sys.executable, '-c', CODE], stdout=sub, stderr=subprocess.DEVNULL)
    os.close(sub)
    said = b''
    while True:
        try: part = os.read(main, 2**16)
        except OSError: break # the other end is closed
        if not part: break
        said += part
    os.close(main)
    assert p.wait() == 0 and said.count(b'\r') > 20 and '█'.encode() in said and b'epoch' in said

def test_it_takes_the_place_of_fastais_by_its_name(learn):
    assert [type(c) for c in learn.cbs if isinstance(c, ProgressCallback)] == [LogOrBar] and learn.progress.name == 'progress'
    with learn.no_bar(): assert not hasattr(learn, 'progress') and not any(isinstance(c, ProgressCallback) for c in learn.cbs)
    assert type(learn.progress) is LogOrBar

def test_a_fit_that_breaks_off_leaves_the_learner_as_it_was(learn, capsys):
    class Stop(Exception): pass
    def refuse(*args): raise Stop('no')
    learn.progress._write_stats = refuse
    with pytest.raises(Stop): learn.fit(1)
    del learn.progress._write_stats
    learn.fit(1)
    assert learn.create_mbar and len(lines_of(capsys.readouterr().out)) == 2

def test_an_exported_learner_looks_anew(learn, tmp_path, capsys):
    learn.export(tmp_path/'l.pkl')
    back = load_learner(tmp_path/'l.pkl')
    assert type(back.progress) is LogOrBar
    back.dls = learn.dls
    back.fit(2)
    out = capsys.readouterr().out
    assert '\r' not in out and len(lines_of(out)) == 3

def test_anything_else_is_counted_in_silence(capsys):
    assert not is_watched() and list(show_progress('abc', leave=False)) == ['a', 'b', 'c'] and list(show_progress(iter('ab'), total=2)) == ['a', 'b']
    bar = show_progress(range(10))
    for j in range(11): bar.update(j)
    assert capsys.readouterr().out == ''

"What `from fastcf.all import *` brings: no name of the package is lost without the changelog saying what it is called now"
from pathlib import Path
import fastcf.all

ONCE = '''ALS AverageTables BestTables CFDataLoaders CFLearner CSVSink Catalog ColdItemSplitter ColdUserSplitter DownloadError EmbeddingDotBias EmbeddingStats FusedAdam Gaussian Gibbs
Interview LRFinding LeaveLastOutSplitter MetadataEncoder MetadataPrior Posterior ProxyQuestions RatingsDL RatingsData RatingsError RatingsTable RowCounts Sink TensorBoardSink
TimeSplitter Topics UnknownIdError Vocab WandBSink add_spread answer_proxies as_sinks cf_learner check_range check_ratings download_checked embedding_tables estimate_prior
factors_and_biases find_time first_ratings get_embeddings group_ratings id_repr input_columns load_ml100k metadata_features plot_first_ratings plot_interviews posterior
proxies proxy_weight rmse_metric score_all sha256_of simulate_interview simulate_ratings'''.split()
RENAMED = {'posterior_link': 'laplace_posterior', 'Folded': 'Belief', 'expected_ratings': 'Belief', 'rating_variance': 'Belief', 'fold_in_prior': 'Belief'}

def test_what_was_there_is_there(): assert [n for n in ONCE if n not in fastcf.all.__all__] == []

def test_what_is_called_otherwise_is_in_the_changelog():
    said = (Path(__file__).parent.parent/'CHANGELOG.md').read_text()
    for old,new in RENAMED.items():
        assert old not in fastcf.all.__all__ and new in fastcf.all.__all__, old
        assert f'`{old}`' in said, old

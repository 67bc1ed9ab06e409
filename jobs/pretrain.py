"""Train a base model on the tokens: checkpoints as it goes, a Hugging Face export at the end.

python jobs/pretrain.py recipes/demo.yaml
python jobs/pretrain.py recipes/demo.yaml name=wider model.width=256 pretrain.lr=2e-3
torch's threads, workers and GPUs: cluster.train_cpus=, cluster.train_workers=, cluster.train_gpus=
"""

from job import main
from webtochat.train.stage import pretrain

if __name__ == "__main__":
    main(__doc__, pretrain)

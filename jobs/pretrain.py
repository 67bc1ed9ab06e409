"""Train a base model on the tokens: checkpoints as it goes, a Hugging Face export at the end.

python jobs/pretrain.py recipes/demo.yaml
python jobs/pretrain.py recipes/demo.yaml name=wider model.width=256 pretrain.lr=2e-3
python jobs/pretrain.py recipes/gpt2.yaml --plan --devices 8 --device H100 --mfu 0.4
torch's threads, workers and GPUs: cluster.train_cpus=, cluster.train_workers=, cluster.train_gpus=
"""

import sys

from job import guarded, main, parser
from webtochat import recipe
from webtochat.train.plan import plan, table


def show_plan() -> None:
    """Prints what the run takes. Starts nothing, and needs no stage before it."""
    arguments = parser(__doc__)
    arguments.add_argument("--plan", action="store_true", help="say what the run takes, and stop")
    arguments.add_argument("--devices", type=int, default=1, help="how many (1)")
    arguments.add_argument("--device", default="H100", help="its name or part of it (H100)")
    arguments.add_argument("--mfu", type=float, default=0.4, help="share of its peak that is reached (0.4)")
    options = arguments.parse_intermixed_args()
    made = plan(recipe.load(options.recipe, options.overrides), options.devices, options.device, options.mfu)
    for what, much in table(made):
        print(f"{what:<12}{much}")


if __name__ == "__main__":
    if "--plan" in sys.argv:
        guarded(show_plan)
    from webtochat.train.stage import pretrain

    main(__doc__, pretrain)
